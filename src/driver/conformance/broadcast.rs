//! Broadcasts: each instance gets every event from when it subscribes, and the store knows nothing
//! about it. For drivers that have them ([`Driver::broadcasts`](crate::driver::Driver)).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Fixture;
use super::kit::{DEADLINE, TOPIC, WATCH, entry, partition, topic};
use super::workshop::{Inbox, backlog, bus, end, handle, options, publish, settled, text, thing};
use crate::Bus;
use crate::codec::ContentType;
use crate::driver::Backlog;
use crate::envelope::Envelope;
use crate::error::{ErrorKind, HandlerError};
use crate::event_type::EventType;
use crate::service::Context;
use crate::service::{Distribution, ServiceOptions};
use crate::time::{Clock, SystemClock, Timestamp};

/// A bus; none where the driver has no broadcasts.
async fn stage(fixture: &dyn Fixture) -> Option<Bus> {
    let bus = bus(fixture).await;
    if bus.driver().broadcasts().is_some() {
        return Some(bus);
    }
    let refused = bus.broadcast_any("b", ">", |_, _| async { Ok(()) }).await;
    assert_eq!(refused.expect_err("there are none").kind(), ErrorKind::Unsupported);
    end(bus).await;
    None
}

fn broadcast(fixture: &dyn Fixture) -> ServiceOptions {
    ServiceOptions { distribution: Distribution::Broadcast, ..options(fixture) }
}

/// Hears everything of the scenario's topic in broadcast `b`.
async fn hear<F, Fut>(bus: &Bus, options: ServiceOptions, handler: F)
where
    F: Fn(Envelope, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    handle(bus, "b", options, handler).await;
}

/// Hears every payload.
async fn hear_all(bus: &Bus, options: ServiceOptions) -> Inbox<String> {
    let inbox = Inbox::new();
    let seen = inbox.sender.clone();
    let handler = move |envelope: Envelope, _| {
        let seen = seen.clone();
        async move {
            seen.send(text(&envelope)).await?;
            Ok(())
        }
    };
    hear(bus, options, handler).await;
    inbox
}

fn numbers(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

fn things(key: &str, payloads: &[String]) -> Vec<Envelope> {
    payloads.iter().map(|payload| thing(Some(key), payload)).collect()
}

/// Every instance gets every event of every partition, in the order per key, beside a group that
/// shares them.
pub async fn every_instance_gets_every_event(fixture: &dyn Fixture) {
    fixture.partitions(&topic(TOPIC), 3).await;
    let Some(first) = stage(fixture).await else { return };
    let (second, third) = (bus(fixture).await, bus(fixture).await);
    let mut inboxes = Vec::new();
    for bus in [&first, &second, &third] {
        inboxes.push(hear_all(bus, broadcast(fixture)).await);
    }
    let sent: Vec<String> = numbers(0, 60);
    let keyed = |payload: &String| thing(Some(&format!("k{}", payload.len())), payload);
    publish(&first, sent.iter().map(keyed).collect()).await;
    for (bus, mut inbox) in [first, second, third].into_iter().zip(inboxes) {
        settled(&bus).await;
        let mut came = inbox.rest();
        // One key for one digit, one for two: each in its order.
        came.sort_by_key(String::len);
        assert_eq!(came, sent, "each once and in order");
        assert_eq!(bus.broadcast_counts("b"), Some(Default::default()));
        end(bus).await;
    }
}

/// What was published before is not heard; what is published from the return on is.
pub async fn it_starts_with_what_is_new(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    publish(&bus, things("k", &numbers(0, 10))).await;
    let mut inbox = hear_all(&bus, broadcast(fixture)).await;
    publish(&bus, things("k", &numbers(10, 20))).await;
    settled(&bus).await;
    assert_eq!(inbox.rest(), numbers(10, 20));
    end(bus).await;
}

/// A handler that fails now and then keeps every key's order, and no event is lost.
pub async fn order_per_key_holds_while_handlers_fail(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let mut inbox = Inbox::new();
    let seen = inbox.sender.clone();
    hear(&bus, broadcast(fixture), move |envelope, ctx| {
        let seen = seen.clone();
        async move {
            let number: u32 = text(&envelope).parse()?;
            if number.is_multiple_of(5) && ctx.attempt() < 3 {
                return Err("now and then".into());
            }
            seen.send((envelope.key().unwrap_or_default().to_owned(), number)).await?;
            Ok(())
        }
    })
    .await;
    let keyed = |number: u32| thing(Some(&format!("k{}", number % 7)), &number.to_string());
    publish(&bus, (0..100).map(keyed).collect()).await;
    settled(&bus).await;
    let mut by_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (key, number) in inbox.rest() {
        by_key.entry(key).or_default().push(number);
    }
    for (key, came) in &by_key {
        let own = (0..100).filter(|number| format!("k{}", number % 7) == *key);
        assert_eq!(*came, own.collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(by_key.len(), 7);
    end(bus).await;
}

/// A failed event is tried again here, before the next of its key, until its attempts are spent;
/// then it is counted, since there are no dead letters.
pub async fn a_failure_is_tried_again_in_place(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let mut inbox = Inbox::new();
    let seen = inbox.sender.clone();
    hear(&bus, broadcast(fixture), move |envelope, ctx| {
        let seen = seen.clone();
        async move {
            seen.send((text(&envelope), ctx.attempt())).await?;
            match text(&envelope).as_str() {
                "fails" => Err("no".into()),
                "rejected" => Err(HandlerError::reject("never")),
                _ => Ok(()),
            }
        }
    })
    .await;
    let sent = ["fails", "rejected", "handled"].map(str::to_owned);
    publish(&bus, things("k", &sent)).await;
    settled(&bus).await;
    let expected = [("fails", 1), ("fails", 2), ("fails", 3), ("rejected", 1), ("handled", 1)];
    assert_eq!(inbox.rest(), expected.map(|(payload, attempt)| (payload.to_owned(), attempt)));
    let counts = bus.broadcast_counts("b").expect("it is a broadcast");
    assert_eq!((counts.given_up, counts.malformed, counts.expired), (2, 0, 0));
    assert_eq!(backlog(&bus, "b").await, Backlog::default());
    end(bus).await;
}

/// What is no event, what has expired and what no handler takes is counted and passed over.
pub async fn what_is_not_handled_is_counted(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let mut inbox = hear_all(&bus, broadcast(fixture)).await;
    let event_type = |name| EventType::from_static(name);
    let now = SystemClock.now();
    let expired =
        Envelope::builder(event_type("conformance.thing.happened"), ContentType::JSON, "1", now)
            .expires(Some(Timestamp::from_millis(1)))
            .build();
    publish(&bus, vec![thing(None, "before"), expired.expect("within limits")]).await;
    let fields = vec![(Bytes::from_static(b"foo"), Bytes::from_static(b"bar"))];
    let malformed = u64::from(fixture.foreign(&partition(TOPIC, 0), fields).await);
    publish(&bus, vec![thing(None, "after")]).await;
    settled(&bus).await;
    let mut came = inbox.rest();
    came.sort();
    assert_eq!(came, ["after", "before"]);
    let counts = bus.broadcast_counts("b").expect("it is a broadcast");
    assert_eq!((counts.malformed, counts.expired, counts.given_up), (malformed, 1, 0));
    end(bus).await;
}

/// After it is gone the store is as if it had never been: no group has a place, and one that
/// comes later gets every event.
pub async fn nothing_of_it_stays(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let mut heard = hear_all(&bus, broadcast(fixture)).await;
    publish(&bus, things("k", &numbers(0, 20))).await;
    settled(&bus).await;
    assert_eq!(heard.rest(), numbers(0, 20));
    assert_eq!(backlog(&bus, "b").await, Backlog::default());
    bus.unsubscribe("b", DEADLINE).await.expect("it was subscribed");
    publish(&bus, things("k", &numbers(20, 30))).await;
    // A group of the same name, even.
    let mut shared = hear_all(&bus, options(fixture)).await;
    settled(&bus).await;
    assert_eq!(shared.rest(), numbers(0, 30));
    assert!(heard.rest().is_empty(), "its handlers are gone");
    end(bus).await;
}

/// Its name is taken while it runs; after `unsubscribe` no handler of it starts, and it may be
/// subscribed again, from then on.
pub async fn it_ends_with_unsubscribe(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let mut first = hear_all(&bus, broadcast(fixture)).await;
    let conflict = bus.subscribe_any("b", ">", |_, _| async { Ok(()) }).await;
    assert_eq!(conflict.expect_err("taken").kind(), ErrorKind::Conflict);
    publish(&bus, vec![thing(None, "first")]).await;
    assert_eq!(first.next().await, "first");
    bus.unsubscribe("b", DEADLINE).await.expect("it was subscribed");
    assert_eq!(bus.broadcast_counts("b"), None);
    publish(&bus, vec![thing(None, "to nobody")]).await;
    // waits: for what must not come.
    sleep(WATCH).await;
    assert!(first.rest().is_empty(), "a handler started");
    let mut second = hear_all(&bus, broadcast(fixture)).await;
    publish(&bus, vec![thing(None, "second")]).await;
    assert_eq!(second.next().await, "second");
    end(bus).await;
}

/// A wildcard hears a topic that appears later from its first event on, beside one that
/// is there already.
pub async fn a_topic_that_appears_later_is_read_from_its_beginning(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let publisher = super::workshop::bus(fixture).await;
    let mut inbox = Inbox::new();
    let seen = inbox.sender.clone();
    let handler = move |envelope: Envelope, _: Context| {
        let seen = seen.clone();
        async move {
            seen.send(text(&envelope)).await?;
            Ok(())
        }
    };
    bus.broadcast_any("b", "*.thing.>", handler).await.expect("subscribed");
    for (name, payload) in [("early.thing.born", "a"), ("later.thing.born", "b")] {
        let payload = serde_json::to_vec(payload).expect("a string is JSON");
        let event_type = EventType::from_static(name);
        let event = Envelope::builder(event_type, ContentType::JSON, payload, SystemClock.now());
        publish(&publisher, vec![event.build().expect("within limits")]).await;
        publish(&publisher, vec![thing(None, "known")]).await;
    }
    let mut came = inbox.take(4).await;
    came.sort();
    assert_eq!(came, ["a", "b", "known", "known"]);
    settled(&bus).await;
    assert!(inbox.rest().is_empty(), "none twice");
    end(bus).await;
    end(publisher).await;
}

/// A drain finishes what runs and drops what waits, as there is nobody to hand it to, and says how
/// much.
pub async fn a_drain_drops_what_waits(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let (mut started, gate) = (Inbox::new(), Arc::new(Semaphore::new(0)));
    let (seen, closed) = (started.sender.clone(), Arc::clone(&gate));
    let one_lane = ServiceOptions { lanes: 1, ..broadcast(fixture) };
    hear(&bus, one_lane, move |envelope, _| {
        let (seen, gate) = (seen.clone(), Arc::clone(&closed));
        async move {
            seen.send(text(&envelope)).await?;
            gate.acquire().await?.forget();
            Ok(())
        }
    })
    .await;
    // One entry, so that all of it is read with its first event.
    bus.driver().declare(&topic(TOPIC)).await.expect("declared");
    let batch = entry(&partition(TOPIC, 0), things("k", &numbers(0, 20)));
    for answer in bus.driver().append(vec![batch]).await {
        answer.expect("stored");
    }
    assert_eq!(started.next().await, "0");
    let drain = bus.drain(DEADLINE);
    let open = async {
        tokio::task::yield_now().await;
        gate.add_permits(1);
    };
    let (report, ()) =
        timeout(DEADLINE, async { tokio::join!(drain, open) }).await.expect("drained");
    assert_eq!((report.finished, report.dropped), (1, 19));
    assert_eq!((report.handed_over, report.forced), (0, 0));
    assert!(started.rest().is_empty(), "no other handler started");
}

/// A slow instance holds no more than its lanes take and the read-ahead, and gets everything that
/// the log keeps, in order.
pub async fn a_full_lane_stops_reading(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let (mut started, gate) = (Inbox::new(), Arc::new(Semaphore::new(0)));
    let (seen, closed) = (started.sender.clone(), Arc::clone(&gate));
    let narrow = ServiceOptions { lanes: 1, lane_depth: 2, ..broadcast(fixture) };
    hear(&bus, narrow, move |envelope, _| {
        let (seen, gate) = (seen.clone(), Arc::clone(&closed));
        async move {
            seen.send(text(&envelope)).await?;
            gate.acquire().await?.forget();
            Ok(())
        }
    })
    .await;
    for payload in numbers(0, 300) {
        publish(&bus, vec![thing(Some("k"), &payload)]).await;
    }
    assert_eq!(started.next().await, "0");
    let unheard = timeout(WATCH, bus.settled()).await;
    assert!(unheard.is_err(), "settled while most was neither read nor handled");
    gate.add_permits(300);
    assert_eq!(started.take(299).await, numbers(1, 300));
    settled(&bus).await;
    assert!(started.rest().is_empty(), "each comes once");
    assert_eq!(bus.broadcast_counts("b").map(|counts| counts.missed), Some(0));
    end(bus).await;
}

/// A handler cannot publish through its context: every instance would publish the same.
pub async fn its_outputs_are_refused(fixture: &dyn Fixture) {
    let Some(bus) = stage(fixture).await else { return };
    let mut inbox = Inbox::new();
    let seen = inbox.sender.clone();
    hear(&bus, broadcast(fixture), move |_, ctx| {
        let seen = seen.clone();
        async move {
            seen.send(ctx.publish(&Echo).expect_err("refused").kind()).await?;
            Ok(ctx.publish(&Echo)?)
        }
    })
    .await;
    publish(&bus, vec![thing(None, "a")]).await;
    settled(&bus).await;
    assert_eq!(inbox.rest(), [ErrorKind::Invalid], "tried once");
    assert_eq!(bus.broadcast_counts("b").map(|counts| counts.given_up), Some(1));
    end(bus).await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Echo;

impl crate::event::Event for Echo {
    const TYPE: EventType = EventType::from_static("conformance.echo");
}
