//! What failed and waits: topics that the bus does not take now, and single lanes that fail while
//! others of their partition are stored. No I/O; the moments are the caller's.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, Skip};
use crate::event_type::Topic;
use crate::service::RetryPolicy;

/// Lanes that are remembered; where more fail, their topics wait.
const LANES_MAX: usize = 1_000;

/// How long a topic waits at most: a bus that is back is noticed within that.
const PAUSE: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    first: Duration::from_millis(100),
    factor: 2.0,
    cap: Duration::from_secs(1),
};

/// From this failure of a topic in a row on, its events are tried one by one: one of them may be
/// what breaks the connection.
const CAREFUL_FROM: u32 = 3;

/// What failed, and until when it waits.
#[derive(Debug)]
pub(super) struct Holds {
    policy: RetryPolicy,
    lanes: HashMap<Lane, Doubt>,
    topics: HashMap<Topic, Pause>,
}

/// A lane that failed. Without `tries` nobody knows whether it was at fault.
#[derive(Debug)]
struct Doubt {
    tries: u32,
    until: Instant,
}

#[derive(Debug)]
struct Pause {
    failures: u32,
    until: Instant,
}

/// What is to become of an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Again,
    SetAside,
}

impl Holds {
    pub(super) fn new(policy: RetryPolicy) -> Self {
        Self { policy, lanes: HashMap::new(), topics: HashMap::new() }
    }

    /// What is not to be tried at `now`.
    pub(super) fn skip(&self, now: Instant) -> Skip {
        let mut skip = Skip::default();
        let paused = self.topics.iter().filter(|(_, pause)| pause.until > now);
        skip.topics.extend(paused.map(|(topic, _)| topic.clone()));
        for (lane, _) in self.lanes.iter().filter(|(_, doubt)| doubt.until > now) {
            match lane {
                Lane::Key(topic, key) => skip.keys.push((topic.clone(), key.clone())),
                Lane::Row(number) => skip.rows.push(*number),
            }
        }
        skip
    }

    /// When the first of those that wait may be tried again.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let lanes = self.lanes.values().map(|doubt| doubt.until);
        let all = lanes.chain(self.topics.values().map(|pause| pause.until));
        all.filter(|until| *until > now).min()
    }

    /// It failed before: it goes alone, after all others.
    pub(super) fn doubts(&self, lane: &Lane) -> bool {
        self.lanes.contains_key(lane)
    }

    /// Every event of the topic goes alone.
    pub(super) fn is_careful(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|pause| pause.failures >= CAREFUL_FROM)
    }

    pub(super) fn lane_worked(&mut self, lane: &Lane) {
        self.lanes.remove(lane);
    }

    pub(super) fn topic_worked(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }

    /// Nothing of the topic was stored.
    pub(super) fn topic_failed(&mut self, topic: &Topic, now: Instant, jitter: f64) {
        let pause = self.topics.entry(topic.clone()).or_insert(Pause { failures: 0, until: now });
        pause.failures = pause.failures.saturating_add(1);
        pause.until = now + wait(&PAUSE, pause.failures, jitter);
    }

    /// An event failed that went alone. `by_itself`: others of its partition were stored.
    pub(super) fn lane_failed(
        &mut self,
        lane: &Lane,
        topic: &Topic,
        by_itself: bool,
        now: Instant,
        jitter: f64,
    ) -> Next {
        if !self.has_room(lane) {
            self.topic_failed(topic, now, jitter);
            return Next::Again;
        }
        let policy = self.policy;
        let doubt = self.lanes.entry(lane.clone()).or_insert(Doubt { tries: 0, until: now });
        if !by_itself {
            return Next::Again;
        }
        doubt.tries += 1;
        doubt.until = now + wait(&policy, doubt.tries, jitter);
        if doubt.tries < policy.attempts_max {
            return Next::Again;
        }
        self.lanes.remove(lane);
        Next::SetAside
    }

    /// Makes room by forgetting those of which nobody knows anything.
    fn has_room(&mut self, lane: &Lane) -> bool {
        if self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(lane) {
            self.lanes.retain(|_, doubt| doubt.tries > 0);
        }
        self.lanes.len() < LANES_MAX || self.lanes.contains_key(lane)
    }
}

/// At least half of the longest wait: what failed is not tried again at once.
fn wait(policy: &RetryPolicy, tries: u32, jitter: f64) -> Duration {
    policy.delay(tries, 0.5 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        name.parse().expect("a topic")
    }

    fn holds() -> Holds {
        Holds::new(RetryPolicy { attempts_max: 3, ..RetryPolicy::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_fails_by_itself_waits_and_is_set_aside_in_the_end() {
        let (mut holds, now) = (holds(), Instant::now());
        let (topic, lane) = (topic("a"), Lane::Key(topic("a"), "k".into()));
        let mut fail = |now| holds.lane_failed(&lane, &topic, true, now, 0.0);
        assert_eq!(fail(now), Next::Again);
        assert_eq!(fail(now), Next::Again);
        assert_eq!(holds.skip(now).keys, [(topic.clone(), "k".into())]);
        assert_eq!(holds.skip(now + Duration::from_millis(300)), Skip::default());
        assert_eq!(holds.lane_failed(&lane, &topic, true, now, 0.0), Next::SetAside);
        assert!(!holds.doubts(&lane));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_stored_the_topic_waits_and_no_try_counts() {
        let (mut holds, now) = (holds(), Instant::now());
        let (topic, lane) = (topic("a"), Lane::Row(1));
        for failure in 1..100 {
            assert_eq!(holds.is_careful(&topic), failure > CAREFUL_FROM);
            assert_eq!(holds.lane_failed(&lane, &topic, false, now, 0.9), Next::Again);
            holds.topic_failed(&topic, now, 0.9);
        }
        assert!(holds.doubts(&lane));
        let skip = holds.skip(now);
        assert_eq!((skip.topics.len(), skip.rows.len()), (1, 0));
        assert!(holds.next(now).is_some_and(|next| next <= now + PAUSE.cap));
        holds.topic_worked(&topic);
        assert_eq!(holds.next(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (mut holds, now) = (holds(), Instant::now());
        let topic = topic("a");
        for row in 0..5_000 {
            holds.lane_failed(&Lane::Row(row), &topic, row % 2 == 0, now, 0.5);
        }
        assert!(holds.lanes.len() <= LANES_MAX);
        assert_eq!(holds.skip(now).topics, [topic], "the rest waits with its topic");
    }
}
