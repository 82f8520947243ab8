//! `bus-cli publish`: one event, the same event many times, or the lines of a file.

pub(crate) mod answers;
pub(crate) mod input;

use std::io::{Write, stderr};
use std::time::Duration;

use rumormill::{
    Bus, Clock, ContentType, Envelope, EventId, PublishError, Publisher, Receipt, SystemClock,
    Timestamp,
};
use tokio::time::Instant;

use self::answers::Answers;
use self::input::{Batch, Lines};
use crate::SOURCE;
use crate::address::Address;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::progress::State;
use crate::settings::{Publish, Template, What};
use crate::signals::interrupt;

/// Events that are under way at once: a fraction of what a bus lets be unconfirmed.
pub(crate) const EVENTS_AT_ONCE: usize = 512;
/// With a rate, events go out this many times a second.
const TICKS_PER_SECOND: u32 = 50;

/// Everything that is to be published, read as far as it can be without a connection.
pub(crate) struct Job {
    events: Events,
    after: Duration,
    deduplicate: bool,
    pace: Pace,
    format: crate::args::Format,
}

enum Events {
    Template { template: Box<Template>, payload: Vec<u8>, left: u64 },
    Lines(Lines),
}

impl Job {
    pub(crate) fn new(task: Publish) -> Result<Self, Failure> {
        let Publish { what, after, deduplicate, confirm: _, rate, dry_run: _, format } = task;
        let events = match what {
            What::Event(template) => {
                let payload = input::payload(&template.data)?;
                let events = Events::Template { payload, left: template.count, template };
                events.check()?;
                events
            }
            What::Lines(from) => Events::Lines(input::lines(&from)?),
        };
        let pace = Pace { rate, sent: 0, started: None };
        Ok(Self { events, after, deduplicate, pace, format })
    }

    /// Reads everything and publishes nothing; says how much there would be.
    pub(crate) async fn rehearse(mut self) -> Result<Exit, Failure> {
        let address = Address::none();
        let mut answers = Answers::new(Output::stdout(Some(self.format)), &address);
        let mut good = 0;
        while let Some(batch) = self.events.next(EVENTS_AT_ONCE).await? {
            good += batch.envelopes.len();
            answers.bad(&batch.bad);
        }
        let _ = writeln!(stderr(), "would publish {good} events (--dry-run)");
        Ok(answers.exit())
    }

    /// Publishes; the answers become receipts on stdout and errors on stderr.
    pub(crate) async fn run(mut self, bus: &Bus, address: &Address) -> Result<Exit, Failure> {
        let mut answers = Answers::new(Output::stdout(Some(self.format)), address);
        let interrupted = interrupt();
        tokio::pin!(interrupted);
        let ended_by = loop {
            let events_max = self.pace.events_max();
            let batch = tokio::select! {
                biased;
                _ = &mut interrupted => break Some("interrupted"),
                batch = self.events.next(events_max) => batch?,
            };
            let Some(Batch { envelopes, bad, upto }) = batch else { break None };
            tokio::select! {
                biased;
                _ = &mut interrupted => break Some("interrupted"),
                () = self.pace.wait() => {}
            }
            self.pace.sent += envelopes.len() as u64;
            // What was begun is finished, so that it can be said how far this went.
            let publisher = bus.publisher();
            let taken = publish(publisher, envelopes, self.after, self.deduplicate).await;
            answers.bad(&bad);
            answers.upto = upto;
            answers.take(taken)?;
            let state = self.events.state(&answers);
            answers.progress.show(state);
            if answers.unreachable {
                break Some("stopped");
            }
        };
        Ok(match ended_by {
            Some(how) => answers.stopped(how, self.events.left(&answers), None),
            None => answers.exit(),
        })
    }
}

/// Publishes some events at once; each answer with its id, in their order.
pub(crate) async fn publish(
    publisher: &Publisher,
    envelopes: Vec<Envelope>,
    after: Duration,
    deduplicate: bool,
) -> Vec<(EventId, Result<Receipt, PublishError>)> {
    let ids: Vec<EventId> = envelopes.iter().map(Envelope::id).collect();
    let answers = if deduplicate {
        publisher.publish_envelopes_deduplicated(envelopes).await
    } else if after.is_zero() {
        publisher.publish_envelopes(envelopes).await
    } else {
        let mut answers = Vec::with_capacity(envelopes.len());
        for envelope in envelopes {
            answers.push(publisher.publish_envelope_after(envelope, after).await);
        }
        answers
    };
    ids.into_iter().zip(answers).collect()
}

impl Events {
    /// The next events, `events_max` at most; `None` after the last.
    async fn next(&mut self, events_max: usize) -> Result<Option<Batch>, Failure> {
        match self {
            Self::Lines(lines) => lines.next(events_max).await,
            Self::Template { left: 0, .. } => Ok(None),
            Self::Template { template, payload, left } => {
                let count = (*left).min(events_max as u64);
                *left -= count;
                let now = SystemClock.now();
                let made = (0..count).map(|_| envelope(template, payload, now));
                Ok(Some(Batch { envelopes: made.collect::<Result<_, _>>()?, ..Batch::default() }))
            }
        }
    }

    /// What was not even tried, after how much was.
    fn left<W>(&self, answers: &Answers<'_, W>) -> Option<String> {
        match (self, answers.upto.line) {
            (Self::Template { left: 0, .. }, _) => None,
            (Self::Template { left, .. }, _) => Some(format!("{left} were not published")),
            (Self::Lines(_), 0) => Some("no line was published".to_owned()),
            (Self::Lines(_), line) => {
                Some(format!("lines 1 to {line} are done, those after {line} were not published"))
            }
        }
    }

    /// How far it is.
    fn state<W>(&self, answers: &Answers<'_, W>) -> State {
        let (done, failed) = (answers.stored, answers.failed + answers.bad);
        match self {
            Self::Template { template, .. } => State::of(done, failed, template.count),
            Self::Lines(lines) => {
                let share = lines.bytes().map(|all| answers.upto.byte as f64 / all as f64);
                State { done, failed, share, size: None }
            }
        }
    }

    /// Says at once what the first event would say after the connection.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Template { template, payload, .. } => {
                envelope(template, payload, SystemClock.now()).map(drop)
            }
            Self::Lines(_) => Ok(()),
        }
    }
}

fn envelope(template: &Template, payload: &[u8], now: Timestamp) -> Result<Envelope, Failure> {
    let Template { event_type, data: _, key, headers, id, expires, count: _ } = template;
    let payload = payload.to_vec();
    let mut builder = Envelope::builder(event_type.clone(), ContentType::JSON, payload, now)
        .source(SOURCE)
        .key(key.clone());
    if let Some(id) = id {
        builder = builder.id(*id);
    }
    if let Some(expires) = expires {
        builder = builder.expires_after(*expires);
    }
    for (name, value) in headers {
        builder = builder.header(name.clone(), value.clone());
    }
    builder.build().map_err(|error| Failure::refused("cannot publish", &error))
}

/// Lets no more than `rate` events a second go.
struct Pace {
    rate: Option<u32>,
    sent: u64,
    started: Option<Instant>,
}

impl Pace {
    fn events_max(&self) -> usize {
        let per_tick = self.rate.map(|rate| (rate / TICKS_PER_SECOND).max(1) as usize);
        per_tick.unwrap_or(EVENTS_AT_ONCE).min(EVENTS_AT_ONCE)
    }

    /// Waits until the moment of the next event.
    async fn wait(&mut self) {
        let Some(rate) = self.rate else { return };
        let started = *self.started.get_or_insert_with(Instant::now);
        let nanos = u128::from(self.sent) * 1_000_000_000 / u128::from(rate);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        tokio::time::sleep_until(started + due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_over_time() {
        let mut pace = Pace { rate: Some(200), sent: 0, started: None };
        let started = Instant::now();
        while pace.sent < 1000 {
            pace.wait().await;
            pace.sent += pace.events_max() as u64;
        }
        pace.wait().await;
        assert_eq!(started.elapsed().as_secs(), 5);
        let slow = Pace { rate: Some(1), sent: 0, started: None };
        assert_eq!(slow.events_max(), 1);
    }
}
