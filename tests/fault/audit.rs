//! Whether the log and the group's deliveries agree with what the publisher was told.

use std::collections::HashMap;
use std::time::Duration;

use rumormill::EventId;
use rumormill::delivery::{Entry, EntryId, Partition};
use rumormill::driver::Driver;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use tokio::time::Instant;

use super::drive::Case;
use super::ledger::{Ledger, Outcome, Recovery, Story};
use super::load::{KEYS, Numbered, topic};
use super::table::Row;
use super::{PATIENCE, comes};
use crate::server::Server;

fn partition(index: u32) -> Partition {
    Partition { topic: topic(), index }
}

/// What is found out over the rounds.
pub struct Audit<'a> {
    case: &'a Case,
    recoveries: Vec<Option<Recovery>>,
    /// The last heal.
    healed: Instant,
    /// Acknowledged, and not given to the group.
    undelivered: HashMap<EventId, Story>,
    /// Acknowledged, and to be in the log.
    expected: HashMap<EventId, Story>,
    /// How often each event stands in the log.
    log: HashMap<EventId, usize>,
    /// The events of each key, as they stand in the log first.
    order: HashMap<u64, Vec<EventId>>,
    /// What was read last, in each partition that there may be.
    read: Vec<(Partition, EntryId)>,
}

/// More than any load has.
const PARTITIONS: u32 = 4;

impl<'a> Audit<'a> {
    pub fn new(case: &'a Case) -> Self {
        Self {
            case,
            recoveries: Vec::new(),
            healed: Instant::now(),
            undelivered: HashMap::new(),
            expected: HashMap::new(),
            log: HashMap::new(),
            order: HashMap::new(),
            read: (0..PARTITIONS).map(partition).map(|own| (own, EntryId::ZERO)).collect(),
        }
    }

    /// Notes how a round went.
    pub fn note(&mut self, recovery: Option<Recovery>, healed: Instant) {
        self.recoveries.push(recovery);
        self.healed = healed;
    }

    /// Waits until the group has what is acknowledged by now.
    pub async fn settle_up(&mut self, ledger: &Ledger) {
        let now = Instant::now();
        let since = Some(self.healed).filter(|_| self.case.destroys);
        let is_due = |story: &Story| {
            since.is_none_or(|since| story.begun >= since)
                && story.stored().is_some_and(|stored| stored <= now)
        };
        let missing = |story: &Story| is_due(story) && story.delivered.is_none();
        comes(PATIENCE, || ledger.count(missing) == 0).await;
        self.undelivered.extend(ledger.find(missing));
        self.expected.extend(ledger.find(is_due));
    }

    /// Reads what was added to the log.
    pub async fn read_log(&mut self, server: &Server) {
        let driver = RedisDriver::connect(RedisOptions::new(server.url())).await;
        let driver = driver.expect("the server is back");
        let tools = driver.tools().expect("Redis has them");
        for at in 0..self.read.len() {
            loop {
                let entries = tools.read(&self.read[at..=at], 1_000, Duration::ZERO).await;
                let entries = entries.expect("a log");
                let Some(last) = entries.last() else { break };
                self.read[at].1 = last.id;
                self.count(&entries);
            }
        }
        driver.close().await;
    }

    fn count(&mut self, entries: &[Entry]) {
        for event in entries.iter().flat_map(|entry| &*entry.records) {
            let event = event.as_ref().expect("nobody writes anything else");
            let times = self.log.entry(event.id()).or_default();
            *times += 1;
            if *times == 1 {
                let Numbered { number, .. } = event.event().expect("an event of the load");
                self.order.entry(number % KEYS).or_default().push(event.id());
            }
        }
    }

    fn times(&self, id: &EventId) -> usize {
        self.log.get(id).copied().unwrap_or(0)
    }

    /// Acknowledged events that stand behind a later one of their key.
    fn overtaken(&self, ledger: &Ledger) -> Vec<(EventId, Story)> {
        let stored: HashMap<EventId, Story> =
            ledger.find(Story::is_acknowledged).into_iter().collect();
        let mut overtaken = Vec::new();
        for ids in self.order.values() {
            let mut last = 0;
            for (id, story) in ids.iter().filter_map(|id| Some((*id, *stored.get(id)?))) {
                if story.number < last {
                    overtaken.push((id, story));
                }
                last = last.max(story.number);
            }
        }
        overtaken
    }

    pub fn judge(&self, ledger: &Ledger) -> Row {
        let stood = |outcome: Outcome, times: fn(usize) -> bool| {
            let found = ledger.find(|story| story.outcome() == Some(outcome));
            found.into_iter().filter(|(id, _)| times(self.times(id))).collect::<Vec<_>>()
        };
        let missing = self.expected.iter().filter(|(id, _)| self.times(id) == 0);
        let missing = missing.map(|(id, story)| (*id, *story));
        let mut lost: HashMap<EventId, Story> = self.undelivered.clone();
        lost.extend(missing);
        let count = |outcome| ledger.count(|story| story.outcome() == Some(outcome));
        Row {
            place: self.case.place,
            name: self.case.name,
            promise: self.case.promise,
            recoveries: self.recoveries.clone(),
            acknowledged: count(Outcome::Stored),
            refused: count(Outcome::NotStored),
            unknown: count(Outcome::Unknown),
            lost: lost.into_iter().collect(),
            refused_and_stored: stood(Outcome::NotStored, |times| times > 0),
            twice: [Outcome::Stored, Outcome::Unknown]
                .into_iter()
                .flat_map(|outcome| stood(outcome, |times| times > 1))
                .collect(),
            overtaken: self.overtaken(ledger),
        }
    }
}
