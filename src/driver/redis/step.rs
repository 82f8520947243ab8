//! One call of `settle.lua` in the making.

mod once;
mod park;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::flight::{Stream, Sure};
use super::member::Member;
use super::script::{Call, SETTLE};
use super::wire::{self, Again};
use crate::delivery::{Delivery, Entry, Failure, Outcome, Output, Settlement};

/// Most entries, events and bytes of one call of the script, which nothing interrupts.
pub(super) const ENTRIES_MAX: usize = 100;
const EVENTS_MAX: usize = 1000;
const BYTES_MAX: usize = 1 << 20;

/// The settlements of one entry: their places in the call.
pub(super) struct Part<'a> {
    pub(super) entry: &'a Entry,
    pub(super) places: Places,
}

/// Nearly always there is one: entries end as a whole.
pub(super) enum Places {
    One(usize),
    Many(Vec<usize>),
}

impl Deref for Places {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(places) => places,
        }
    }
}

/// One call of the script in the making; `settle.lua` says what stands where.
pub(super) struct Step {
    keys: Vec<String>,
    head: Vec<Vec<u8>>,
    body: Vec<Vec<u8>>,
    /// Where the body says how sure it is.
    sure_at: Vec<usize>,
    bytes: usize,
    events: usize,
    member: Arc<Member>,
    soonest: Option<Duration>,
    /// The key of the group's marks, where something is handled once. Else it is left out: a user
    /// of the server that handles nothing once needs no right to it.
    handled: Option<String>,
    /// There are dead letters among it.
    dead: bool,
}

/// The same attempt, for another consumer or a later moment.
fn unchanged(delivery: &Delivery) -> Again<'static> {
    Again { attempt: delivery.attempt(), failure: None, suspect: delivery.entry.suspect }
}

/// Keys before those of the output logs.
const FIXED_KEYS: usize = 8;

impl Step {
    pub(super) fn new(member: &Arc<Member>, stream: &Stream) -> Self {
        let member = Arc::clone(member);
        let keys = member.keys(&stream.0);
        let appender = format!("{}/{}/", member.group, stream.0);
        let head = [
            member.group.as_str(),
            &member.consumer,
            wire::BATCH,
            wire::PUBLISHER,
            wire::RETRY,
            wire::DEATH,
            &appender,
            wire::PARKED,
        ];
        Self {
            head: head.into_iter().map(|text| text.as_bytes().to_vec()).collect(),
            keys: vec![
                member.stream_key(stream),
                keys.retry,
                keys.due,
                keys.dead,
                keys.progress,
                keys.running,
                keys.parking,
                keys.parked,
            ],
            handled: None,
            body: Vec::new(),
            sure_at: Vec::new(),
            bytes: 0,
            events: 0,
            member,
            soonest: None,
            dead: false,
        }
    }

    /// Takes entries from the front, one at least; gives how many.
    pub(super) fn fill(
        &mut self,
        parts: &[Part<'_>],
        settlements: &[Settlement],
        ask: impl Fn(&Part<'_>) -> Sure,
    ) -> usize {
        let mut taken = 0;
        for part in parts.iter().take(ENTRIES_MAX) {
            self.add(part, settlements, ask(part));
            taken += 1;
            if self.bytes >= BYTES_MAX || self.events >= EVENTS_MAX {
                break;
            }
        }
        taken
    }

    fn add(&mut self, part: &Part<'_>, settlements: &[Settlement], sure: Sure) {
        let entry = part.entry;
        self.number(&entry.id);
        self.number(&entry.token.0);
        self.sure_at.push(self.body.len());
        self.number(&(sure as u8));
        self.number(&entry.records.len());
        self.number(&part.places.len());
        self.events += part.places.len();
        for place in &*part.places {
            self.item(&settlements[*place]);
        }
    }

    fn item(&mut self, settlement: &Settlement) {
        let delivery = &settlement.delivery;
        self.number(&delivery.index);
        match &settlement.outcome {
            Outcome::Ack { outputs } => {
                self.verb(*b"a", delivery);
                self.outputs(outputs);
            }
            Outcome::AckOnce { outputs, window } => self.once(delivery, outputs, *window),
            Outcome::Retry { after, failure } => {
                let attempt = delivery.attempt().saturating_add(1);
                // Its handler ended without ending the process.
                let again = Again { attempt, failure: Some(failure), suspect: false };
                self.again(settlement, again, *after);
            }
            Outcome::Split { after } => {
                if !after.is_zero() {
                    self.member.yield_retries(*after);
                }
                self.again(settlement, unchanged(delivery), *after);
            }
            Outcome::DeadLetter { failure } => self.dead(settlement, failure),
            Outcome::Park => self.park(settlement),
        }
    }

    fn again(&mut self, settlement: &Settlement, again: Again<'_>, after: Duration) {
        let delivery = &settlement.delivery;
        let origin = delivery.origin();
        if !after.is_zero() {
            self.soonest = Some(self.soonest.map_or(after, |soonest| soonest.min(after)));
        }
        self.arg(*b"n");
        let millis = if after.is_zero() { 0 } else { after.as_millis().max(1) };
        self.number(&millis);
        self.arg(wire::encode_retry(delivery.record(), &origin, again));
    }

    fn dead(&mut self, settlement: &Settlement, failure: &Failure) {
        self.dead = true;
        let delivery = &settlement.delivery;
        let now = self.member.shared.clock.now();
        let (field, value, description) = wire::encode_dead(
            delivery.record(),
            failure,
            delivery.attempt(),
            delivery.origin(),
            &self.member.consumer,
            now,
        );
        self.verb(*b"d", delivery);
        self.arg(field);
        self.arg(value);
        self.arg(description);
    }

    fn outputs(&mut self, outputs: &[Output]) {
        self.number(&outputs.len());
        self.events += outputs.len();
        for output in outputs {
            let log = self.log(self.member.shared.keys.log(&output.partition));
            self.number(&log);
            self.arg(wire::encode_batch([&output.envelope]));
        }
    }

    /// The number of an output's log, from 1.
    fn log(&mut self, key: String) -> usize {
        let logs = &self.keys[FIXED_KEYS..];
        if let Some(at) = logs.iter().position(|known| *known == key) {
            return at + 1;
        }
        self.keys.push(key);
        self.keys.len() - FIXED_KEYS
    }

    fn arg(&mut self, arg: impl Into<Vec<u8>>) {
        let arg = arg.into();
        self.bytes += arg.len();
        self.body.push(arg);
    }

    fn number(&mut self, number: &impl ToString) {
        self.arg(number.to_string());
    }

    /// Whether there are dead letters among it.
    pub(super) fn has_dead(&self) -> bool {
        self.dead
    }

    /// The call, which of its arguments say how sure it is, and the soonest delay in it.
    pub(super) fn finish(mut self, entries: usize) -> (Call, Vec<usize>, Option<Duration>) {
        self.head.push(u8::from(self.handled.is_some()).to_string().into());
        self.keys.splice(FIXED_KEYS..FIXED_KEYS, self.handled);
        let before = self.head.len() + 1;
        self.sure_at.iter_mut().for_each(|at| *at += before);
        let mut call = Call::new(&SETTLE, self.keys);
        for arg in self.head {
            call.arg(arg);
        }
        call.number(&entries);
        for arg in self.body {
            call.arg(arg);
        }
        (call, self.sure_at, self.soonest)
    }
}
