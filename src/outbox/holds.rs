//! What failed and waits: topics that the bus does not take now, and single lanes that fail while
//! others of their partition are stored. No I/O; the moments are the caller's.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, Skip};
use crate::delivery::Partition;
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
    /// Lanes that filled a whole round without being stored: they wait, whoever is at fault, so
    /// that a round sees what stands behind them.
    aside: HashMap<Lane, Wait>,
}

/// A lane that failed. Without `failures` nobody knows whether it was at fault.
#[derive(Debug)]
struct Doubt {
    partition: Partition,
    /// Others of the partition were stored since it failed last.
    others_stored: bool,
    /// Times that it failed by itself, for whatever reason.
    failures: u32,
    /// Those of them that are about the event.
    tries: u32,
    until: Instant,
}

#[derive(Debug)]
struct Wait {
    partition: Partition,
    until: Instant,
    /// A round looked at its topic meanwhile.
    passed_over: bool,
}

/// How an event failed that went alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    /// Others of its partition were stored in the same round.
    pub(super) by_itself: bool,
    /// It is the event that is refused, not anything by a server that is away or full.
    pub(super) of_event: bool,
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
        Self { policy, lanes: HashMap::new(), topics: HashMap::new(), aside: HashMap::new() }
    }

    /// What is not to be tried in the round that begins at `now`.
    pub(super) fn skip(&mut self, now: Instant) -> Skip {
        let mut skip = Skip::default();
        let paused = self.topics.iter().filter(|(_, pause)| pause.until > now);
        skip.topics.extend(paused.map(|(topic, _)| topic.clone()));
        let doubted = self.lanes.iter().filter(|(_, doubt)| doubt.until > now);
        let lanes: HashSet<_> = doubted.map(|(lane, _)| lane).chain(self.aside.keys()).collect();
        for lane in lanes {
            match lane {
                Lane::Key(topic, key) => skip.keys.push((topic.clone(), key.clone())),
                Lane::Row(number) => skip.rows.push(*number),
            }
        }
        for wait in self.aside.values_mut() {
            wait.passed_over |= !skip.topics.contains(&wait.partition.topic);
        }
        skip
    }

    /// When the first of those that wait may be tried again.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let lanes = self.lanes.values().map(|doubt| doubt.until);
        let aside = self.aside.values().map(|wait| wait.until);
        let all = lanes.chain(aside).chain(self.topics.values().map(|pause| pause.until));
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

    /// Something of the partition was stored: what fails there next fails by itself.
    pub(super) fn partition_worked(&mut self, partition: &Partition, now: Instant) {
        for doubt in self.lanes.values_mut().filter(|doubt| doubt.partition == *partition) {
            doubt.others_stored = true;
        }
        self.aside.retain(|_, wait| wait.until > now || wait.partition != *partition);
    }

    /// A round saw all that there was behind those that stand aside: it is their turn again. Not
    /// by time alone: where rounds are slow, the first would be back before the last are seen.
    pub(super) fn all_was_seen(&mut self, now: Instant) {
        self.aside.retain(|_, wait| wait.until > now || !wait.passed_over);
    }

    /// Nothing of the topic was stored. `looks_on`: what failed stands aside, and the next round
    /// sees other rows; they need not wait for long.
    pub(super) fn topic_failed(
        &mut self,
        topic: &Topic,
        looks_on: bool,
        now: Instant,
        jitter: f64,
    ) {
        let pause = self.topics.entry(topic.clone()).or_insert(Pause { failures: 0, until: now });
        pause.failures = pause.failures.saturating_add(1);
        let failures = if looks_on { 1 } else { pause.failures };
        pause.until = now + wait(&PAUSE, failures, jitter);
    }

    /// Lets a lane wait that filled a round; false where too many do.
    pub(super) fn stand_aside(&mut self, lane: &Lane, partition: &Partition, now: Instant) -> bool {
        if self.aside.len() >= LANES_MAX {
            self.aside.retain(|_, wait| wait.until > now);
        }
        if self.aside.len() >= LANES_MAX && !self.aside.contains_key(lane) {
            return false;
        }
        let (partition, until) = (partition.clone(), now + PAUSE.cap);
        self.aside.insert(lane.clone(), Wait { partition, until, passed_over: false });
        true
    }

    /// An event failed that went alone.
    pub(super) fn lane_failed(
        &mut self,
        lane: &Lane,
        partition: &Partition,
        failure: Failure,
        now: Instant,
        jitter: f64,
    ) -> Next {
        if !self.has_room(lane) {
            self.topic_failed(&partition.topic, false, now, jitter);
            return Next::Again;
        }
        let policy = self.policy;
        let doubt = self.lanes.entry(lane.clone()).or_insert_with(|| Doubt {
            partition: partition.clone(),
            others_stored: false,
            failures: 0,
            tries: 0,
            until: now,
        });
        doubt.partition = partition.clone();
        let others_stored = std::mem::take(&mut doubt.others_stored);
        if !failure.by_itself && !others_stored {
            return Next::Again;
        }
        doubt.failures = doubt.failures.saturating_add(1);
        doubt.tries += u32::from(failure.of_event);
        doubt.until = now + wait(&policy, doubt.failures, jitter);
        if doubt.tries < policy.attempts_max {
            return Next::Again;
        }
        self.lanes.remove(lane);
        Next::SetAside
    }

    /// Makes room by forgetting those of which nobody knows anything.
    fn has_room(&mut self, lane: &Lane) -> bool {
        if self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(lane) {
            self.lanes.retain(|_, doubt| doubt.failures > 0);
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

    fn partition(topic: &Topic) -> Partition {
        Partition { topic: topic.clone(), index: 0 }
    }

    const BY_ITSELF: Failure = Failure { by_itself: true, of_event: true };
    const WITH_ALL: Failure = Failure { by_itself: false, of_event: true };

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_fails_by_itself_waits_and_is_set_aside_in_the_end() {
        let (mut holds, now) = (holds(), Instant::now());
        let (topic, lane) = (topic("a"), Lane::Key(topic("a"), "k".into()));
        let partition = partition(&topic);
        let mut fail = |now| holds.lane_failed(&lane, &partition, BY_ITSELF, now, 0.0);
        assert_eq!(fail(now), Next::Again);
        assert_eq!(fail(now), Next::Again);
        assert_eq!(holds.skip(now).keys, [(topic.clone(), "k".into())]);
        assert_eq!(holds.skip(now + Duration::from_millis(300)), Skip::default());
        let last = holds.lane_failed(&lane, &partition, BY_ITSELF, now, 0.0);
        assert_eq!(last, Next::SetAside);
        assert!(!holds.doubts(&lane));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_about_the_event_never_sets_it_aside() {
        let (mut holds, now) = (holds(), Instant::now());
        let (partition, lane) = (partition(&topic("a")), Lane::Row(1));
        let failure = Failure { by_itself: true, of_event: false };
        for _ in 0..100 {
            assert_eq!(holds.lane_failed(&lane, &partition, failure, now, 0.0), Next::Again);
        }
        assert_eq!(holds.skip(now).rows, [1], "it waits nevertheless");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_with_all_counts_once_others_were_stored() {
        let (mut holds, now) = (holds(), Instant::now());
        let (partition, lane) = (partition(&topic("a")), Lane::Row(1));
        let mut stored_between = 0;
        while holds.lane_failed(&lane, &partition, WITH_ALL, now, 0.0) == Next::Again {
            assert_eq!(holds.lane_failed(&lane, &partition, WITH_ALL, now, 0.0), Next::Again);
            let other = Partition { topic: topic("a"), index: 1 };
            holds.partition_worked(&other, now);
            assert_eq!(holds.lane_failed(&lane, &partition, WITH_ALL, now, 0.0), Next::Again);
            holds.partition_worked(&partition, now);
            stored_between += 1;
        }
        assert_eq!(stored_between, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_aside_comes_back_when_all_behind_it_was_seen() {
        let (mut holds, now) = (holds(), Instant::now());
        let (topic, later) = (topic("a"), now + Duration::from_secs(3_600));
        let partition = partition(&topic);
        holds.topic_failed(&topic, true, now, 0.0);
        assert!(holds.stand_aside(&Lane::Row(1), &partition, now));
        assert_eq!(holds.skip(now).topics, std::slice::from_ref(&topic));
        holds.all_was_seen(later);
        assert_eq!(holds.skip(later).rows, [1], "the topic was not looked at");
        assert_eq!(holds.skip(later).rows, [1], "others may be behind it");
        holds.all_was_seen(now);
        assert_eq!(holds.skip(later).rows, [1], "not at once");
        holds.all_was_seen(later);
        assert_eq!(holds.skip(later), Skip::default());
        assert!(holds.stand_aside(&Lane::Row(1), &partition, now));
        holds.partition_worked(&Partition { index: 1, ..partition.clone() }, later);
        assert_eq!(holds.skip(later).rows, [1], "another one");
        holds.partition_worked(&partition, later);
        assert_eq!(holds.skip(later), Skip::default());
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_stored_the_topic_waits_and_no_try_counts() {
        let (mut holds, now) = (holds(), Instant::now());
        let (topic, lane) = (topic("a"), Lane::Row(1));
        let partition = partition(&topic);
        for failure in 1..100 {
            assert_eq!(holds.is_careful(&topic), failure > CAREFUL_FROM);
            assert_eq!(holds.lane_failed(&lane, &partition, WITH_ALL, now, 0.9), Next::Again);
            holds.topic_failed(&topic, false, now, 0.9);
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
            let failure = Failure { by_itself: row % 2 == 0, of_event: true };
            holds.lane_failed(&Lane::Row(row), &partition(&topic), failure, now, 0.5);
            holds.stand_aside(&Lane::Row(row), &partition(&topic), now);
        }
        assert!(holds.lanes.len() <= LANES_MAX && holds.aside.len() <= LANES_MAX);
        assert_eq!(holds.skip(now).topics, [topic], "the rest waits with its topic");
    }
}
