//! Events of older versions, read by a program that knows a newer one.

use std::time::Duration;

use rumormill::delivery::Cause;
use rumormill::driver::GroupName;
use rumormill::{
    Bus, Clock, Codec, ContentType, Context, Envelope, ErrorKind, Event, EventType, Services,
    SystemClock,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Version 1 had one name, version 2 two, version 3 has the name as it is sorted.
#[derive(Serialize, Deserialize)]
struct CreatedV1 {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct CreatedV2 {
    first: String,
    last: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(type = "users.created", version = 3, upcasts(v1_to_v2, v2_to_v3), key = name)]
struct Created {
    name: String,
    initials: Option<String>,
}

fn v1_to_v2(CreatedV1 { name }: CreatedV1) -> CreatedV2 {
    let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
    CreatedV2 { first: first.to_owned(), last: last.to_owned() }
}

fn v2_to_v3(CreatedV2 { first, last }: CreatedV2) -> Created {
    let initials = first.chars().chain(last.chars()).filter(|c| c.is_uppercase()).collect();
    Created { name: format!("{last}, {first}"), initials: Some(initials) }
}

const TYPE: EventType = Created::TYPE;

fn ada() -> Created {
    Created { name: "Lovelace, Ada".into(), initials: Some("AL".into()) }
}

/// The same person as each version says it.
fn payload(version: u32, codec: Codec) -> Vec<u8> {
    let encoded = match version {
        1 => codec.encode(&CreatedV1 { name: "Ada Lovelace".into() }),
        2 => codec.encode(&CreatedV2 { first: "Ada".into(), last: "Lovelace".into() }),
        _ => codec.encode(&ada()),
    };
    encoded.expect("encodes")
}

#[test]
fn every_version_is_read_in_every_encoding() {
    assert_eq!((Created::OLDEST, Created::VERSION), (1, 3));
    for codec in [Codec::MessagePack, Codec::Json] {
        for version in 1..=3 {
            let read = Created::from_payload(version, codec, &payload(version, codec));
            assert_eq!(read.expect("decodes"), ada(), "version {version} in {codec}");
        }
    }
}

#[test]
fn a_payload_is_read_as_its_version_says_and_as_no_other() {
    for (payload_version, said) in [(1, 2), (2, 3), (3, 2)] {
        let payload = payload(payload_version, Codec::Json);
        let error = Created::from_payload(said, Codec::Json, &payload).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Codec);
    }
    let error = Created::from_payload(1, Codec::Json, b"{}").expect_err("refused");
    assert!(error.to_string().contains("CreatedV1"), "names the version's struct: {error}");
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(type = "users.created", version = 3, oldest = 2, upcasts(v2_to_late))]
struct Late {
    name: String,
}

fn v2_to_late(old: CreatedV2) -> Late {
    Late { name: old.first }
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(type = "users.created", version = 3)]
struct Defaults {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(type = "users.created", version = 3, oldest = 3)]
struct Only {
    name: String,
}

#[test]
fn versions_out_of_reach_are_refused_with_what_is_known() {
    let late = |version| Late::from_payload(version, Codec::Json, &payload(version, Codec::Json));
    assert_eq!(late(2).expect("decodes").name, "Ada");
    let old = late(1).expect_err("too old");
    let text = "version 1 of users.created cannot be read: this program knows versions 2 to 3";
    assert_eq!(old.to_string(), text);
    assert_eq!(old.help(), Some("add the upcasts from version 1 on"));
    let new = late(4).expect_err("too new");
    assert!(new.help().is_some_and(|help| help.contains("newer program")), "{new:?}");

    let only = Only::from_payload(2, Codec::Json, &payload(3, Codec::Json)).expect_err("too old");
    assert!(only.to_string().ends_with("knows version 3 only"), "{only}");
    assert_eq!(Only::from_payload(3, Codec::Json, br#"{"name":"x"}"#).expect("reads").name, "x");
}

#[test]
fn without_upcasts_older_versions_are_read_by_serde_defaults() {
    let old = Defaults::from_payload(1, Codec::Json, b"{}").expect("decodes");
    assert_eq!((old.name.as_str(), Defaults::OLDEST), ("", 1));
    assert!(Defaults::from_payload(4, Codec::Json, b"{}").is_err());
}

#[test]
fn an_envelope_gives_the_event_and_refuses_another_type() {
    let read: Created = envelope(TYPE, 2, payload(2, Codec::Json)).event().expect("decodes");
    assert_eq!(read, ada());
    let other = envelope(EventType::from_static("users.deleted"), 2, payload(2, Codec::Json));
    let error = other.event::<Created>().expect_err("another type");
    assert_eq!(error.to_string(), "users.deleted is no users.created");
}

fn envelope(name: EventType, version: u32, payload: Vec<u8>) -> Envelope {
    let builder = Envelope::builder(name, ContentType::JSON, payload, SystemClock.now());
    builder.version(version).build().expect("within limits")
}

async fn bus() -> Bus {
    Bus::builder().url("memory:").services(Services::none()).build().await.expect("builds")
}

async fn publish(bus: &Bus, version: u32, payload: Vec<u8>) {
    let envelope = envelope(TYPE, version, payload);
    bus.publisher().publish_envelope(envelope).await.expect("stored");
}

#[tokio::test]
async fn a_handler_sees_only_the_newest_version() {
    let bus = bus().await;
    let (seen, mut came) = mpsc::channel(8);
    let handler = move |event: Created, ctx: Context| {
        let seen = seen.clone();
        async move { Ok(seen.send((ctx.envelope().version(), event)).await?) }
    };
    bus.subscribe("reader", handler).await.expect("subscribed");
    for version in [1, 2] {
        publish(&bus, version, payload(version, Codec::Json)).await;
    }
    bus.publish(&ada()).await.expect("stored");
    let mut versions = Vec::new();
    for _ in 0..3 {
        let next = tokio::time::timeout(Duration::from_secs(10), came.recv());
        let (version, event) = next.await.expect("in time").expect("open");
        assert_eq!(event, ada());
        versions.push(version);
    }
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3]);
    bus.drain(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_version_out_of_reach_is_a_dead_letter_that_says_so() {
    let bus = bus().await;
    bus.subscribe("reader", |_: Late, _: Context| async { Ok(()) }).await.expect("subscribed");
    publish(&bus, 1, payload(1, Codec::Json)).await;
    publish(&bus, 4, payload(3, Codec::Json)).await;
    bus.settled().await.expect("settles");
    let group = GroupName::new("reader").expect("valid");
    let tools = bus.driver().tools().expect("memory has tools");
    let dead = tools.dead_letters(&group, 10).await.expect("listed");
    let mut found: Vec<_> =
        dead.iter().map(|dead| (dead.failure.cause, dead.failure.errors[0].clone())).collect();
    found.sort_by_key(|(cause, _)| *cause != Cause::Undecodable);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].0, Cause::Undecodable);
    assert!(found[0].1.starts_with("version 1 of users.created cannot be read"), "{found:?}");
    assert_eq!(found[1].0, Cause::NewerVersion);
    bus.drain(Duration::from_secs(10)).await;
}
