//! Handlers: what becomes of an event by what its handler does.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::Fixture;
use super::kit::{TOPIC, partition};
use super::workshop::{
    Inbox, backlog, bus, collect, dead_letters, end, handle, mortal, options, publish, settled,
    text, thing,
};
use crate::codec::ContentType;
use crate::delivery::Cause;
use crate::envelope::{Envelope, HEADER_BYTES_MAX, HEADERS_MAX, PAYLOAD_BYTES_MAX};
use crate::error::{ErrorKind, HandlerError};
use crate::event_type::EventType;
use crate::service::ServiceOptions;
use crate::time::{Clock, SystemClock};

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
        handle(bus, "g", mortal(fixture), move |_, ctx| {
            let seen = seen.clone();
            async move {
                sleep(long).await;
                seen.send(ctx.attempt()).await?;
                Ok(())
            }
        })
        .await;
    }
    // It may run before its publisher hears that it is stored.
    let started = Instant::now();
    publish(&first, vec![thing(None, "slow")]).await;
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
    collect(&bus, "g", options(fixture), &inbox).await;
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
    collect(&bus, "g", options(fixture), &inbox).await;
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
