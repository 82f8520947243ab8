//! A bus in use, what is done to it, and what the doctor says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rumormill::codec::ContentType;
use rumormill::delivery::{Cause, Entry, EntryId, Failure, Outcome};
use rumormill::driver::admin::{Admin, Checked, Diagnosis, Finding};
use rumormill::driver::redis::{RedisDriver, RedisOptions};
use rumormill::driver::{
    Append, Driver, Feed, GroupName, LeaseTimes, Publish, Subscribe, Subscription,
};
use rumormill::{Envelope, EventType, Start, Timestamp};
use tokio::time::timeout;

use crate::server::{Reply, Server};

/// Longer than anything here takes; a test that waits for it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const MINUTE: u64 = 60 * 1000;
pub(crate) const HOUR: u64 = 60 * MINUTE;

/// The first check of what lies on the bus; those of the server come before it.
const FIRST: &str = "look.cut";

/// A bus that was used: topic `t` has two partitions, and group `g` has handled what was
/// published. Who looks at it has nothing to do with it otherwise.
pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) driver: Arc<RedisDriver>,
    pub(crate) doctor: Arc<RedisDriver>,
}

pub(crate) fn options(server: &Server) -> RedisOptions {
    RedisOptions {
        block: Duration::from_millis(200),
        checkpoint_every: Duration::from_millis(100),
        ..RedisOptions::new(server.url())
    }
}

pub(crate) fn event(event_type: &str, payload: &str) -> Envelope {
    let event_type = EventType::new(event_type.to_owned()).expect("valid");
    let now = Timestamp::from_millis(1_700_000_000_000);
    Envelope::builder(event_type, ContentType::JSON, payload.to_owned(), now)
        .key(Some("k"))
        .build()
        .expect("within limits")
}

pub(crate) fn dead_letter() -> Outcome {
    Outcome::DeadLetter { failure: Failure::new(Cause::Rejected, "never") }
}

pub(crate) fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after, failure: Failure::new(Cause::Failed, "not now") }
}

fn wish(park_keys: bool) -> Subscription {
    Subscription {
        group: GroupName::new("g").expect("valid"),
        routes: vec![("t.>".parse().expect("valid"), Some(1))],
        start: Start::Earliest,
        // Beats often, and leaves what others hold alone.
        lease: LeaseTimes {
            lease: Duration::from_secs(30),
            renew: Duration::from_millis(200),
            sweep: Duration::from_secs(600),
        },
        park_keys,
    }
}

impl Bed {
    /// Topic `t` and nothing else.
    pub(crate) async fn new() -> Self {
        let server = Server::start();
        server.say("HSET rm:topics t {\"partitions\":2}");
        let driver = RedisDriver::connect(options(&server)).await.expect("connects");
        let doctor = RedisDriver::connect(options(&server)).await.expect("connects");
        Self { server, driver, doctor }
    }

    /// The group works.
    pub(crate) async fn live() -> (Self, Feed) {
        let bed = Self::new().await;
        let mut feed = bed.subscribe(false).await;
        for place in ["t:0", "t:1"] {
            bed.append(place, &["1", "2"]).await;
            bed.end(&mut feed, &Outcome::ack()).await;
        }
        bed.settled().await;
        (bed, feed)
    }

    /// The group worked, and ended in order.
    pub(crate) async fn left() -> Self {
        let (bed, feed) = Self::live().await;
        bed.leave(feed).await;
        bed
    }

    pub(crate) async fn subscribe(&self, park_keys: bool) -> Feed {
        self.driver.subscribe(wish(park_keys)).await.expect("subscribes")
    }

    /// Ends whatever acts on the bus.
    pub(crate) async fn leave(&self, feed: Feed) {
        drop(feed);
        self.driver.close().await;
    }

    pub(crate) async fn append(&self, place: &str, payloads: &[&str]) {
        self.append_later(place, payloads, Duration::ZERO).await;
    }

    pub(crate) async fn append_later(&self, place: &str, payloads: &[&str], delay: Duration) {
        let envelopes = payloads.iter().map(|payload| event("t.x", payload)).collect();
        let partition = place.parse().expect("valid");
        let one = Append { partition, envelopes, delay, deduplicate: false };
        self.driver.append(vec![one]).await.pop().expect("an answer").expect("stored");
    }

    /// Takes one entry.
    pub(crate) async fn take(&self, feed: &mut Feed) -> Arc<Entry> {
        let entries = timeout(PATIENCE, feed.source.fetch(1)).await.expect("in time");
        Arc::new(entries.expect("no error").remove(0))
    }

    /// Takes one entry and ends all of its events so.
    pub(crate) async fn end(&self, feed: &mut Feed, outcome: &Outcome) {
        let entry = self.take(feed).await;
        let settlements = entry.deliveries().map(|delivery| delivery.settle(outcome.clone()));
        for answer in feed.settler.settle(settlements.collect()).await {
            answer.expect("settled");
        }
    }

    /// Waits until nothing is pending, and the checkpoints say so.
    pub(crate) async fn settled(&self) {
        for partition in [0, 1] {
            let log = format!("rm:{{t:{partition}}}:log");
            let noted = format!("HGET rm:{{t:{partition}}}:checkpoint:g safe");
            let is_so = || {
                let pending = self.server.say(&format!("XPENDING {log} g")).list()[0].int();
                let last = match &self.server.say(&format!("XREVRANGE {log} + - COUNT 1")) {
                    Reply::List(rows) if rows.is_empty() => return pending == 0,
                    rows => rows.list()[0].list()[0].clone(),
                };
                pending == 0 && self.server.say(&noted) == last
            };
            eventually("everything is settled and noted", is_so).await;
        }
    }

    /// Milliseconds of the server's clock, so long ago.
    pub(crate) fn ago(&self, millis: u64) -> u64 {
        let now = self.server.say("TIME");
        let seconds: u64 = now.list()[0].text().parse().expect("seconds");
        seconds * 1000 - millis
    }

    /// Another consumer of the group seems to live.
    pub(crate) fn haunt(&self) {
        let now = self.ago(0).to_string();
        self.server.ask(&["ZADD", "rm:consumers", &now, "g ghost"]);
    }

    /// That consumer reads a partition; gives the ids of what it got.
    pub(crate) fn ghost_reads(&self, place: &str) -> Vec<EntryId> {
        self.haunt();
        let read = format!("XREADGROUP GROUP g ghost STREAMS rm:{{{place}}}:log >");
        let streams = self.server.say(&read);
        let rows = streams.list()[0].list()[1].list().to_vec();
        let id = |row: &Reply| row.list()[0].text().parse().expect("an id");
        rows.iter().map(id).collect()
    }

    /// The group has settled all of a partition, and that consumer is no more.
    pub(crate) fn absorb(&self, place: &str) {
        self.ghost_reads(place);
        self.absorb_pending(place);
    }

    /// That consumer settles what it was handed, and ends.
    pub(crate) fn absorb_pending(&self, place: &str) {
        let rows = self.server.say(&format!("XPENDING rm:{{{place}}}:log g - + 100"));
        for row in rows.list() {
            let id = row.list()[0].text();
            self.server.say(&format!("XACK rm:{{{place}}}:log g {id}"));
        }
        self.server.say(&format!("XGROUP DELCONSUMER rm:{{{place}}}:log g ghost"));
        self.server.ask(&["ZREM", "rm:consumers", "g ghost"]);
    }

    pub(crate) async fn diagnose(&self) -> Diagnosis {
        diagnose(&self.doctor).await
    }

    /// Waits until this check, and no other, finds something; gives the worst that it finds.
    pub(crate) async fn only(&self, id: &str) -> Finding {
        self.only_beside(id, &[]).await
    }

    /// The same, beside checks that the fault implies.
    pub(crate) async fn only_beside(&self, id: &str, others: &[&str]) -> Finding {
        let expected: BTreeSet<&str> = others.iter().copied().chain([id]).collect();
        let mut last = String::new();
        let wait = async {
            loop {
                let diagnosis = self.diagnose().await;
                let found: BTreeSet<&str> = of_bus(&diagnosis).map(|(id, _)| id).collect();
                if found == expected {
                    let mut own = of_bus(&diagnosis).filter(|(own, _)| *own == id);
                    return own.next().expect("it is among them").1.clone();
                }
                last = told(&diagnosis);
                // waits: for the one finding that is expected, up to the caller's patience
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(PATIENCE, wait).await {
            Ok(finding) => finding,
            Err(_) => panic!("{expected:?} was to be found, and was:\n{last}"),
        }
    }

    /// Waits until nothing at all is found.
    pub(crate) async fn well(&self) {
        let mut last = String::new();
        let wait = async {
            loop {
                let diagnosis = self.diagnose().await;
                if of_bus(&diagnosis).next().is_none() {
                    return;
                }
                last = told(&diagnosis);
                // waits: until nothing is found, with a deadline
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let done = timeout(PATIENCE, wait).await;
        assert!(done.is_ok(), "nothing was to be found, and was:\n{last}");
    }

    /// Does what a finding says to do on the server.
    pub(crate) fn mend(&self, finding: &Finding) {
        let at = finding.mend.find("redis-cli ").expect("a command");
        for command in finding.mend[at..].split("; redis-cli ") {
            let words = words(command.trim_start_matches("redis-cli "));
            self.server.ask(&words);
        }
    }
}

pub(crate) async fn diagnose(doctor: &RedisDriver) -> Diagnosis {
    let admin: &dyn Admin = doctor.admin().expect("it has the powers");
    admin.diagnose().await.expect("a diagnosis")
}

/// The checks of what lies on the bus.
pub(crate) fn checks(diagnosis: &Diagnosis) -> impl Iterator<Item = &Checked> {
    diagnosis.checks.iter().skip_while(|checked| checked.check.id != FIRST)
}

/// What they found.
pub(crate) fn of_bus(diagnosis: &Diagnosis) -> impl Iterator<Item = (&'static str, &Finding)> {
    checks(diagnosis).flat_map(|checked| {
        checked.verdict.findings().iter().map(|finding| (checked.check.id, finding))
    })
}

pub(crate) fn told(diagnosis: &Diagnosis) -> String {
    of_bus(diagnosis).map(|(id, finding)| format!("{id}: {finding:?}\n")).collect()
}

pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            // waits: for what the caller says, up to its patience
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// The words of a command, as a shell reads them.
pub(crate) fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => (quoted, any) = (!quoted, true),
            '\\' if !quoted => word.extend(letters.next()),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            letter => word.push(letter),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}
