//! Publishes and consumes: as fast as a window allows, or to a schedule.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use rumormill::{
    Clock, ContentType, Envelope, EventType, PublishError, Receipt, ServiceOptions, SystemClock,
    Timestamp,
};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep_until, timeout};

use super::clocks::Used;
use super::site::{EVENT, Site, group};
use super::tally::{Tally, histogram, nanos};
use super::{Bench, schedule};
use crate::failure::Failure;

/// Events that are published and not handled: then the publisher waits for the consumers.
const BACKLOG_EVENTS_MAX: u64 = 100_000;
/// The same in bytes of payloads.
const BACKLOG_BYTES_MAX: u64 = 32 << 20;
/// Customers, say: events of one are handled in order.
const KEYS: u64 = 1024;
/// Most events a second of a schedule that nobody asked for.
const RATE_MAX: u32 = 10_000;
/// What was published comes back within this time, or never.
const PATIENCE: Duration = Duration::from_secs(30);
/// Moments that are taken from the schedule at a time.
const DUE_AT_ONCE: usize = 64;

/// Groups that handle, and a publisher.
pub(super) struct Load<'a> {
    site: &'a Site,
    tally: Arc<Tally>,
    window: usize,
    payload_bytes: usize,
    keys: Vec<String>,
    content_type: ContentType,
}

/// What a stretch of time at full speed was like.
pub(super) struct Fast {
    pub(super) time: Duration,
    pub(super) events: u64,
    pub(super) client: Option<Used>,
    pub(super) server: Option<Duration>,
    pub(super) has_server: bool,
    /// The share of the time in which publishing waited for the consumers.
    pub(super) behind: f64,
}

/// What a stretch of time at a rate was like.
pub(super) struct Even {
    pub(super) rate: u32,
    /// How long it took until all had come, from the first one's moment.
    pub(super) time: Duration,
    pub(super) events: u64,
    pub(super) latencies: Histogram<u64>,
    /// How late the publisher learned of a moment.
    pub(super) late: Histogram<u64>,
    pub(super) client: Option<Used>,
    pub(super) server: Option<Duration>,
}

/// How many events may wait to be handled.
fn backlog_max(payload_bytes: usize, window: usize) -> u64 {
    let by_bytes = BACKLOG_BYTES_MAX / payload_bytes.max(1) as u64;
    by_bytes.clamp(1, BACKLOG_EVENTS_MAX).max(window as u64)
}

/// How many bytes of payloads that may be.
pub(super) fn backlog_bytes_max(payload_bytes: usize, window: usize) -> u64 {
    backlog_max(payload_bytes, window) * payload_bytes as u64
}

impl Fast {
    pub(super) fn per_second(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64().max(f64::EPSILON)
    }

    /// Half of what it can do, within reason.
    pub(super) fn half_rate(&self) -> u32 {
        (self.per_second() / 2.0).clamp(1.0, f64::from(RATE_MAX)) as u32
    }
}

impl<'a> Load<'a> {
    /// Starts the groups.
    pub(super) async fn start(site: &'a Site, task: &Bench) -> Result<Self, Failure> {
        let tally = Arc::new(Tally::new(task.groups));
        for number in 0..task.groups {
            let (tally, at) = (Arc::clone(&tally), number as usize);
            let handle = move |envelope: Envelope, _| {
                tally.note(at, envelope.payload());
                ready(Ok(()))
            };
            let options = ServiceOptions { lanes: task.lanes, ..ServiceOptions::default() };
            let routes = |routes: rumormill::Routes<()>| routes.on_any_fn(EVENT, handle);
            let subscribed = site.bus.subscribe_routes(&group(number), options, routes).await;
            subscribed.map_err(|error| Failure::library("cannot subscribe", &error))?;
        }
        Ok(Self {
            site,
            tally,
            window: task.window,
            payload_bytes: task.payload_bytes,
            keys: (0..KEYS).map(|key| format!("key{key}")).collect(),
            content_type: ContentType::new("application/octet-stream").expect("valid"),
        })
    }

    pub(super) fn handled(&self) -> u64 {
        self.tally.handled()
    }

    /// Keeps the window full for `warm_up`, and then for `time`, which is measured.
    pub(super) async fn at_full_speed(
        &self,
        warm_up: Duration,
        time: Duration,
    ) -> Result<Fast, Failure> {
        let measured_from = Instant::now() + warm_up;
        let mut stretch = Stretch { number: 0, behind: Duration::ZERO };
        self.saturate(&mut stretch, measured_from).await?;
        stretch.behind = Duration::ZERO;
        let (server, client) = (self.site.processor_time().await, Used::now());
        let (begun, handled) = (Instant::now(), self.handled());
        self.saturate(&mut stretch, begun + time).await?;
        let (time, events) = (begun.elapsed(), self.handled() - handled);
        let client = Used::now().zip(client).map(|(now, then)| now.since(then));
        let server = self.server_since(server).await;
        self.all_handled(stretch.number).await?;
        let behind = stretch.behind.as_secs_f64() / time.as_secs_f64().max(f64::EPSILON);
        let has_server = self.site.has_server();
        Ok(Fast { time, events, client, server, has_server, behind })
    }

    /// Publishes until a moment, with as many events under way as the window allows.
    async fn saturate(&self, stretch: &mut Stretch, until: Instant) -> Result<(), Failure> {
        let mut under_way = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let time = SystemClock.now();
            let mut room = self.room_behind(stretch.number);
            while now < until && under_way.len() < self.window && room > 0 {
                under_way.push(self.publish(None, stretch.number, time));
                stretch.number += 1;
                room -= 1;
            }
            tokio::select! {
                Some(answer) = under_way.next() => check(answer)?,
                () = self.tally.come.notified(), if room == 0 && now < until => {
                    stretch.behind += now.elapsed();
                }
                () = sleep_until(until), if under_way.is_empty() && now < until => {}
                else => return Ok(()),
            }
        }
    }

    /// Publishes to a schedule. An event that cannot go at once is late, and counts as that.
    pub(super) async fn at_rate(&self, rate: u32, time: Duration) -> Result<Even, Failure> {
        let handled = self.handled();
        let (server, client) = (self.site.processor_time().await, Used::now());
        let begun = Instant::now();
        let moments = schedule::start(rate, time)?;
        let (events, late) = self.follow(moments, handled).await?;
        self.all_handled(handled + events).await?;
        let time = begun.elapsed();
        let client = Used::now().zip(client).map(|(now, then)| now.since(then));
        let server = self.server_since(server).await;
        let latencies = self.tally.latencies();
        Ok(Even { rate, time, events, latencies, late, client, server })
    }

    async fn follow(
        &self,
        mut moments: Receiver<Instant>,
        first: u64,
    ) -> Result<(u64, Histogram<u64>), Failure> {
        let mut late = histogram();
        let (mut events, mut is_over) = (0, false);
        let mut due = Vec::with_capacity(DUE_AT_ONCE);
        let mut under_way = FuturesUnordered::new();
        while !is_over || !under_way.is_empty() {
            let behind = usize::try_from(self.room_behind(first + events)).unwrap_or(usize::MAX);
            let room = self.window.saturating_sub(under_way.len()).min(DUE_AT_ONCE).min(behind);
            tokio::select! {
                Some(answer) = under_way.next() => check(answer)?,
                () = self.tally.come.notified(), if behind == 0 => {}
                taken = moments.recv_many(&mut due, room), if !is_over && room > 0 => {
                    is_over = taken == 0;
                }
            }
            let (now, time) = (Instant::now(), SystemClock.now());
            for moment in due.drain(..) {
                late.saturating_record(nanos(now.saturating_duration_since(moment)).max(1));
                under_way.push(self.publish(Some(moment), first + events, time));
                events += 1;
            }
        }
        Ok((events, late))
    }

    /// How many events may still be published before the consumers have to catch up.
    fn room_behind(&self, published: u64) -> u64 {
        let behind = published.saturating_sub(self.handled());
        backlog_max(self.payload_bytes, self.window).saturating_sub(behind)
    }

    async fn publish(
        &self,
        due: Option<Instant>,
        number: u64,
        time: Timestamp,
    ) -> Result<Receipt, PublishError> {
        let payload = self.tally.payload(due, number, self.payload_bytes);
        let key = &self.keys[(number % KEYS) as usize];
        let envelope = Envelope::builder(
            EventType::from_static(EVENT),
            self.content_type.clone(),
            payload,
            time,
        )
        .key(Some(key.as_str()))
        .build()
        .map_err(PublishError::NotStored)?;
        self.site.bus.publisher().publish_envelope(envelope).await
    }

    /// Waits until every group has handled so many, and until that is acknowledged.
    async fn all_handled(&self, events: u64) -> Result<(), Failure> {
        let wait = async {
            while self.handled() < events {
                self.tally.come.notified().await;
            }
            self.site.bus.settled().await
        };
        match timeout(PATIENCE, wait).await {
            Ok(settled) => {
                settled.map_err(|error| Failure::library("cannot ask what is left", &error))
            }
            Err(_) => {
                let handled = self.handled();
                Err(Failure::failed(format!(
                    "of {events} events {handled} were handled, and no more came within 30s"
                )))
            }
        }
    }

    async fn server_since(&self, earlier: Option<Duration>) -> Option<Duration> {
        let now = self.site.processor_time().await?;
        Some(now.saturating_sub(earlier?))
    }
}

/// What goes on from the warm-up to what is measured.
struct Stretch {
    /// Of the next event.
    number: u64,
    behind: Duration,
}

fn check(answer: Result<Receipt, PublishError>) -> Result<(), Failure> {
    answer.map(drop).map_err(|error| Failure::library("cannot publish", error.error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_by_bytes_and_by_number() {
        assert_eq!(backlog_max(100, 512), 100_000);
        assert_eq!(backlog_max(1 << 20, 16), 32);
        assert_eq!(backlog_max(1 << 20, 512), 512, "a full window fits");
        assert_eq!(backlog_bytes_max(1 << 20, 16), 32 << 20);
    }
}
