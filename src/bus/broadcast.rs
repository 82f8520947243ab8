//! Broadcasts: every instance gets every event, from now on, and the store keeps nothing about it.

use std::future::Future;

use super::{Bus, Running};
use crate::driver::{Feed, GroupName, Subscription};
use crate::envelope::Envelope;
use crate::error::{Error, ErrorKind, HandlerError};
use crate::event::Event;
use crate::pattern::Pattern;
use crate::service::{Context, Routes};
use crate::service::{Distribution, ServiceOptions};
use crate::worker::{self, BroadcastCounts, Progress};

impl Bus {
    /// Handles events of one type in this instance and in every other that does the same, from
    /// now on: for caches and settings that each instance holds in memory. See
    /// [`Distribution::Broadcast`] for what it promises; [`ServiceOptions::broadcast`] are its
    /// options.
    ///
    /// Returns when the place is fixed: what is published from then on reaches this instance.
    /// [`Bus::unsubscribe`] ends it by its name, which no group of this bus may have.
    ///
    /// ```
    /// use rumormill::{Bus, Context, Event};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize, Event)]
    /// #[event(type = "settings.changed", key = name)]
    /// struct Changed {
    ///     name: String,
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::connect("memory:").await?;
    /// bus.broadcast("settings", |changed: Changed, _: Context| async move {
    ///     println!("{} changed", changed.name);
    ///     Ok(())
    /// })
    /// .await?;
    /// bus.publish(&Changed { name: "colour".into() }).await?;
    /// bus.settled().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Where the name is not valid or taken on this bus, the store refuses, or the driver has no
    /// broadcasts.
    pub async fn broadcast<E, F, Fut>(&self, name: &str, handler: F) -> Result<(), Error>
    where
        E: Event,
        F: Fn(E, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let routes = |routes: Routes<()>| routes.on_fn(handler);
        self.subscribe_routes(name, ServiceOptions::broadcast(), routes).await
    }

    /// [`broadcast`](Bus::broadcast) of whatever `pattern` matches, as envelopes. For several types
    /// and patterns, [`Bus::subscribe_routes`] with [`ServiceOptions::broadcast`].
    ///
    /// # Errors
    /// As [`broadcast`](Bus::broadcast), and where the pattern is not valid.
    pub async fn broadcast_any<F, Fut>(
        &self,
        name: &str,
        pattern: &str,
        handler: F,
    ) -> Result<(), Error>
    where
        F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let routes = |routes: Routes<()>| routes.on_any_fn(pattern, handler);
        self.subscribe_routes(name, ServiceOptions::broadcast(), routes).await
    }

    /// What became of a broadcast's events that were not handled, since a broadcast has no dead
    /// letters; `None` where this bus has no broadcast of that name.
    pub fn broadcast_counts(&self, name: &str) -> Option<BroadcastCounts> {
        match self.running().get(name) {
            Some(Running::Worker(worker, _)) => worker.broadcast_counts(),
            _ => None,
        }
    }

    /// What a worker reads: a group's deliveries, or what is published from now on.
    pub(super) async fn feed(
        &self,
        wish: Subscription,
        distribution: Distribution,
    ) -> Result<(Feed, Option<Progress>), Error> {
        if distribution == Distribution::Shared {
            return Ok((self.0.driver.subscribe(wish).await?, None));
        }
        let follow =
            self.0.driver.broadcasts().ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, "this driver has no broadcasts")
            })?;
        let patterns: Vec<Pattern> = wish.routes.into_iter().map(|(pattern, _)| pattern).collect();
        let followed = follow.follow(&wish.group, &patterns).await?;
        let (feed, progress) = worker::feed(&wish.group, patterns, followed);
        Ok((feed, Some(progress)))
    }

    /// Whether a broadcast has handled everything that is published; `None` where `name` is none.
    pub(super) async fn is_heard(&self, name: &GroupName) -> Result<Option<bool>, Error> {
        let Some((progress, _)) = self.progress(name) else { return Ok(None) };
        let tools = self.tools()?;
        for shape in tools.topics().await? {
            if !progress.covers(&shape.topic) {
                continue;
            }
            for partition in shape.partitions() {
                // Not the log's end: what was trimmed will never come.
                let last = tools.latest(&partition, 1).await?;
                if last.iter().any(|entry| !progress.is_past(&partition, entry.id)) {
                    return Ok(Some(false));
                }
            }
        }
        // Asked last: what was taken counts as held until it has ended.
        Ok(Some(self.progress(name).is_none_or(|(_, idle)| idle)))
    }

    fn progress(&self, name: &GroupName) -> Option<(Progress, bool)> {
        match self.running().get(name) {
            Some(Running::Worker(worker, _)) => worker.progress(),
            _ => None,
        }
    }
}
