//! The loop: break, hold, mend, see both halves work again, and compare the log with what the
//! publisher was told and the group was given.

use std::collections::HashMap;
use std::time::Duration;

use rumormill::EventId;
use rumormill::delivery::{EntryId, Partition};
use rumormill::driver::Driver;
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use tokio::time::Instant;

use super::ledger::{Ledger, Outcome, Recovery, Story};
use super::load::Load;
use super::proxy::Proxy;
use super::table::{Promise, Row};
use super::{PATIENCE, comes, hold, rounds};
use crate::server::Server;

/// A fault, and how it is judged.
pub struct Case {
    /// Its place in the table.
    pub place: u32,
    pub name: &'static str,
    /// The fault takes what is in the log, or the group's memory of it: only what is
    /// acknowledged after it is healed can be asked for.
    pub destroys: bool,
    pub promise: Promise,
}

impl Case {
    pub const fn new(place: u32, name: &'static str) -> Self {
        Self { place, name, destroys: false, promise: Promise::AFTER_HEAL }
    }

    pub const fn destroying(place: u32, name: &'static str) -> Self {
        Self { destroys: true, ..Self::new(place, name) }
    }
}

/// Where a fault happens.
pub struct Stage {
    pub server: Server,
    pub proxy: Proxy,
}

impl Stage {
    pub async fn new(server: Server) -> Self {
        let proxy = Proxy::start(server.socket()).await;
        Self { server, proxy }
    }

    /// Something that takes the server's time and so this thread's.
    pub fn block<T>(&mut self, act: impl FnOnce(&mut Server) -> T) -> T {
        tokio::task::block_in_place(|| act(&mut self.server))
    }

    /// One command of an operator's.
    pub fn say(&mut self, command: &str) {
        self.block(|server| server.say(command));
    }
}

/// Injects a fault as often as asked, under load from `url`; `fault` injects, holds and heals, and
/// gives the moment from which recovery counts.
pub async fn drive(
    case: Case,
    mut stage: Stage,
    url: &str,
    mut fault: impl AsyncFnMut(&mut Stage) -> Instant,
) {
    let load = Load::start(url).await;
    let mut audit = Audit::new(&case);
    load.ledger.mark(Instant::now());
    assert!(comes(PATIENCE, || load.ledger.recovery().is_some()).await, "nothing works at first");
    for _ in 0..rounds() {
        // A round begins anywhere between two bursts.
        hold(Duration::from_millis(fastrand::u64(200..400))).await;
        let healed = fault(&mut stage).await;
        load.ledger.mark(healed);
        comes(PATIENCE, || load.ledger.recovery().is_some()).await;
        audit.recoveries.push(load.ledger.recovery());
        audit.settle_up(&load.ledger, healed).await;
        audit.read_log(&stage.server).await;
        if audit.recoveries.last().is_none_or(Option::is_none) {
            break;
        }
    }
    load.quiet().await;
    audit.settle_up(&load.ledger, audit.healed).await;
    audit.read_log(&stage.server).await;
    let row = audit.judge(&load.ledger);
    row.write();
    load.end().await;
    row.check();
}

/// What is found out over the rounds.
struct Audit<'a> {
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
    read: EntryId,
}

impl<'a> Audit<'a> {
    fn new(case: &'a Case) -> Self {
        Self {
            case,
            recoveries: Vec::new(),
            healed: Instant::now(),
            undelivered: HashMap::new(),
            expected: HashMap::new(),
            log: HashMap::new(),
            read: EntryId::ZERO,
        }
    }

    /// Waits until the group has what is acknowledged by now.
    async fn settle_up(&mut self, ledger: &Ledger, healed: Instant) {
        let now = Instant::now();
        if self.case.destroys || self.recoveries.len() == 1 {
            self.healed = healed;
        }
        let since = if self.case.destroys { Some(self.healed) } else { None };
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
    async fn read_log(&mut self, server: &Server) {
        let driver = RedisDriver::connect(RedisOptions::new(server.url())).await;
        let driver = driver.expect("the server is back");
        let tools = driver.tools().expect("Redis has them");
        let partition: Partition = "faults:0".parse().expect("valid");
        loop {
            let after = [(partition.clone(), self.read)];
            let entries = tools.read(&after, 1_000, Duration::ZERO).await.expect("a log");
            let Some(last) = entries.last() else { break };
            self.read = last.id;
            for event in entries.iter().flat_map(|entry| &entry.records) {
                let event = event.as_ref().expect("nobody writes anything else");
                *self.log.entry(event.id()).or_default() += 1;
            }
        }
        driver.close().await;
    }

    fn times(&self, id: &EventId) -> usize {
        self.log.get(id).copied().unwrap_or(0)
    }

    fn judge(&self, ledger: &Ledger) -> Row {
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
        }
    }
}
