//! Deliveries that fail to come, come late, or go to another consumer under the first one's hands.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, sleep_until};

use super::chance::Chance;
use super::hands::Hands;
use super::{Fault, failed};
use crate::delivery::Entry;
use crate::driver::{Driver, Feed, GroupRoutes, Source, Subscription};
use crate::error::Error;

/// How long a consumer that cannot come back waits until it tries again.
const COMEBACK_PAUSE: Duration = Duration::from_millis(100);

/// Where the wrapped source is while nobody asks it, so that a crash finds it.
pub(super) struct Slot(Mutex<Content>);

struct Content {
    source: Option<Box<dyn Source>>,
    /// It crashed: what is put back is dropped.
    dead: bool,
}

impl Slot {
    pub(super) fn new(source: Box<dyn Source>) -> Self {
        Self(Mutex::new(Content { source: Some(source), dead: false }))
    }

    /// The process died.
    pub(super) fn empty(&self) {
        let mut content = self.content();
        content.dead = true;
        let source = content.source.take();
        drop(content);
        drop(source);
    }

    fn take(&self) -> Held<'_> {
        Held { slot: self, source: self.content().source.take() }
    }

    fn put(&self, source: Option<Box<dyn Source>>) {
        let mut content = self.content();
        if !content.dead {
            content.source = source;
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wrapped source while it is asked; a call that is dropped puts it back.
struct Held<'a> {
    slot: &'a Slot,
    source: Option<Box<dyn Source>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.slot.put(self.source.take());
    }
}

pub(super) struct FaultSource {
    slot: Arc<Slot>,
    inner: Arc<dyn Driver>,
    subscription: Subscription,
    chance: Arc<Chance>,
    hands: Arc<Hands>,
    /// What the worker knows of the group's routes, and what the present source tells of them.
    routes: (Arc<GroupRoutes>, Arc<GroupRoutes>),
    /// Read, and not to be given before its moment.
    late: VecDeque<(Instant, Vec<Entry>)>,
    /// When it is looked at for a lapse.
    look: Option<Instant>,
    /// It lapsed, until then.
    lapsed: Option<Instant>,
    closed: bool,
}

/// What came of asking the wrapped source.
enum Asked {
    Entries(Vec<Entry>),
    LookForLapse,
    Gone,
}

impl FaultSource {
    pub(super) fn new(
        slot: Arc<Slot>,
        inner: Arc<dyn Driver>,
        subscription: Subscription,
        chance: Arc<Chance>,
        hands: Arc<Hands>,
        routes: Arc<GroupRoutes>,
    ) -> Self {
        let look = chance.lapse_look();
        let routes = (Arc::clone(&routes), routes);
        let late = VecDeque::new();
        Self {
            slot,
            inner,
            subscription,
            chance,
            hands,
            routes,
            late,
            look,
            lapsed: None,
            closed: false,
        }
    }

    async fn next(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        if self.chance.strikes(Fault::FetchFailed) {
            return Err(failed("fetch"));
        }
        loop {
            if let Some((at, _)) = self.late.front() {
                sleep_until(*at).await;
                return Ok(self.late.pop_front().map_or_else(Vec::new, |(_, entries)| entries));
            }
            self.come_back().await;
            match self.ask(budget).await? {
                Asked::Gone => return Ok(Vec::new()),
                Asked::LookForLapse => self.lapse_by_chance(),
                Asked::Entries(entries) => {
                    self.hands.give(&entries);
                    match self.chance.late().filter(|_| !entries.is_empty()) {
                        Some(at) => self.late.push_back((at, entries)),
                        None => return Ok(entries),
                    }
                }
            }
        }
    }

    async fn ask(&self, budget: usize) -> Result<Asked, Error> {
        let mut held = self.slot.take();
        let Some(source) = &mut held.source else { return Ok(Asked::Gone) };
        tokio::select! {
            biased;
            () = until(self.look) => Ok(Asked::LookForLapse),
            entries = source.fetch(budget) => entries.map(Asked::Entries),
        }
    }

    fn lapse_by_chance(&mut self) {
        self.look = self.chance.lapse_look();
        let noticed = self.chance.strikes(Fault::LapseNoticed);
        if noticed || self.chance.strikes(Fault::Lapse) {
            self.slot.put(None);
            self.lapsed = Some(self.chance.comeback());
        }
        if noticed {
            self.hands.cancel_all();
        }
    }

    /// Who lapsed comes back as another consumer, unless it was to end.
    async fn come_back(&mut self) {
        while let Some(until) = self.lapsed.filter(|_| !self.closed) {
            sleep_until(until).await;
            match self.inner.subscribe(self.subscription.clone()).await {
                Ok(Feed { source, settler, routes, consumer: _ }) => {
                    self.hands.come_back(settler);
                    self.slot.put(Some(source));
                    self.routes.1 = routes;
                    self.lapsed = None;
                }
                Err(_) => sleep(COMEBACK_PAUSE).await,
            }
        }
        let (known, told) = &self.routes;
        if !Arc::ptr_eq(known, told) {
            known.copy(told);
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[async_trait]
impl Source for FaultSource {
    async fn fetch(&mut self, budget: usize) -> Result<Vec<Entry>, Error> {
        let chance = Arc::clone(&self.chance);
        chance.alive(self.next(budget)).await
    }

    async fn close(&mut self) {
        self.closed = true;
        let chance = Arc::clone(&self.chance);
        let close = async {
            if let Some(source) = &mut self.slot.take().source {
                source.close().await;
            }
        };
        chance.alive(close).await;
    }
}
