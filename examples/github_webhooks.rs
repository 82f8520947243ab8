//! Real webhooks through three services: what each pattern and each repository got.
//!
//! ```text
//! cargo run --example github_webhooks
//! cargo run --example github_webhooks -- --url redis://127.0.0.1:6379
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use rumormill::{Bus, Clock, ContentType, Context, Envelope, EventType, Services, SystemClock};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The services and what each wants.
const SERVICES: [(&str, &str); 3] =
    [("issues", "github.issues.*"), ("reviews", "github.pull_request.>"), ("audit", "github.>")];

const WEBHOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/github-webhooks.ndjson");

/// Real webhooks through three services.
#[derive(Parser)]
struct Args {
    /// Where the events are: memory:, redis://host:port, unix:///path
    #[arg(long, default_value = "memory:")]
    url: String,
    /// One webhook a line: type, key, data
    #[arg(long, default_value = WEBHOOKS)]
    from: std::path::PathBuf,
}

#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(rename = "type")]
    event_type: String,
    key: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Per service and repository, how many webhooks came.
type Counts = Arc<Mutex<BTreeMap<(&'static str, String), u64>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let bus = Bus::builder()
        .url(&args.url)
        .source("github_webhooks")
        .services(Services::none())
        .build()
        .await?;
    let counts = Counts::default();
    for (service, pattern) in SERVICES {
        let counts = Arc::clone(&counts);
        bus.subscribe_any(service, pattern, move |webhook: Envelope, _: Context| {
            let repository = webhook.key().unwrap_or("(none)").to_owned();
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry((service, repository)).or_default() += 1;
            std::future::ready(Ok(()))
        })
        .await?;
    }
    let text = std::fs::read_to_string(&args.from)?;
    let webhooks = text.lines().map(envelope).collect::<Result<Vec<_>, _>>()?;
    for answer in bus.publisher().publish_envelopes(webhooks).await {
        answer?;
    }
    bus.settled().await?;
    bus.drain(rumormill::DRAIN_DEADLINE).await;
    print(&counts.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn envelope(line: &str) -> Result<Envelope, Box<dyn Error>> {
    let webhook: Webhook<'_> = serde_json::from_str(line)?;
    let now = SystemClock.now();
    let event_type = EventType::new(webhook.event_type)?;
    let payload = webhook.data.get().to_owned();
    Ok(Envelope::builder(event_type, ContentType::JSON, payload, now).key(webhook.key).build()?)
}

fn print(counts: &BTreeMap<(&'static str, String), u64>) {
    let count = |service: &str, repository: Option<&str>| -> u64 {
        let chosen = counts.iter().filter(|((own, key), _)| {
            *own == service && repository.is_none_or(|repository| repository == key)
        });
        chosen.map(|(_, count)| count).sum()
    };
    let head = SERVICES.map(|(_, pattern)| format!("{pattern:>23}")).concat();
    println!("{:<50}{head}", "repository");
    let mut repositories: Vec<&str> = counts.keys().map(|(_, key)| key.as_str()).collect();
    repositories.sort_unstable();
    repositories.dedup();
    for repository in repositories {
        let row = SERVICES.map(|(service, _)| format!("{:>23}", count(service, Some(repository))));
        println!("{repository:<50}{}", row.concat());
    }
    println!("{:<50}{}", "all", SERVICES.map(|(s, _)| format!("{:>23}", count(s, None))).concat());
}
