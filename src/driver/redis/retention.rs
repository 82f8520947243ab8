//! Retention: what all groups have settled is kept for a while and then goes; what a group has
//! still to read or to settle stays, up to a cap, beyond which the oldest go and are counted.
//!
//! Every process trims the partitions that it publishes to or consumes, at most one process per
//! partition and round: whoever takes the turn (`turn.lua`) does so in bounded steps (`trim.lua`).
//! The guard is of use under full memory, too, when trimming matters most.

mod gone;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::Value;
use tokio::time::{Instant, sleep};

pub(super) use self::gone::Standing;
use super::fault::Fault;
use super::script::{Call, TRIM, TURN};
use super::{Shared, reply, topics};
use crate::delivery::Partition;
use crate::driver::admin::{Kept, Retention, TopicLimits};
use crate::error::Error;
use crate::event_type::Topic;

/// Partitions per pipeline.
const PARTITIONS_MAX: usize = 50;
/// Between two steps on one partition the server is left to others.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// The hard cap where neither the topic nor the server's memory has a limit.
const CAP_BYTES: u64 = 1 << 30;

/// What is kept of the logs, and for how long. What is said of a topic itself, with
/// [`Admin::set_retention`](crate::driver::admin::Admin::set_retention), comes before it.
///
/// All bytes are those of the entries' fields, estimated from a sample, per partition.
#[derive(Clone, Debug)]
pub struct RetentionOptions {
    /// How often a partition is trimmed, by one of all processes. Default 10 s.
    pub trim_every: Duration,
    /// How long entries are kept that all groups have settled, for groups that come later.
    /// Default 24 h.
    pub keep: Duration,
    /// The size of a log beyond which settled entries go earlier than that. Default 256 MiB.
    pub keep_bytes: u64,
    /// The size of a log beyond which the oldest entries go, settled or not; what groups lose by
    /// it is counted and reported. Default: a quarter of the server's `maxmemory`, or 1 GiB where
    /// there is none.
    pub cap_bytes: Option<u64>,
    /// How long a group without a live member holds what it has not settled, 48 h at least.
    /// Default 7 days.
    pub group_kept: Duration,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self {
            trim_every: Duration::from_secs(10),
            keep: 24 * HOUR,
            keep_bytes: 256 << 20,
            cap_bytes: None,
            group_kept: 7 * 24 * HOUR,
        }
    }
}

impl RetentionOptions {
    /// Of a pattern that a newer version of a service had, an older one refreshes the sign of
    /// life only a day later.
    const GROUP_KEPT_MIN: Duration = Duration::from_secs(48 * 60 * 60);

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.trim_every.as_millis() == 0 {
            return Err(Error::invalid("trim_every must be 1 ms at least"));
        }
        if self.group_kept < Self::GROUP_KEPT_MIN {
            let text = format!("group_kept of {:?} is less than 48 h", self.group_kept);
            return Err(Error::invalid(text)
                .with_help("groups register their routes once a day at least: two days are safe"));
        }
        TopicLimits {
            keep: Some(self.keep),
            keep_bytes: Some(self.keep_bytes),
            cap_bytes: self.cap_bytes,
        }
        .check()
    }

    /// What holds for a topic on a server with so much memory; 0 is without a limit.
    pub(super) fn kept(&self, limits: &TopicLimits, maxmemory: u64) -> Kept {
        let by_memory = if maxmemory == 0 { CAP_BYTES } else { (maxmemory / 4).max(1) };
        let cap_bytes = limits.cap_bytes.or(self.cap_bytes).unwrap_or(by_memory);
        let keep_bytes = limits.keep_bytes.unwrap_or(self.keep_bytes).min(cap_bytes);
        let keep = limits.keep.unwrap_or(self.keep);
        Kept { keep_ms: millis(keep), keep_bytes, cap_bytes }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The one place where it is said that a group lost entries to the hard cap.
fn retention_lost(group: &str, partition: &Partition, entries: u64) {
    tracing::warn!(
        group, %partition, entries,
        "the log reached its hard cap, or the group was gone for too long: the oldest entries \
         were dropped before the group had settled them"
    );
}

/// Trims what the process has to do with.
pub(super) struct Trimmer {
    shared: Arc<Shared>,
    /// Tells this process from others.
    token: String,
    /// What groups had lost when a partition was last looked at.
    known: HashMap<Partition, BTreeMap<String, u64>>,
}

/// What one step did.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    more: bool,
    /// By group.
    lost: Vec<(String, u64)>,
}

impl Trimmer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let token = uuid::Uuid::new_v4().simple().to_string();
        Self { shared, token, known: HashMap::new() }
    }

    /// Trims until the driver ends.
    pub(super) async fn run(mut self) {
        let stop = self.shared.runtime.stop().clone();
        let every = self.shared.retention.trim_every;
        let work = async {
            // Not at one moment for all processes that start together.
            sleep(every.mul_f64(fastrand::f64())).await;
            loop {
                match self.tick().await {
                    Ok(()) => self.shared.troubles.over("trim"),
                    Err(error) => self.shared.troubles.failed("trim", &error),
                }
                sleep(every.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// One round over everything that is watched. One partition that fails does not keep the
    /// others from being trimmed; the last error is told.
    async fn tick(&mut self) -> Result<(), Error> {
        let partitions = self.shared.schedule.partitions();
        let mut outcome = Ok(());
        for part in partitions.chunks(PARTITIONS_MAX) {
            let ours = self.take_turns(part).await?;
            if ours.is_empty() {
                continue;
            }
            let limits = self.shared.limits_of(&ours).await?;
            let gone = self.shared.gone_groups(&ours).await?;
            for (partition, gone) in ours.iter().zip(gone) {
                let Some(Retention { kept, .. }) = limits.get(&partition.topic) else { continue };
                let mut lost = BTreeMap::new();
                let trimmed = self.trim(partition, kept, &gone, &mut lost).await;
                outcome = outcome.and(trimmed);
                self.report(partition, lost);
            }
        }
        outcome
    }

    /// Takes the turn where nobody else has it, and looks at what was lost.
    async fn take_turns(&mut self, partitions: &[Partition]) -> Result<Vec<Partition>, Error> {
        let shared = Arc::clone(&self.shared);
        let keys = &shared.keys;
        let mut calls = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let mut call = Call::new(&TURN, vec![keys.trim(partition), keys.dropped(partition)]);
            call.arg(self.token.as_str()).number(&millis(shared.retention.trim_every).max(1));
            calls.push(call);
        }
        let what = "take the turn to trim";
        let mut ours = Vec::new();
        let answers = shared.commands.call(what, &calls).await?;
        for (partition, answer) in partitions.iter().zip(answers) {
            let turn = read_turn(answer).map_err(|fault| {
                shared.commands.error(format!("{what} by key {}", keys.trim(partition)), &fault)
            })?;
            self.notice(partition, turn.1);
            if turn.0 {
                ours.push(partition.clone());
            }
        }
        Ok(ours)
    }

    /// Another process may have trimmed: what groups lost that have a member here is told here as
    /// well. What was lost before this process looked for the first time is old news.
    fn notice(&mut self, partition: &Partition, totals: BTreeMap<String, u64>) {
        let own: BTreeSet<String> = self.shared.own_groups();
        if let Some(known) = self.known.get(partition) {
            for (group, total) in &totals {
                let lost = total.saturating_sub(known.get(group).copied().unwrap_or(0));
                if lost > 0 && own.contains(group) {
                    retention_lost(group, partition, lost);
                }
            }
        }
        self.known.insert(partition.clone(), totals);
    }

    fn report(&mut self, partition: &Partition, lost: BTreeMap<String, u64>) {
        let known = self.known.entry(partition.clone()).or_default();
        for (group, entries) in lost {
            retention_lost(&group, partition, entries);
            *known.entry(group).or_default() += entries;
        }
    }

    /// Steps until nothing is due, or the turn ends.
    async fn trim(
        &self,
        partition: &Partition,
        kept: &Kept,
        gone: &[Vec<u8>],
        lost: &mut BTreeMap<String, u64>,
    ) -> Result<(), Error> {
        let until = Instant::now() + self.shared.retention.trim_every;
        loop {
            let step = self.step(partition, kept, gone).await?;
            for (group, entries) in step.lost {
                *lost.entry(group).or_default() += entries;
            }
            if !step.more || Instant::now() >= until {
                return Ok(());
            }
            sleep(STEP_PAUSE).await;
        }
    }

    async fn step(
        &self,
        partition: &Partition,
        kept: &Kept,
        gone: &[Vec<u8>],
    ) -> Result<Step, Error> {
        let Shared { keys, commands, .. } = &*self.shared;
        let log = keys.log(partition);
        let what = format!("trim key {log}");
        let mut call = Call::new(&TRIM, vec![log, keys.trim(partition), keys.dropped(partition)]);
        call.arg(self.token.as_str());
        call.number(&kept.keep_ms).number(&kept.keep_bytes).number(&kept.cap_bytes);
        for group in gone {
            call.arg(group.as_slice());
        }
        let answer = commands.call(&what, &[call]).await?.pop().unwrap_or_default();
        read_step(answer).map_err(|fault| commands.error(what, &fault))
    }
}

impl Shared {
    /// The groups that have a member in this process.
    fn own_groups(&self) -> BTreeSet<String> {
        let members = self.members();
        let live = members.iter().filter_map(Weak::upgrade);
        live.map(|member| member.group.as_str().to_owned()).collect()
    }

    /// What holds for the topics of partitions.
    pub(super) async fn limits_of(
        &self,
        partitions: &[Partition],
    ) -> Result<HashMap<Topic, Retention>, Error> {
        let topics: BTreeSet<&Topic> = partitions.iter().map(|own| &own.topic).collect();
        let key = self.keys.topics();
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").arg("memory");
        pipeline.cmd("HMGET").arg(&key);
        for topic in &topics {
            pipeline.arg(topic.as_str());
        }
        let what = format!("read the limits of topics in key {key}");
        let mut answers = self.commands.ask(&what, &pipeline).await?.into_iter();
        // A user who may not ask gets the limit of a server that has none.
        let memory = reply::text(answers.next().unwrap_or_default()).unwrap_or_default();
        let odd = |fault: Fault| self.commands.error(&what, &fault);
        let written = reply::items(answers.next().unwrap_or_default()).map_err(odd)?;
        let mut limits = HashMap::new();
        for (topic, json) in topics.into_iter().zip(written) {
            let json = reply::text(json).map_err(odd)?;
            let set = topics::limits(topic, &json);
            let kept = self.retention.kept(&set, maxmemory(&memory));
            limits.insert(topic.clone(), Retention { set, kept });
        }
        Ok(limits)
    }
}

/// Of INFO's section on memory; 0 is without a limit.
fn maxmemory(info: &str) -> u64 {
    let found = info.lines().find_map(|line| line.strip_prefix("maxmemory:"));
    found.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn read_turn(answer: Value) -> Result<(bool, BTreeMap<String, u64>), Fault> {
    let mut items = reply::items(answer)?.into_iter();
    let taken = reply::count(items.next().unwrap_or_default())? == 1;
    let mut totals = BTreeMap::new();
    while let (Some(group), Some(total)) = (items.next(), items.next()) {
        totals.insert(group_text(group)?, reply::count(total)?);
    }
    Ok((taken, totals))
}

fn read_step(answer: Value) -> Result<Step, Fault> {
    let mut items = reply::items(answer)?.into_iter();
    let mut next = || reply::count(items.next().unwrap_or_default());
    let (_done, _trimmed, more) = (next()?, next()?, next()? == 1);
    let mut lost = Vec::new();
    while let (Some(group), Some(entries)) = (items.next(), items.next()) {
        lost.push((group_text(group)?, reply::count(entries)?));
    }
    Ok(Step { more, lost })
}

/// Another program's group may be named by any bytes: it is shown as far as they are text.
fn group_text(name: Value) -> Result<String, Fault> {
    let name = reply::bytes(name)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_comes_before_the_options_and_the_cap_before_all() {
        let options = RetentionOptions::default();
        let unset = TopicLimits::default();
        let kept = |limits, maxmemory| options.kept(limits, maxmemory);
        let day = 24 * 60 * 60 * 1000;
        let as_is = Kept { keep_ms: day, keep_bytes: 256 << 20, cap_bytes: 1 << 30 };
        assert_eq!(kept(&unset, 0), as_is);
        let small = kept(&unset, 400);
        assert_eq!((small.keep_bytes, small.cap_bytes), (100, 100), "a quarter of the memory");
        let set = TopicLimits {
            keep: Some(Duration::from_secs(1)),
            keep_bytes: Some(7),
            cap_bytes: Some(9),
        };
        assert_eq!(kept(&set, 400), Kept { keep_ms: 1000, keep_bytes: 7, cap_bytes: 9 });
    }

    #[test]
    fn the_servers_memory_is_found() {
        assert_eq!(maxmemory("used_memory:5\r\nmaxmemory:1048576\r\nx:1\r\n"), 1 << 20);
        assert_eq!(maxmemory("# Memory\r\nmaxmemory:0\r\n"), 0);
        assert_eq!(maxmemory(""), 0);
    }

    #[test]
    fn limits_that_cannot_work_are_refused() {
        let options = |group_kept| RetentionOptions { group_kept, ..RetentionOptions::default() };
        assert!(options(Duration::from_secs(48 * 60 * 60)).check().is_ok());
        assert!(options(Duration::from_secs(47 * 60 * 60)).check().is_err());
        let none = RetentionOptions { trim_every: Duration::ZERO, ..RetentionOptions::default() };
        assert!(none.check().is_err());
        let less = RetentionOptions { cap_bytes: Some(1), ..RetentionOptions::default() };
        assert!(less.check().is_err(), "the cap is below what is kept");
    }
}
