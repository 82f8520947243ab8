//! A driver that fails by seed: wraps any other and does to its callers what a store, a network
//! and an unlucky process do. For simulations and for the tests of what uses a driver.
//!
//! Every fault is within the contract of [`driver`](crate::driver): what a caller that holds to it
//! has to stand. All chance comes from one generator, so on a current-thread runtime with paused
//! time the same seed makes the same faults.
//!
//! ```
//! use rumormill::driver::fault::{Fault, FaultDriver, FaultOptions};
//! use rumormill::driver::memory::{MemoryDriver, MemoryOptions};
//! use rumormill::driver::Publish;
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let store = MemoryDriver::new(MemoryOptions::default());
//! let options = FaultOptions::quiet(7).chance(Fault::DeclareFailed, 1.0);
//! let driver = FaultDriver::new(store, options);
//! assert!(driver.declare(&"orders".parse().unwrap()).await.is_err());
//! assert_eq!(driver.injected(), [(Fault::DeclareFailed, 1)].into());
//! # }
//! ```

mod chance;
mod hands;
mod options;
mod settler;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;

pub use self::options::{Fault, FaultOptions, Observer};

use self::chance::Chance;
use self::hands::Hands;
use self::settler::FaultSettler;
use self::source::{FaultSource, Slot};
use super::admin::Admin;
use super::monitor::Monitor;
use super::{
    Append, Appended, Driver, Feed, Follow, Maintained, Publish, Subscribe, Subscription, Tools,
    TopicShape,
};
use crate::error::{Error, ErrorKind, PublishError};
use crate::event_type::Topic;

/// A client of another driver's store that fails by seed; see [the module](self).
///
/// One is one process: [`crash`](FaultDriver::crash) ends all that goes through it. What it does
/// not make fail it passes on: the powers of tools, and reading without a group.
pub struct FaultDriver {
    inner: Arc<dyn Driver>,
    chance: Arc<Chance>,
    /// Appends reach the store in the order of their first poll, however long each is delayed.
    line: AsyncMutex<()>,
    /// What a crash takes away from sources that are not being asked.
    slots: Mutex<Vec<Weak<Slot>>>,
}

impl FaultDriver {
    /// Wraps a client.
    pub fn new(inner: Arc<dyn Driver>, options: FaultOptions) -> Arc<Self> {
        let chance = Arc::new(Chance::new(options));
        Arc::new(Self { inner, chance, line: AsyncMutex::default(), slots: Mutex::default() })
    }

    /// From now on nothing fails, where `calm`; else again by chance. What is under way keeps its
    /// fate.
    pub fn set_calm(&self, calm: bool) {
        self.chance.set_calm(calm);
    }

    /// Does to the store what `kill -9` of this process does: no call that is under way or comes
    /// later reaches it or has an answer, and the sources are dropped. What a call had done, it
    /// has done. The tasks that used the driver wait for ever.
    pub fn crash(&self) {
        self.chance.crash();
        for slot in self.slots().drain(..).filter_map(|slot| slot.upgrade()) {
            slot.empty();
        }
    }

    /// Whether it has crashed.
    pub fn is_crashed(&self) -> bool {
        self.chance.is_crashed()
    }

    /// How often each fault was done.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        self.chance.injected()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self, feed: Feed, subscription: Subscription) -> Feed {
        let Feed { source, settler, routes, consumer } = feed;
        let hands = Arc::new(Hands::new(settler));
        let slot = Arc::new(Slot::new(source));
        self.slots().retain(|slot| slot.strong_count() > 0);
        self.slots().push(Arc::downgrade(&slot));
        let chance = || Arc::clone(&self.chance);
        let source = FaultSource::new(
            slot,
            Arc::clone(&self.inner),
            subscription,
            chance(),
            Arc::clone(&hands),
            Arc::clone(&routes),
        );
        let settler = FaultSettler::new(chance(), hands);
        Feed { source: Box::new(source), settler: Arc::new(settler), routes, consumer }
    }
}

impl fmt::Debug for FaultDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDriver").field("injected", &self.injected()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Driver for FaultDriver {
    fn tools(&self) -> Option<&dyn Tools> {
        self.inner.tools()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }

    fn parks_keys(&self) -> bool {
        self.inner.parks_keys()
    }

    fn marks_handled(&self) -> bool {
        self.inner.marks_handled()
    }

    fn broadcasts(&self) -> Option<&dyn Follow> {
        self.inner.broadcasts()
    }

    fn monitor(&self) -> Option<&Arc<Monitor>> {
        self.inner.monitor()
    }

    async fn maintain(&self) -> Result<Maintained, Error> {
        self.chance.alive(self.inner.maintain()).await
    }

    async fn close(&self) {
        self.chance.alive(self.inner.close()).await;
    }
}

#[async_trait]
impl Publish for FaultDriver {
    async fn declare(&self, topic: &Topic) -> Result<TopicShape, Error> {
        let declare = async {
            self.chance.before().await;
            if self.chance.strikes(Fault::DeclareFailed) {
                return Err(failed("declare"));
            }
            let shape = self.inner.declare(topic).await;
            self.chance.after().await;
            shape
        };
        self.chance.alive(declare).await
    }

    async fn append(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        self.chance.alive(self.append_in_line(appends)).await
    }
}

impl FaultDriver {
    async fn append_in_line(&self, appends: Vec<Append>) -> Vec<Result<Appended, PublishError>> {
        const FATES: [Fault; 3] =
            [Fault::AppendRefused, Fault::AppendUnknown, Fault::AppendAnswerLost];
        let in_line = self.line.lock().await;
        self.chance.before().await;
        let fates: Vec<_> = appends.iter().map(|_| self.chance.one_of(&FATES)).collect();
        let reaches = |fate: &Option<Fault>| fate.is_none_or(|own| own == Fault::AppendAnswerLost);
        let kept = appends.into_iter().zip(&fates).filter(|(_, fate)| reaches(fate));
        let kept: Vec<_> = kept.map(|(append, _)| append).collect();
        let stored = if kept.is_empty() { Vec::new() } else { self.inner.append(kept).await };
        drop(in_line);
        self.chance.after().await;
        let mut stored = stored.into_iter();
        let answer = |fate: Option<Fault>| {
            let truth = if reaches(&fate) { stored.next() } else { None };
            match fate {
                Some(Fault::AppendRefused) => Err(PublishError::NotStored(failed("append"))),
                Some(_) => Err(PublishError::Unknown(failed("append"))),
                None => truth.expect("a driver answers every append"),
            }
        };
        fates.into_iter().map(answer).collect()
    }
}

#[async_trait]
impl Subscribe for FaultDriver {
    async fn subscribe(&self, subscription: Subscription) -> Result<Feed, Error> {
        let subscribe = async {
            self.chance.before().await;
            if self.chance.strikes(Fault::SubscribeFailed) {
                return Err(failed("subscribe"));
            }
            let feed = self.inner.subscribe(subscription.clone()).await?;
            self.chance.after().await;
            if self.chance.strikes(Fault::SubscribeAnswerLost) {
                return Err(failed("subscribe"));
            }
            Ok(self.feed(feed, subscription))
        };
        self.chance.alive(subscribe).await
    }
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{what}: the fault driver makes it fail"))
}
