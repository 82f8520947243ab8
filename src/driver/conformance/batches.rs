//! Batches: what comes together, and that each event of one ends by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Fixture;
use super::kit::{DEADLINE, TOPIC, topic};
use super::workshop::{Inbox, backlog, bus, dead_letters, end, options, publish, settled};
use crate::Bus;
use crate::codec::ContentType;
use crate::delivery::Cause;
use crate::envelope::Envelope;
use crate::error::HandlerError;
use crate::event::Event;
use crate::event_type::EventType;
use crate::service::ServiceOptions;
use crate::service::{Batch, BatchOptions, Routes};
use crate::time::{Clock, SystemClock};

/// Longer than any scenario: only size, or a drain, ends such a batch.
const ENDLESS: Duration = Duration::from_secs(60);

#[derive(serde::Serialize, serde::Deserialize)]
struct Counted {
    number: u32,
}

impl Event for Counted {
    const TYPE: EventType = EventType::from_static("conformance.number.counted");
    const VERSION: u32 = 2;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Echoed {
    number: u32,
}

impl Event for Echoed {
    const TYPE: EventType = EventType::from_static("conformance.number.echoed");
}

fn envelope(event_type: EventType, version: u32, key: &str, payload: String) -> Envelope {
    let builder = Envelope::builder(event_type, ContentType::JSON, payload, SystemClock.now());
    builder.version(version).key(Some(key.to_owned())).build().expect("within limits")
}

fn counted(key: &str, number: u32) -> Envelope {
    envelope(Counted::TYPE, 2, key, format!("{{\"number\":{number}}}"))
}

fn many(range: std::ops::Range<u32>) -> Vec<Envelope> {
    range.map(|number| counted("k", number)).collect()
}

/// Handles batches with a closure; a lane long enough for any of them.
async fn handle<F, Fut>(bus: &Bus, own: ServiceOptions, batch: BatchOptions, handler: F)
where
    F: Fn(Batch<Counted>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let routes = |routes: Routes<()>| routes.on_batch_fn(batch, handler);
    bus.subscribe_routes("g", own, routes).await.expect("subscribed");
}

/// Numbers and attempts of a batch.
fn seen(batch: &Batch<Counted>) -> Vec<(u32, u32)> {
    batch.iter().map(|item| (item.event.number, item.ctx.attempt())).collect()
}

fn numbers(batches: &[Vec<(u32, u32)>]) -> Vec<u32> {
    batches.iter().flatten().map(|(number, _)| *number).collect()
}

/// A batch is handed on as soon as it has its size.
pub async fn a_batch_comes_together_by_size(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let sender = inbox.sender.clone();
    let batch = BatchOptions { size: 5, linger: ENDLESS };
    handle(&bus, options(fixture), batch, move |batch| {
        let sender = sender.clone();
        async move { Ok(sender.send(seen(&batch)).await?) }
    })
    .await;
    publish(&bus, many(0..10)).await;
    let batches = inbox.take(2).await;
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(numbers(&batches), (0..10).collect::<Vec<_>>());
    settled(&bus).await;
    end(bus).await;
}

/// Events without a key come together too, and not one in each lane.
pub async fn events_without_a_key_come_together(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let sender = inbox.sender.clone();
    let batch = BatchOptions { size: 10, linger: ENDLESS };
    handle(&bus, options(fixture), batch, move |batch| {
        let sender = sender.clone();
        async move { Ok(sender.send(seen(&batch)).await?) }
    })
    .await;
    let event = |number| {
        let payload = format!("{{\"number\":{number}}}");
        let now = SystemClock.now();
        let builder = Envelope::builder(Counted::TYPE, ContentType::JSON, payload, now);
        builder.version(2).build().expect("within limits")
    };
    publish(&bus, (0..40).map(event).collect()).await;
    let batches = inbox.take(4).await;
    assert!(batches.iter().all(|batch| batch.len() == 10), "{batches:?}");
    settled(&bus).await;
    end(bus).await;
}

/// What never gets its size waits for its linger and no longer.
pub async fn a_lone_event_waits_for_its_linger_only(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let sender = inbox.sender.clone();
    let batch = BatchOptions { size: 50, linger: Duration::from_millis(30) };
    handle(&bus, options(fixture), batch, move |batch| {
        let sender = sender.clone();
        async move { Ok(sender.send(seen(&batch)).await?) }
    })
    .await;
    publish(&bus, many(0..1)).await;
    assert_eq!(inbox.next().await, [(0, 1)]);
    settled(&bus).await;
    end(bus).await;
}

/// In one batch one event succeeds, one is retried, one is rejected, one cannot be decoded; what
/// they published goes out with each one's own success.
pub async fn each_event_of_a_batch_ends_by_itself(fixture: &dyn Fixture) {
    let (bus, mut inbox, mut echoes) = (bus(fixture).await, Inbox::new(), Inbox::new());
    let sender = inbox.sender.clone();
    let batch = BatchOptions { size: 4, linger: Duration::from_millis(200) };
    handle(&bus, options(fixture), batch, move |batch| {
        let sender = sender.clone();
        async move {
            sender.send(seen(&batch)).await?;
            for item in &batch {
                item.ctx.publish(&Echoed { number: item.event.number })?;
                match (item.event.number, item.ctx.attempt()) {
                    (1, 1) => item.fail("not yet"),
                    (2, _) => item.fail(HandlerError::reject("never")),
                    _ => {}
                }
            }
            Ok(())
        }
    })
    .await;
    let echo = echoes.sender.clone();
    let reader = move |event: Echoed, _| {
        let echo = echo.clone();
        async move { Ok(echo.send(event.number).await?) }
    };
    bus.subscribe("reader", reader).await.expect("subscribed");
    let mut events = many(0..3);
    events.push(envelope(Counted::TYPE, 2, "k", "no number".to_owned()));
    publish(&bus, events).await;
    assert_eq!(inbox.next().await, [(0, 1), (1, 1), (2, 1)], "what decodes is together");
    assert_eq!(inbox.next().await, [(1, 2)]);
    settled(&bus).await;
    let mut echoed = echoes.rest();
    echoed.sort_unstable();
    assert_eq!(echoed, [0, 1], "each with its own success, once");
    let mut causes: Vec<_> =
        dead_letters(&bus, "g").await.into_iter().map(|dead| dead.failure.cause).collect();
    causes.sort_by_key(ToString::to_string);
    assert_eq!(causes, [Cause::Rejected, Cause::Undecodable]);
    end(bus).await;
}

/// An error of the whole, and a panic, fail each event of the batch; each is tried again.
pub async fn an_error_or_a_panic_fails_the_whole_batch(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let (sender, calls) = (inbox.sender.clone(), Arc::new(AtomicU32::new(0)));
    let batch = BatchOptions { size: 4, linger: Duration::from_millis(200) };
    handle(&bus, options(fixture), batch, move |batch| {
        let (sender, call) = (sender.clone(), calls.fetch_add(1, Ordering::SeqCst));
        async move {
            assert_ne!(call, 1, "the second call panics");
            sender.send(seen(&batch)).await?;
            if call == 0 { Err("all of it".into()) } else { Ok(()) }
        }
    })
    .await;
    publish(&bus, many(0..4)).await;
    assert_eq!(inbox.next().await, [(0, 1), (1, 1), (2, 1), (3, 1)]);
    settled(&bus).await;
    let later: Vec<_> = inbox.rest().into_iter().flatten().collect();
    let mut handled: Vec<_> = later.iter().map(|(number, _)| *number).collect();
    handled.sort_unstable();
    assert_eq!(handled, [0, 1, 2, 3]);
    assert!(later.iter().all(|(_, attempt)| *attempt >= 2), "{later:?}");
    assert!(later.iter().any(|(_, attempt)| *attempt == 3), "one was in the panic: {later:?}");
    assert_eq!(backlog(&bus, "g").await.dead, 0);
    end(bus).await;
}

/// A batch handler that takes too long is dropped, and each of its events tried again.
pub async fn a_timeout_fails_the_whole_batch(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let sender = inbox.sender.clone();
    let own = ServiceOptions { handler_timeout: Duration::from_millis(50), ..options(fixture) };
    let batch = BatchOptions { size: 3, linger: ENDLESS.min(own.handler_timeout) };
    handle(&bus, own, batch, move |batch| {
        let sender = sender.clone();
        async move {
            if batch.iter().any(|item| item.ctx.attempt() == 1) {
                std::future::pending::<()>().await;
            }
            Ok(sender.send(seen(&batch)).await?)
        }
    })
    .await;
    publish(&bus, many(0..3)).await;
    settled(&bus).await;
    let mut handled: Vec<_> = inbox.rest().into_iter().flatten().collect();
    handled.sort_unstable();
    assert_eq!(handled, [(0, 2), (1, 2), (2, 2)]);
    end(bus).await;
}

/// Events of one key come in order, within a batch and from batch to batch.
pub async fn order_per_key_in_batches(fixture: &dyn Fixture) {
    fixture.partitions(&topic(TOPIC), 3).await;
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let sender = inbox.sender.clone();
    let batch = BatchOptions { size: 7, linger: Duration::from_millis(5) };
    handle(&bus, options(fixture), batch, move |batch| {
        let sender = sender.clone();
        async move {
            sleep(Duration::from_micros(fastrand::u64(0..2_000))).await;
            let key = |ctx: &crate::Context| ctx.envelope().key().unwrap_or_default().to_owned();
            let came = batch.iter().map(|item| (key(&item.ctx), item.event.number)).collect();
            Ok(sender.send(came).await?)
        }
    })
    .await;
    let keys = ["a", "b", "c", "d", "e"];
    publish(&bus, (0..300).map(|n| counted(keys[n as usize % keys.len()], n)).collect()).await;
    settled(&bus).await;
    let batches: Vec<Vec<(String, u32)>> = inbox.rest();
    assert!(batches.iter().all(|batch| (1..=7).contains(&batch.len())));
    assert!(batches.iter().any(|batch| batch.len() > 1), "some came together");
    let mut by_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (key, number) in batches.into_iter().flatten() {
        by_key.entry(key).or_default().push(number);
    }
    for (key, numbers) in by_key {
        assert_eq!(numbers.len(), 60, "{key}");
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    end(bus).await;
}

/// A batch is of one type and one version, and what stands between, of another type, keeps its
/// place in the order of the key.
pub async fn a_batch_never_mixes_types_or_versions(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let (batches, singles) = (inbox.sender.clone(), inbox.sender.clone());
    let routes = move |routes: Routes<()>| {
        let batch = BatchOptions { size: 10, linger: Duration::from_millis(50) };
        routes
            .on_batch_fn(batch, move |batch: Batch<Counted>| {
                let sender = batches.clone();
                async move {
                    let versions = batch.iter().map(|item| item.ctx.envelope().version());
                    let came = versions.zip(batch.events().map(|event| event.number));
                    Ok(sender.send(came.collect()).await?)
                }
            })
            .on_fn(move |event: Echoed, _| {
                let sender = singles.clone();
                async move { Ok(sender.send(vec![(0, event.number)]).await?) }
            })
    };
    let kinds = [2, 2, 1, 1, 0, 2, 2, 2, 0, 0, 1, 2];
    let event = |(number, kind): (usize, &u32)| match kind {
        0 => envelope(Echoed::TYPE, 1, "k", format!("{{\"number\":{number}}}")),
        version => envelope(Counted::TYPE, *version, "k", format!("{{\"number\":{number}}}")),
    };
    publish(&bus, kinds.iter().enumerate().map(event).collect()).await;
    bus.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    settled(&bus).await;
    let calls: Vec<Vec<(u32, u32)>> = inbox.rest();
    assert!(calls.iter().all(|call| call.iter().all(|(kind, _)| *kind == call[0].0)), "{calls:?}");
    let came: Vec<_> = calls.iter().flatten().map(|(_, number)| *number).collect();
    assert_eq!(came, (0..12).collect::<Vec<_>>());
    assert!(calls.len() < 12, "some came together");
    end(bus).await;
}

/// A drain does not wait for a batch to fill: what waits goes to the others at once, and counts
/// as no attempt.
pub async fn drain_hands_over_a_batch_that_waits(fixture: &dyn Fixture) {
    let (leaving, staying) = (bus(fixture).await, bus(fixture).await);
    let mut inbox = Inbox::new();
    let batch = BatchOptions { size: 50, linger: ENDLESS };
    handle(&leaving, options(fixture), batch, |_| async { panic!("it never fills") }).await;
    publish(&leaving, many(0..3)).await;
    let read = async {
        while backlog(&leaving, "g").await.unread > 0 {
            // waits: for the events to be read
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, read).await.expect("read");
    let report = timeout(DEADLINE, leaving.drain(Duration::from_secs(5))).await.expect("drained");
    assert_eq!((report.finished, report.handed_over, report.forced), (0, 3, 0));
    let sender = inbox.sender.clone();
    let batch = BatchOptions { size: 50, linger: Duration::from_millis(20) };
    handle(&staying, options(fixture), batch, move |batch| {
        let sender = sender.clone();
        async move { Ok(sender.send(seen(&batch)).await?) }
    })
    .await;
    settled(&staying).await;
    let mut handled: Vec<_> = inbox.rest().into_iter().flatten().collect();
    handled.sort_unstable();
    assert_eq!(handled, [(0, 1), (1, 1), (2, 1)]);
    end(staying).await;
}

/// A drain finishes the batch that runs, and settles it; at its deadline it is cancelled and goes
/// to the others.
pub async fn drain_finishes_or_forces_a_batch_that_runs(fixture: &dyn Fixture) {
    for (deadline, finished) in [(Duration::from_secs(5), 3), (Duration::from_millis(50), 0)] {
        let (leaving, watcher) = (bus(fixture).await, bus(fixture).await);
        let (mut inbox, gate) = (Inbox::new(), Arc::new(Semaphore::new(0)));
        let (sender, closed) = (inbox.sender.clone(), Arc::clone(&gate));
        let batch = BatchOptions { size: 3, linger: ENDLESS };
        handle(&leaving, options(fixture), batch, move |batch| {
            let (sender, gate) = (sender.clone(), Arc::clone(&closed));
            async move {
                sender.send(seen(&batch)).await?;
                gate.acquire().await?.forget();
                Ok(())
            }
        })
        .await;
        publish(&leaving, many(0..3)).await;
        inbox.next().await;
        let drain = leaving.drain(deadline);
        let open = async {
            if finished > 0 {
                gate.add_permits(1);
            }
        };
        let (report, ()) =
            timeout(DEADLINE, async { tokio::join!(drain, open) }).await.expect("drained");
        assert_eq!((report.finished, report.forced), (finished, 3 - finished));
        assert_eq!(backlog(&watcher, "g").await.is_settled(), finished == 3);
        end(watcher).await;
    }
}
