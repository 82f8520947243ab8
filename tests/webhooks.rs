//! Real webhooks through three services with eight lanes and handlers of random length: what each
//! got is held against a plain scan of the file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::{
    Bus, Clock, ContentType, Envelope, EventType, Pattern, ServiceOptions, Services, SystemClock,
};
use serde::Deserialize;
use serde_json::value::RawValue;

mod server;

const WEBHOOKS: &str = include_str!("../examples/data/github-webhooks.ndjson");

/// The services, what each wants, and how many that is by a plain scan.
const SERVICES: [(&str, &str, usize); 3] = [
    ("issues", "github.issues.*", 20),
    ("reviews", "github.pull_request.>", 20),
    ("audit", "github.>", 219),
];

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    event_type: String,
    key: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Type, key and payload, as they were sent or came.
type Webhook = (String, Option<String>, String);

fn webhooks() -> Vec<Webhook> {
    let parse = |line| {
        let line: Line<'_> = serde_json::from_str(line).expect("a webhook");
        (line.event_type, line.key, line.data.get().to_owned())
    };
    WEBHOOKS.lines().map(parse).collect()
}

fn envelope((event_type, key, data): &Webhook) -> Envelope {
    let event_type = EventType::new(event_type.clone()).expect("a type");
    Envelope::builder(event_type, ContentType::JSON, data.clone(), SystemClock.now())
        .key(key.clone())
        .build()
        .expect("within limits")
}

fn as_sent(envelope: &Envelope) -> Webhook {
    let data = String::from_utf8(envelope.payload().to_vec()).expect("JSON is UTF-8");
    (envelope.event_type().to_string(), envelope.key().map(str::to_owned), data)
}

fn by_repository(webhooks: &[Webhook]) -> BTreeMap<&str, Vec<&Webhook>> {
    let mut groups: BTreeMap<&str, Vec<&Webhook>> = BTreeMap::new();
    for webhook in webhooks {
        groups.entry(webhook.1.as_deref().unwrap_or_default()).or_default().push(webhook);
    }
    groups
}

async fn every_service_gets_its_webhooks_in_order(bus: Bus) {
    let came: Vec<Arc<Mutex<Vec<Webhook>>>> = SERVICES.iter().map(|_| Arc::default()).collect();
    for ((group, pattern, _), came) in SERVICES.iter().zip(&came) {
        let options = ServiceOptions { lanes: 8, ..ServiceOptions::default() };
        let came = Arc::clone(came);
        let handler = move |envelope: Envelope, _| {
            let came = Arc::clone(&came);
            async move {
                // waits: for nothing; the delay itself is the test, it shuffles the lanes.
                let delay = Duration::from_micros(fastrand::u64(0..2_000));
                tokio::time::sleep(delay).await;
                came.lock().expect("no handler panics").push(as_sent(&envelope));
                Ok(())
            }
        };
        bus.subscribe_routes(group, options, |routes| routes.on_any_fn(pattern, handler))
            .await
            .expect("subscribed");
    }
    let sent = webhooks();
    let envelopes = sent.iter().map(envelope).collect();
    for answer in bus.publisher().publish_envelopes(envelopes).await {
        answer.expect("stored");
    }
    let settled = tokio::time::timeout(Duration::from_secs(60), bus.settled()).await;
    settled.expect("in time").expect("the store tells");
    for ((_, pattern, count), came) in SERVICES.iter().zip(came) {
        let pattern: Pattern = pattern.parse().expect("a pattern");
        let matches = |webhook: &Webhook| pattern.matches(&webhook.0.parse().expect("a type"));
        let scanned: Vec<Webhook> =
            sent.iter().filter(|webhook| matches(webhook)).cloned().collect();
        let came = came.lock().expect("no handler panics").clone();
        assert_eq!((scanned.len(), came.len()), (*count, *count), "{pattern}");
        let (mut expected, mut got) = (by_repository(&scanned), by_repository(&came));
        let unordered = |keyless: Option<Vec<&Webhook>>| {
            let mut keyless: Vec<Webhook> =
                keyless.unwrap_or_default().into_iter().cloned().collect();
            keyless.sort();
            keyless
        };
        assert_eq!(unordered(got.remove("")), unordered(expected.remove("")), "{pattern}");
        assert_eq!(got, expected, "{pattern}: in order within each repository, byte for byte");
    }
    bus.drain(Duration::from_secs(5)).await;
}

#[test]
fn the_file_is_what_it_is_said_to_be() {
    let webhooks = webhooks();
    let repositories = by_repository(&webhooks).keys().filter(|key| !key.is_empty()).count();
    assert_eq!((webhooks.len(), repositories), (219, 13));
}

#[tokio::test(start_paused = true)]
async fn every_service_gets_its_webhooks_on_memory() {
    let bus = Bus::builder().services(Services::none()).build().await.expect("a memory bus");
    every_service_gets_its_webhooks_in_order(bus).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_service_gets_its_webhooks_on_redis() {
    let server = server::Server::start();
    let builder = Bus::builder().url(server.url()).services(Services::none());
    every_service_gets_its_webhooks_in_order(builder.build().await.expect("connected")).await;
}
