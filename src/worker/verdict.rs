//! How a delivery ends, decided from what the handler said. Pure.

use std::time::Duration;

use crate::delivery::{Cause, Failure, Outcome, Output, Site};
use crate::envelope::Envelope;
use crate::error::HandlerError;
use crate::pattern::Pattern;
use crate::service::RetryPolicy;
use crate::time::Timestamp;

/// How long an event stays away that only another version of the service can take: long enough
/// not to spin, short enough for a deploy.
pub(crate) const HAND_OVER_DELAY: Duration = Duration::from_secs(1);

/// Decides the end of attempt `attempt`; `jitter` is drawn from `0.0..1.0`.
pub(crate) fn decide(
    attempt: u32,
    result: Result<Vec<Output>, HandlerError>,
    policy: &RetryPolicy,
    jitter: f64,
) -> Outcome {
    let error = match result {
        Ok(outputs) => return Outcome::Ack { outputs },
        Err(error) => error,
    };
    let failure = |cause| Failure { cause, errors: error.chain(), site: Site::default() };
    if error.is_undecodable() {
        Outcome::DeadLetter { failure: failure(Cause::Undecodable) }
    } else if error.is_reject() {
        Outcome::DeadLetter { failure: failure(Cause::Rejected) }
    } else if attempt >= policy.attempts_max {
        Outcome::DeadLetter { failure: failure(Cause::AttemptsSpent) }
    } else {
        let after = error.delay().unwrap_or_else(|| policy.delay(attempt, jitter));
        Outcome::Retry { after, failure: failure(Cause::Failed) }
    }
}

/// The outcome of an event whose success is to be known for `window`.
pub(crate) fn once(outcome: Outcome, window: Option<Duration>) -> Outcome {
    match (outcome, window) {
        (Outcome::Ack { outputs }, Some(window)) => Outcome::AckOnce { outputs, window },
        (outcome, _) => outcome,
    }
}

/// The outcome with the name of the route that came to it.
pub(crate) fn at(mut outcome: Outcome, route: &Pattern) -> Outcome {
    if let Outcome::Retry { failure, .. } | Outcome::DeadLetter { failure } = &mut outcome {
        failure.site.handler = route.to_string();
    }
    outcome
}

/// The end of an event that is past its expiry: it is not run any more.
/// The time is asked only where there is an expiry.
pub(crate) fn expired(envelope: &Envelope, now: impl FnOnce() -> Timestamp) -> Option<Outcome> {
    let expires = envelope.expires().filter(|_| envelope.is_expired(now()))?;
    let failure = Failure::new(Cause::Expired, format!("expired at {expires}"));
    Some(Outcome::DeadLetter { failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(outcome: &Outcome) -> Option<Cause> {
        match outcome {
            Outcome::Retry { failure, .. } | Outcome::DeadLetter { failure } => Some(failure.cause),
            _ => None,
        }
    }

    #[test]
    fn the_last_attempt_is_dead_lettered() {
        let policy = RetryPolicy { attempts_max: 3, ..RetryPolicy::default() };
        let ends: Vec<_> = (1..=4)
            .map(|attempt| cause(&decide(attempt, Err("no".into()), &policy, 0.5)))
            .collect();
        let (failed, spent) = (Some(Cause::Failed), Some(Cause::AttemptsSpent));
        assert_eq!(ends, [failed, failed, spent, spent]);
    }

    #[test]
    fn the_handlers_words_rule() {
        let policy = RetryPolicy::default();
        let after = Duration::from_secs(7);
        match decide(1, Err(HandlerError::retry_after(after, "busy")), &policy, 0.5) {
            Outcome::Retry { after: chosen, failure } => {
                assert_eq!((chosen, failure.errors), (after, vec!["busy".to_owned()]));
            }
            other => panic!("{other:?}"),
        }
        let rejected = decide(1, Err(HandlerError::reject("never")), &policy, 0.5);
        assert_eq!(cause(&rejected), Some(Cause::Rejected));
        let undecodable = decide(1, Err(HandlerError::undecodable("what")), &policy, 0.5);
        assert_eq!(cause(&undecodable), Some(Cause::Undecodable));
        assert_eq!(decide(16, Ok(Vec::new()), &policy, 0.5), Outcome::ack());
    }

    #[test]
    fn only_a_success_is_known_for_a_window() {
        let window = Duration::from_secs(5);
        let known = Outcome::AckOnce { outputs: Vec::new(), window };
        assert_eq!(once(Outcome::ack(), Some(window)), known);
        assert_eq!(once(Outcome::ack(), None), Outcome::ack());
        assert_eq!(once(Outcome::Park, Some(window)), Outcome::Park);
    }

    #[test]
    fn what_failed_names_its_route() {
        let route = Pattern::all();
        let site = |outcome| match at(outcome, &route) {
            Outcome::Retry { failure, .. } | Outcome::DeadLetter { failure } => {
                failure.site.handler
            }
            other => panic!("{other:?}"),
        };
        let failure = Failure::new(Cause::Failed, "no");
        let retry = Outcome::Retry { after: Duration::ZERO, failure: failure.clone() };
        assert_eq!(site(retry), ">");
        assert_eq!(site(Outcome::DeadLetter { failure }), ">");
        assert_eq!(at(Outcome::ack(), &route), Outcome::ack());
    }

    #[test]
    fn what_is_past_its_expiry_is_not_run() {
        let time = Timestamp::from_millis;
        let event = |expires| {
            let event_type = crate::event_type::EventType::from_static("a.b");
            let json = crate::codec::ContentType::JSON;
            let builder = Envelope::builder(event_type, json, "1", time(1)).expires(expires);
            builder.build().expect("within limits")
        };
        assert_eq!(expired(&event(Some(time(9))), || time(8)), None);
        let end = expired(&event(Some(time(9))), || time(9)).expect("past it");
        assert_eq!(cause(&end), Some(Cause::Expired));
        assert_eq!(expired(&event(None), || panic!("nobody needs the time")), None);
    }
}
