//! An outbox in memory: for tests of programs, and the plainest statement of what a store does.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Depth, End, Lane, Most, OutboxOptions, Row, SetAside, Skip, Store};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::event_id::EventId;
use crate::publisher::{Encoder, PublishOptions};

/// Most rows: an outbox in memory whose relay does not work refuses what comes then.
const ROWS_MAX: usize = 100_000;

/// An outbox in this process' memory. What is added is committed at once. Cloning shares it.
#[derive(Clone)]
pub struct MemoryOutbox(Arc<Shared>);

struct Shared {
    encoder: Encoder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: i64,
    rows: BTreeMap<i64, Kept>,
    ids: HashSet<EventId>,
    lead: Option<(EventId, Instant)>,
}

struct Kept {
    event: Envelope,
    error: Option<String>,
}

impl Default for MemoryOutbox {
    fn default() -> Self {
        let encoder = OutboxOptions::default().encoder();
        Self(Arc::new(Shared { encoder, state: Mutex::default() }))
    }
}

impl MemoryOutbox {
    /// Adds an event; gives its id.
    ///
    /// # Errors
    /// Where it cannot be encoded, a limit is exceeded, or 100,000 rows are there already.
    pub fn publish<E: Event>(&self, event: &E) -> Result<EventId, Error> {
        let envelope = self.0.encoder.encode(event, PublishOptions::default())?;
        self.add(&envelope)?;
        Ok(envelope.id())
    }

    /// Adds an event that is already an envelope.
    ///
    /// # Errors
    /// Where its id is there already, or 100,000 rows are.
    pub fn add(&self, envelope: &Envelope) -> Result<(), Error> {
        let mut state = self.state();
        if state.rows.len() >= ROWS_MAX {
            let text = format!("the outbox in memory has {ROWS_MAX} rows, no more are possible");
            return Err(Error::new(ErrorKind::TooLarge, text).with_help("run its relay"));
        }
        if !state.ids.insert(envelope.id()) {
            let text = format!("event {} is in the outbox already", envelope.id());
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        state.last += 1;
        let number = state.last;
        state.rows.insert(number, Kept { event: envelope.clone(), error: None });
        Ok(())
    }

    /// How full it is.
    pub fn depth(&self) -> Depth {
        let (state, mut depth) = (self.state(), Depth::default());
        let now = self.0.encoder.clock.now();
        for kept in state.rows.values() {
            if kept.error.is_some() {
                depth.set_aside += 1;
                continue;
            }
            depth.waiting += 1;
            depth.oldest = depth.oldest.max(Some(now.since(kept.event.time())));
        }
        depth
    }

    /// The first rows that were set aside, at most `most`.
    pub fn set_aside(&self, most: usize) -> Vec<SetAside> {
        let state = self.state();
        let aside = state.rows.iter().filter_map(|(number, kept)| {
            Some(SetAside {
                number: *number,
                id: kept.event.id().to_string(),
                event_type: kept.event.event_type().to_string(),
                key: kept.event.key().map(str::to_owned),
                error: kept.error.clone()?,
            })
        });
        aside.take(most).collect()
    }

    /// Lets rows wait again that were set aside: these, or all where none is named. Gives how
    /// many. Their events are stored behind those of their keys that went on meanwhile.
    pub fn put_back(&self, numbers: &[i64]) -> u64 {
        let mut back = 0;
        for (number, kept) in &mut self.state().rows {
            if numbers.is_empty() || numbers.contains(number) {
                back += u64::from(kept.error.take().is_some());
            }
        }
        back
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryOutbox {
    async fn lead(&self, relay: EventId, lease: Duration) -> Result<bool, Error> {
        let (mut state, now) = (self.state(), Instant::now());
        let free = state.lead.is_none_or(|(own, until)| own == relay || until <= now);
        if free {
            state.lead = Some((relay, now + lease));
        }
        Ok(free)
    }

    async fn pending(&self, most: Most, skip: &Skip) -> Result<Vec<Row>, Error> {
        let (state, skipped) = (self.state(), Skipped::new(skip));
        let mut rows = Vec::new();
        let mut bytes = 0;
        for (number, kept) in &state.rows {
            if kept.error.is_some() || skipped.has(*number, &kept.event) {
                continue;
            }
            bytes += kept.event.payload().len();
            if !rows.is_empty() && (bytes > most.bytes || rows.len() >= most.events) {
                break;
            }
            rows.push(Row { number: *number, event: Ok(kept.event.clone()) });
        }
        Ok(rows)
    }

    async fn end(&self, ends: &[(i64, End)]) -> Result<(), Error> {
        let mut state = self.state();
        for (number, end) in ends {
            match end {
                End::Sent => {
                    if let Some(kept) = state.rows.remove(number) {
                        state.ids.remove(&kept.event.id());
                    }
                }
                End::SetAside(error) => {
                    if let Some(kept) = state.rows.get_mut(number) {
                        kept.error = Some(error.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

struct Skipped<'a> {
    skip: &'a Skip,
    lanes: HashSet<Lane>,
}

impl<'a> Skipped<'a> {
    fn new(skip: &'a Skip) -> Self {
        let keys = skip.keys.iter().map(|(topic, key)| Lane::Key(topic.clone(), key.clone()));
        let lanes = keys.chain(skip.rows.iter().map(|row| Lane::Row(*row))).collect();
        Self { skip, lanes }
    }

    fn has(&self, number: i64, event: &Envelope) -> bool {
        let lane = Lane::new(number, event.event_type(), event.key());
        self.skip.topics.contains(&event.event_type().topic()) || self.lanes.contains(&lane)
    }
}

impl fmt::Debug for MemoryOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryOutbox").field(&self.depth()).finish()
    }
}
