//! Filters: what does not pass is acknowledged and counted, and costs its handler nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Fixture;
use super::kit::DEADLINE;
use super::workshop::{Inbox, backlog, bus, dead_letters, end, options, publish, settled, thing};
use crate::codec::ContentType;
use crate::delivery::Cause;
use crate::envelope::Envelope;
use crate::event::Event;
use crate::event_type::EventType;
use crate::publisher::PublishOptions;
use crate::service::ServiceOptions;
use crate::service::{Filter, Routes};
use crate::time::{Clock, SystemClock};

#[derive(serde::Serialize, serde::Deserialize)]
struct Placed {
    amount: u64,
}

impl Event for Placed {
    const TYPE: EventType = EventType::from_static("conformance.order.placed");
}

async fn place(bus: &crate::Bus, amount: u64, tenant: &'static str, key: &'static str) {
    let options = PublishOptions::default().header("tenant", tenant).key(key);
    bus.publish_with(&Placed { amount }, options).await.expect("stored");
}

/// Handles what passes `filter`; gives the amounts.
async fn handle(bus: &crate::Bus, options: ServiceOptions, filter: Filter) -> Inbox<u64> {
    let inbox = Inbox::new();
    let seen = inbox.sender.clone();
    let routes = move |routes: Routes<()>| {
        let routes = routes.on_fn(move |event: Placed, _| {
            let seen = seen.clone();
            async move {
                seen.send(event.amount).await?;
                Ok(())
            }
        });
        routes.when(filter)
    };
    bus.subscribe_routes("g", options, routes).await.expect("subscribed");
    inbox
}

/// What does not pass is acked and counted: it is no dead letter, and nothing waits for it.
pub async fn a_filtered_event_is_acked_and_counted(fixture: &dyn Fixture) {
    let bus = bus(fixture).await;
    let filter = Filter::header("tenant", "acme") & !Filter::key_prefix("test-");
    let mut inbox = handle(&bus, options(fixture), filter).await;
    place(&bus, 1, "acme", "test-1").await;
    place(&bus, 2, "other", "k").await;
    place(&bus, 3, "acme", "k").await;
    place(&bus, 4, "other", "test-1").await;
    settled(&bus).await;
    assert_eq!(inbox.rest(), [3]);
    let counts = bus.counts("g");
    assert_eq!((counts.filtered, counts.unrouted), (3, 0));
    assert_eq!(backlog(&bus, "g").await.dead, 0);
    end(bus).await;
}

/// A filter on the header is asked before the payload is decoded: what it refuses cannot fail.
pub async fn a_header_filter_comes_before_decoding(fixture: &dyn Fixture) {
    let bus = bus(fixture).await;
    let mut inbox = handle(&bus, options(fixture), !Filter::has_header("skip")).await;
    let broken = || {
        let now = SystemClock.now();
        Envelope::builder(Placed::TYPE, ContentType::JSON, "no number", now)
    };
    let refused = broken().header("skip", "yes").build().expect("within limits");
    publish(&bus, vec![refused, broken().build().expect("within limits")]).await;
    place(&bus, 5, "acme", "k").await;
    settled(&bus).await;
    assert_eq!(inbox.rest(), [5]);
    assert_eq!(bus.counts("g").filtered, 1);
    let dead = dead_letters(&bus, "g").await;
    assert_eq!(dead.len(), 1, "the one that passes cannot be decoded");
    assert_eq!(dead[0].failure.cause, Cause::Undecodable);
    end(bus).await;
}

/// A filter on the payload is asked with the decoded event; what it refuses is counted as well.
pub async fn a_payload_filter_sees_the_event(fixture: &dyn Fixture) {
    let bus = bus(fixture).await;
    let large = Filter::payload(|placed: &Placed| placed.amount > 100);
    let filter = large | Filter::header("tenant", "acme");
    let mut inbox = handle(&bus, options(fixture), filter).await;
    for (amount, tenant) in [(1, "acme"), (2, "other"), (101, "other"), (102, "acme")] {
        place(&bus, amount, tenant, "k").await;
    }
    settled(&bus).await;
    assert_eq!(inbox.rest(), [1, 101, 102]);
    assert_eq!(bus.counts("g").filtered, 1);
    assert_eq!(backlog(&bus, "g").await.dead, 0);
    end(bus).await;
}

/// While the only lane is taken and full, what does not pass goes by.
pub async fn a_filtered_event_takes_no_lane(fixture: &dyn Fixture) {
    let (bus, gate) = (bus(fixture).await, Arc::new(Semaphore::new(0)));
    let (mut inbox, closed) = (Inbox::new(), Arc::clone(&gate));
    let seen = inbox.sender.clone();
    let routes = move |routes: Routes<()>| {
        let routes = routes.on_any_fn("conformance.>", move |envelope, _| {
            let (seen, gate) = (seen.clone(), Arc::clone(&closed));
            async move {
                gate.acquire().await?.forget();
                seen.send(envelope.key().map(str::to_owned)).await?;
                Ok(())
            }
        });
        routes.when(Filter::key("slow") | Filter::event_type("conformance.*.never"))
    };
    let small = ServiceOptions { lanes: 1, lane_depth: 1, ..options(fixture) };
    bus.subscribe_routes("g", small, routes).await.expect("subscribed");
    publish(&bus, vec![thing(Some("slow"), "s")]).await;
    publish(&bus, (0..100).map(|_| thing(None, "x")).collect()).await;
    let gone_by = async {
        while bus.counts("g").filtered < 100 {
            // waits: for the filtered events to be read
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, gone_by).await.expect("they do not wait for the lane");
    assert!(inbox.rest().is_empty());
    gate.add_permits(1);
    assert_eq!(inbox.next().await.as_deref(), Some("slow"));
    settled(&bus).await;
    end(bus).await;
}
