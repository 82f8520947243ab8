//! Typed handlers: they get the type they ask for, in the version they know, and what they publish
//! goes out with their success.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::Fixture;
use super::workshop::{Inbox, backlog, bus, dead_letters, end, options, publish, settled, thing};
use crate::codec::{Codec, ContentType};
use crate::delivery::Cause;
use crate::envelope::Envelope;
use crate::event::Event;
use crate::event_type::EventType;
use crate::publisher::PublishOptions;
use crate::service::Routes;
use crate::time::{Clock, SystemClock};

/// What the publisher knows: one field more than the reader.
#[derive(serde::Serialize, serde::Deserialize)]
struct Richer {
    large: u64,
    small: i64,
    blob: Bytes,
    absent: Option<String>,
    present: Option<String>,
    unknown: Vec<String>,
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Rich {
    large: u64,
    small: i64,
    blob: Bytes,
    absent: Option<String>,
    present: Option<String>,
    #[serde(default)]
    not_sent: Option<u32>,
}

const RICH: EventType = EventType::from_static("conformance.rich.made");

impl Event for Richer {
    const TYPE: EventType = RICH;
}

impl Event for Rich {
    const TYPE: EventType = RICH;
}

/// Integers beyond 2^53, byte strings, optional and unknown fields arrive as the type that the
/// handler asks for, in either codec.
pub async fn rich_payloads_arrive_as_they_were(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    let routes = |routes: Routes<()>| {
        routes.on_fn(move |event: Rich, _| {
            let seen = seen.clone();
            async move {
                seen.send(event).await?;
                Ok(())
            }
        })
    };
    bus.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    let blob: Bytes = (0..=255).collect();
    for codec in [Codec::MessagePack, Codec::Json] {
        let sent = Richer {
            large: u64::MAX,
            small: i64::MIN,
            blob: blob.clone(),
            absent: None,
            present: Some("\u{1f600}".to_owned()),
            unknown: vec!["x".to_owned()],
        };
        let options = PublishOptions::default().codec(codec);
        bus.publish_with(&sent, options).await.expect("stored");
        let Richer { large, small, blob, absent, present, .. } = sent;
        let expected = Rich { large, small, blob, absent, present, not_sent: None };
        assert_eq!(inbox.next().await, expected, "{codec}");
    }
    settled(&bus).await;
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

/// Routes that write the numbers of [`Numbered`] into an inbox.
fn numbers(inbox: &Inbox<u64>) -> impl FnOnce(Routes<()>) -> Routes<()> + use<> {
    let seen = inbox.sender.clone();
    move |routes| {
        routes.on_fn(move |event: Numbered, _| {
            let seen = seen.clone();
            async move {
                seen.send(event.number).await?;
                Ok(())
            }
        })
    }
}

/// A payload that is not what the handler's type asks for is a dead letter at once.
pub async fn an_undecodable_payload_is_not_retried(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let routes = numbers(&inbox);
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
    let routes = numbers(&inbox);
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
    let routes = numbers(&by_older);
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

/// The same where a pattern of the group matches as well: the type's own handler decides.
pub async fn a_pattern_does_not_stand_in_for_a_newer_version(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    let routes = |routes: Routes<()>| {
        routes.on_fn(|_: Numbered, _| async { Ok(()) }).on_any_fn("conformance.>", move |_, _| {
            let seen = seen.clone();
            async move {
                seen.send(()).await?;
                Ok(())
            }
        })
    };
    bus.subscribe_routes("g", options(fixture), routes).await.expect("subscribed");
    bus.publish(&NumberedNewer { number: 1 }).await.expect("stored");
    bus.publish(&Doubled { number: 1 }).await.expect("stored");
    inbox.next().await;
    settled(&bus).await;
    assert_eq!(dead_letters(&bus, "g").await[0].failure.cause, Cause::NewerVersion);
    assert!(inbox.rest().is_empty());
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
