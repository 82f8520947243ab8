//! Handlers: what becomes of an event by what its handler does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::Fixture;
use super::kit::{TOPIC, partition};
use super::workshop::{
    Inbox, backlog, bus, dead_letters, end, handle, options, publish, settled, text, thing,
};
use crate::codec::ContentType;
use crate::delivery::Cause;
use crate::envelope::{Envelope, HEADER_BYTES_MAX, HEADERS_MAX, PAYLOAD_BYTES_MAX};
use crate::error::{ErrorKind, HandlerError};
use crate::event::Event;
use crate::event_type::EventType;
use crate::publisher::PublishOptions;
use crate::service::Routes;
use crate::time::{Clock, SystemClock};
use crate::worker::ServiceOptions;

/// A payload over the limit and headers over theirs are refused before anything is sent.
pub async fn one_too_large_is_refused(fixture: &dyn Fixture) {
    let bus = bus(fixture).await;
    let large = vec![0_u8; PAYLOAD_BYTES_MAX + 1];
    let error = builder(large).build().expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let mut many = builder(Vec::new());
    for number in 0..=HEADERS_MAX {
        many = many.header(format!("h{number}"), "");
    }
    assert_eq!(many.build().expect_err("too many").kind(), ErrorKind::TooLarge);
    let long = builder(Vec::new()).header("h", "v".repeat(HEADER_BYTES_MAX));
    assert_eq!(long.build().expect_err("too long").kind(), ErrorKind::TooLarge);
    let full = builder(vec![0; PAYLOAD_BYTES_MAX]).header("h", "v".repeat(HEADER_BYTES_MAX - 1));
    publish(&bus, vec![full.build().expect("at the limit")]).await;
    end(bus).await;
}

fn builder(payload: Vec<u8>) -> crate::envelope::EnvelopeBuilder {
    let event_type = EventType::from_static("conformance.thing.happened");
    let content_type = ContentType::new("application/octet-stream").expect("valid");
    Envelope::builder(event_type, content_type, payload, SystemClock.now())
}

/// A failed event is tried again as the next attempt, until one succeeds.
pub async fn a_failed_event_is_tried_again(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |envelope, ctx| {
        let seen = seen.clone();
        async move {
            seen.send((envelope.id(), ctx.attempt(), ctx.position())).await?;
            if ctx.attempt() < 3 { Err("not yet".into()) } else { Ok(()) }
        }
    })
    .await;
    publish(&bus, vec![thing(Some("k"), "a")]).await;
    let tries = inbox.take(3).await;
    settled(&bus).await;
    assert_eq!(tries.iter().map(|(_, attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(tries.iter().all(|(id, _, position)| (*id, position) == (tries[0].0, &tries[0].2)));
    assert_eq!(backlog(&bus, "g").await.dead, 0);
    end(bus).await;
}

/// Attempts are spent one by one; then the event is a dead letter with its last error.
pub async fn spent_attempts_end_in_the_dead_letters(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |_, ctx| {
        let seen = seen.clone();
        async move {
            seen.send(ctx.attempt()).await?;
            Err(format!("failed {}", ctx.attempt()).into())
        }
    })
    .await;
    let event = thing(Some("k"), "a");
    publish(&bus, vec![event.clone()]).await;
    assert_eq!(inbox.take(3).await, [1, 2, 3]);
    settled(&bus).await;
    let dead = dead_letters(&bus, "g").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].record.as_ref().expect("an event"), &event);
    assert_eq!((dead[0].failure.cause, dead[0].attempts), (Cause::AttemptsSpent, 3));
    assert_eq!(dead[0].failure.errors, ["failed 3"]);
    assert_eq!(inbox.rest(), [0_u32; 0]);
    end(bus).await;
}

/// What a handler rejects is not tried again.
pub async fn a_rejected_event_is_tried_once(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |_, ctx| {
        let seen = seen.clone();
        async move {
            seen.send(ctx.attempt()).await?;
            Err(HandlerError::reject("never"))
        }
    })
    .await;
    publish(&bus, vec![thing(None, "a")]).await;
    assert_eq!(inbox.next().await, 1);
    settled(&bus).await;
    let dead = dead_letters(&bus, "g").await;
    assert_eq!((dead[0].failure.cause, dead[0].attempts), (Cause::Rejected, 1));
    assert!(inbox.rest().is_empty());
    end(bus).await;
}

/// A panic fails its event only; the others, before and after it in one lane, are handled.
pub async fn a_panic_fails_that_event_only(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |envelope, _| {
        let seen = seen.clone();
        async move {
            assert_ne!(text(&envelope), "bad", "this event is bad");
            seen.send(text(&envelope)).await?;
            Ok(())
        }
    })
    .await;
    let events = ["a", "bad", "b", "c"].map(|payload| thing(Some("k"), payload)).to_vec();
    publish(&bus, events).await;
    assert_eq!(inbox.take(3).await, ["a", "b", "c"]);
    settled(&bus).await;
    let dead = dead_letters(&bus, "g").await;
    assert_eq!(dead.len(), 1);
    assert!(dead[0].failure.errors[0].contains("this event is bad"), "{:?}", dead[0].failure);
    end(bus).await;
}

/// A handler that takes longer than its timeout is cancelled, and the event tried again.
pub async fn a_timeout_cancels_the_work(fixture: &dyn Fixture) {
    struct Cancelled(tokio::sync::mpsc::Sender<&'static str>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            let _full = self.0.try_send("dropped");
        }
    }
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    let timeout = Duration::from_millis(50);
    let options = ServiceOptions { handler_timeout: timeout, ..options(fixture) };
    handle(&bus, "g", options, move |_, ctx| {
        let seen = seen.clone();
        async move {
            if ctx.attempt() == 1 {
                let _guard = Cancelled(seen);
                std::future::pending::<()>().await;
            } else {
                seen.send("done").await?;
            }
            Ok(())
        }
    })
    .await;
    publish(&bus, vec![thing(None, "a")]).await;
    assert_eq!(inbox.take(2).await, ["dropped", "done"]);
    settled(&bus).await;
    end(bus).await;
}

/// A handler that takes longer than the lease keeps its event while its consumer lives.
pub async fn a_handler_that_outlives_its_lease_keeps_it(fixture: &dyn Fixture) {
    let (first, second) = (bus(fixture).await, bus(fixture).await);
    let mut inbox = Inbox::new();
    let long = fixture.lease().lease * 3;
    for bus in [&first, &second] {
        let seen = inbox.sender.clone();
        handle(bus, "g", options(fixture), move |_, ctx| {
            let seen = seen.clone();
            async move {
                sleep(long).await;
                seen.send(ctx.attempt()).await?;
                Ok(())
            }
        })
        .await;
    }
    publish(&first, vec![thing(None, "slow")]).await;
    let started = Instant::now();
    assert_eq!(inbox.next().await, 1);
    assert!(started.elapsed() >= long, "the handler ran to its end");
    settled(&first).await;
    assert!(inbox.rest().is_empty(), "nobody else ran it");
    end(first).await;
    end(second).await;
}

/// An event that is past its expiry is not run; it is a dead letter that says so.
pub async fn an_expired_event_is_not_run(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let old = SystemClock.now().as_millis() - 60_000;
    let event_type = EventType::from_static("conformance.thing.happened");
    let time = crate::Timestamp::from_millis(old);
    let expired = Envelope::builder(event_type, ContentType::JSON, "\"old\"", time)
        .expires_after(Duration::from_secs(1))
        .build()
        .expect("within limits");
    publish(&bus, vec![expired, thing(None, "fresh")]).await;
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |envelope, _| {
        let seen = seen.clone();
        async move {
            seen.send(text(&envelope)).await?;
            Ok(())
        }
    })
    .await;
    assert_eq!(inbox.next().await, "fresh");
    settled(&bus).await;
    assert_eq!(dead_letters(&bus, "g").await[0].failure.cause, Cause::Expired);
    assert!(inbox.rest().is_empty());
    end(bus).await;
}

/// Something in the log that is no event is a dead letter with its raw fields; the group goes on.
pub async fn a_malformed_entry_does_not_stop_the_group(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    publish(&bus, vec![thing(None, "before")]).await;
    let fields = vec![(Bytes::from_static(b"foo"), Bytes::from_static(b"bar"))];
    if !fixture.foreign(&partition(TOPIC, 0), fields.clone()).await {
        return end(bus).await;
    }
    publish(&bus, vec![thing(None, "after")]).await;
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |envelope, _| {
        let seen = seen.clone();
        async move {
            seen.send(text(&envelope)).await?;
            Ok(())
        }
    })
    .await;
    let mut came = inbox.take(2).await;
    came.sort();
    assert_eq!(came, ["after", "before"]);
    settled(&bus).await;
    let dead = dead_letters(&bus, "g").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].failure.cause, Cause::Malformed);
    assert_eq!(dead[0].record.as_ref().expect_err("no event").fields, fields);
    end(bus).await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Numbered {
    number: u64,
}

impl Event for Numbered {
    const TYPE: EventType = EventType::from_static("conformance.number.counted");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct NumberedNewer {
    number: u64,
}

impl Event for NumberedNewer {
    const TYPE: EventType = EventType::from_static("conformance.number.counted");
    const VERSION: u32 = 2;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Doubled {
    number: u64,
}

impl Event for Doubled {
    const TYPE: EventType = EventType::from_static("conformance.double.computed");
}

/// A payload that is not what the handler's type asks for is a dead letter at once.
pub async fn an_undecodable_payload_is_not_retried(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    let routes = |routes: Routes<()>| {
        routes.on_fn(move |event: Numbered, _| {
            let seen = seen.clone();
            async move {
                seen.send(event.number).await?;
                Ok(())
            }
        })
    };
    bus.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    let now = SystemClock.now();
    let odd = Envelope::builder(Numbered::TYPE, ContentType::JSON, r#"{"number":"x"}"#, now);
    publish(&bus, vec![odd.build().expect("within limits")]).await;
    bus.publish(&Numbered { number: u64::MAX }).await.expect("stored");
    assert_eq!(inbox.next().await, u64::MAX);
    settled(&bus).await;
    let dead = dead_letters(&bus, "g").await;
    assert_eq!((dead[0].failure.cause, dead[0].attempts), (Cause::Undecodable, 1));
    end(bus).await;
}

/// What nobody in the group routes is acked and counted.
pub async fn an_unrouted_event_is_acked_and_counted(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    let routes = |routes: Routes<()>| {
        routes.on_fn(move |event: Numbered, _| {
            let seen = seen.clone();
            async move {
                seen.send(event.number).await?;
                Ok(())
            }
        })
    };
    bus.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    publish(&bus, vec![thing(None, "nobody's"), thing(None, "nobody's")]).await;
    bus.publish(&Numbered { number: 7 }).await.expect("stored");
    assert_eq!(inbox.next().await, 7);
    settled(&bus).await;
    assert_eq!(bus.counts("g").unrouted, 2);
    assert_eq!(backlog(&bus, "g").await.dead, 0);
    end(bus).await;
}

/// Two versions of a service in one group: what the older one cannot route or decode, the newer
/// one handles, all of it.
pub async fn two_versions_of_a_service_share_a_group(fixture: &dyn Fixture) {
    let (older, newer) = (bus(fixture).await, bus(fixture).await);
    let (mut by_older, mut by_newer) = (Inbox::new(), Inbox::new());
    let seen = by_older.sender.clone();
    let routes = |routes: Routes<()>| {
        routes.on_fn(move |event: Numbered, _| {
            let seen = seen.clone();
            async move {
                seen.send(event.number).await?;
                Ok(())
            }
        })
    };
    older.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    let (seen, doubles) = (by_newer.sender.clone(), by_newer.sender.clone());
    let routes = |routes: Routes<()>| {
        routes
            .on_fn(move |event: NumberedNewer, _| {
                let seen = seen.clone();
                async move {
                    seen.send(event.number).await?;
                    Ok(())
                }
            })
            .on_fn(move |event: Doubled, _| {
                let doubles = doubles.clone();
                async move {
                    doubles.send(event.number).await?;
                    Ok(())
                }
            })
    };
    newer.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    let publisher = bus(fixture).await;
    let doubled: Vec<_> = (0..100).map(|number| Doubled { number }).collect();
    let second: Vec<_> = (100..200).map(|number| NumberedNewer { number }).collect();
    let answers = publisher.publish_many(&doubled).await.into_iter();
    for answer in answers.chain(publisher.publish_many(&second).await) {
        answer.expect("stored");
    }
    let mut handled = by_newer.take(200).await;
    handled.sort_unstable();
    assert_eq!(handled, (0..200).collect::<Vec<_>>());
    settled(&newer).await;
    assert!(by_older.rest().is_empty(), "the older one ran what it does not know");
    assert_eq!((older.counts("g").unrouted, newer.counts("g").unrouted), (0, 0));
    assert_eq!(backlog(&newer, "g").await.dead, 0);
    for bus in [older, newer, publisher] {
        end(bus).await;
    }
}

/// A version that no instance of the group knows is a dead letter that says so.
pub async fn a_version_that_nobody_knows_is_dead_lettered(fixture: &dyn Fixture) {
    let bus = bus(fixture).await;
    let routes = |routes: Routes<()>| routes.on_fn(|_: Numbered, _| async { Ok(()) });
    bus.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    bus.publish(&NumberedNewer { number: 1 }).await.expect("stored");
    settled(&bus).await;
    assert_eq!(dead_letters(&bus, "g").await[0].failure.cause, Cause::NewerVersion);
    end(bus).await;
}

/// What a handler publishes goes out once, with the attempt that succeeds, and names its cause.
pub async fn a_handlers_outputs_go_out_with_its_success(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let calls = Arc::new(AtomicU32::new(0));
    let routes = |routes: Routes<()>| {
        routes.on_fn(move |event: Numbered, ctx| {
            let calls = Arc::clone(&calls);
            async move {
                ctx.publish(&Doubled { number: event.number * 2 })?;
                let call = calls.fetch_add(1, Ordering::Relaxed);
                if call == 0 { Err("after the publish".into()) } else { Ok(()) }
            }
        })
    };
    bus.subscribe_routes("doubler", options(fixture), routes).await.expect("subscribed");
    let seen = inbox.sender.clone();
    let routes = |routes: Routes<()>| {
        routes.on_any_fn(Doubled::TYPE.as_str(), move |envelope, _| {
            let seen = seen.clone();
            async move {
                seen.send(envelope).await?;
                Ok(())
            }
        })
    };
    bus.subscribe_routes("reader", options(fixture), routes).await.expect("subscribed");
    let options = PublishOptions::default().correlation_id("conversation");
    let receipt = bus.publish_with(&Numbered { number: 21 }, options).await.expect("stored");
    let output = inbox.next().await;
    settled(&bus).await;
    assert_eq!(output.payload_as::<Doubled>().expect("decodes").number, 42);
    assert_eq!(output.causation_id(), Some(receipt.id.to_string().as_str()));
    assert_eq!(output.correlation_id(), Some("conversation"));
    assert!(inbox.rest().is_empty(), "the failed attempt published nothing");
    end(bus).await;
}
