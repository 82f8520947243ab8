//! Chance: random ends in random order, and random crashes, held against a model. The seeds are
//! fixed and named where a scenario fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Fixture;
use super::kit::{
    Client, Consumer, DEADLINE, TOPIC, dead_letter, group, partition, payload, retry, split, texts,
};
use crate::delivery::{Entry, Outcome, Settled};
use crate::driver::Backlog;

/// What the model knows of an event: the retries it had, and how often it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    retries: u32,
    acks: u32,
    deaths: u32,
}

/// Events in batches of all sizes, two consumers, every end by chance, in any order: each event
/// ends once, with the attempts that its retries make.
pub async fn random_ends_account_for_every_event(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumers = (client.join("readers").await, client.join("readers").await);
    let mut dead = 0;
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let sent = texts(&format!("seed {seed} event "), 60);
        publish_in_batches(&client, &mut random, &sent).await;
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        while known.values().map(|known| known.acks + known.deaths).sum::<u32>() < 60 {
            let (consumer, entries) = either(&mut consumers, random.usize(1..10)).await;
            let mut deliveries: Vec<_> = entries.iter().flat_map(Entry::deliveries).collect();
            random.shuffle(&mut deliveries);
            let settlements = deliveries.into_iter().map(|delivery| {
                let own = known.entry(payload(&delivery)).or_default();
                assert_eq!(delivery.attempt(), own.retries + 1, "seed {seed}: {own:?}");
                delivery.settle(choose(&mut random, own))
            });
            let settlements: Vec<_> = settlements.collect();
            let done = vec![Settled::Done; settlements.len()];
            assert_eq!(consumer.settle(settlements).await, done, "seed {seed}");
        }
        assert_eq!(known.len(), 60, "seed {seed}");
        assert!(known.values().all(|own| own.acks + own.deaths == 1), "seed {seed}: {known:?}");
        dead += u64::from(known.values().map(|own| own.deaths).sum::<u32>());
        client.settles_to("readers", Backlog { dead, ..Backlog::default() }).await;
    }
    let Some(tools) = client.driver.tools() else { return };
    let letters = tools.dead_letters(&group("readers"), 1_000).await.expect("dead letters");
    assert_eq!(letters.len() as u64, dead);
    assert!(letters.iter().all(|letter| letter.origin.partition == partition(TOPIC, 0)));
}

fn choose(random: &mut fastrand::Rng, own: &mut Known) -> Outcome {
    match random.u8(0..8) {
        0 | 1 => {
            own.retries += 1;
            retry(Duration::from_millis(random.u64(0..20)))
        }
        2 => split(),
        3 => {
            own.deaths += 1;
            dead_letter()
        }
        _ => {
            own.acks += 1;
            Outcome::ack()
        }
    }
}

/// What comes first to either of two consumers.
async fn either(
    (first, second): &mut (Consumer, Consumer),
    budget: usize,
) -> (&Consumer, Vec<Arc<Entry>>) {
    let fetched = timeout(DEADLINE, async {
        tokio::select! {
            entries = first.fetch(budget) => (true, entries),
            entries = second.fetch(budget) => (false, entries),
        }
    });
    let (is_first, entries) = fetched.await.expect("entries in time");
    (if is_first { first } else { second }, entries)
}

async fn publish_in_batches(client: &Client, random: &mut fastrand::Rng, sent: &[String]) {
    let mut rest = sent;
    while !rest.is_empty() {
        let size = random.usize(1..=rest.len().min(7));
        client.publish_batch(&rest[..size]).await;
        rest = &rest[size..];
    }
}

/// Consumers that die with work in hand, having settled some of it: every event ends once, and
/// what was settled before a crash is not handed out after it.
pub async fn random_crashes_lose_nothing(fixture: &dyn Fixture) {
    const CRASHES: usize = 6;
    let client = Client::new(fixture).await;
    let mut random = fastrand::Rng::with_seed(7);
    let sent = texts("event ", 80);
    publish_in_batches(&client, &mut random, &sent).await;
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    let mut crashes = 0;
    let mut consumer = client.join("readers").await;
    while known.values().map(|known| known.acks + known.deaths).sum::<u32>() < 80 {
        let entries = consumer.fetch(random.usize(4..16)).await;
        let mut deliveries: Vec<_> = entries.iter().flat_map(Entry::deliveries).collect();
        random.shuffle(&mut deliveries);
        let crash = crashes < CRASHES && random.bool();
        if crash {
            deliveries.truncate(random.usize(0..=deliveries.len()));
        }
        let settlements = deliveries.into_iter().map(|delivery| {
            let own = known.entry(payload(&delivery)).or_default();
            assert_eq!(delivery.attempt(), own.retries + 1, "{own:?}");
            assert_eq!(own.acks + own.deaths, 0, "{} is settled", payload(&delivery));
            delivery.settle(choose(&mut random, own))
        });
        let settlements: Vec<_> = settlements.collect();
        let done = vec![Settled::Done; settlements.len()];
        assert_eq!(consumer.settle(settlements).await, done);
        if crash {
            crashes += 1;
            drop(consumer);
            consumer = client.join("readers").await;
        }
    }
    assert_eq!(crashes, CRASHES);
    let dead = known.values().map(|own| u64::from(own.deaths)).sum();
    client.settles_to("readers", Backlog { dead, ..Backlog::default() }).await;
}
