//! Futures that are dropped at any await: each is polled n times and dropped, for every n until
//! it gets done.

use super::Fixture;
use super::kit::{
    Client, DEADLINE, TOPIC, all, dead_letter, entry, event, output, partition, payload, payloads,
    polled, settle, texts,
};
use crate::delivery::{Entry, Outcome, Settled, Settlement};
use crate::driver::Backlog;

/// More polls than any of these futures needs.
const POLLS_MAX: usize = 12;

/// What a dropped fetch would have returned, the next one does.
pub async fn fetch_dropped_at_any_await_loses_nothing(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let mut completed = false;
    for polls in 0..POLLS_MAX {
        for waiting in [false, true] {
            let sent = texts(&format!("{polls} {waiting} "), 3);
            if !waiting {
                client.publish(&sent).await;
            }
            let publish = async {
                if waiting {
                    client.publish(&sent).await;
                }
            };
            let fetch = polled(consumer.feed.source.fetch(3), polls);
            let fetched = tokio::time::timeout(DEADLINE, async { tokio::join!(fetch, publish).0 });
            let fetched = fetched.await.expect("fetched or dropped");
            completed |= fetched.is_some();
            let entries = fetched.map_or(Vec::new(), |entries| entries.expect("a working source"));
            let entries = entries.into_iter().map(std::sync::Arc::new);
            let mut taken: Vec<_> =
                entries.flat_map(|entry| Entry::deliveries(&entry).collect::<Vec<_>>()).collect();
            taken.extend(consumer.take(3 - taken.len()).await);
            assert_eq!(payloads(&taken), sent, "{polls} polls");
            consumer.ack(&taken).await;
        }
    }
    assert!(completed, "a fetch is not done after {POLLS_MAX} polls");
}

/// Each batch of a dropped append is stored whole and once, or not at all; one that answered is
/// stored.
pub async fn append_dropped_at_any_await_is_whole_or_absent(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let log = partition(TOPIC, 0);
    let mut completed = false;
    for polls in 0..POLLS_MAX {
        let batches = [texts(&format!("{polls} first "), 3), texts(&format!("{polls} second "), 2)];
        let append = |batch: &Vec<String>| {
            entry(&log, batch.iter().map(|text| event(text.clone())).collect())
        };
        let append = client.driver.append(batches.iter().map(append).collect());
        let answered = polled(append, polls).await;
        completed |= answered.is_some();
        let stored = answered.map(|answers| answers.iter().all(Result::is_ok));
        client.publish(&["end"]).await;
        let mut found = Vec::new();
        while found.last().is_none_or(|last| *last != ["end"]) {
            for entry in consumer.fetch(10).await {
                let deliveries: Vec<_> = entry.deliveries().collect();
                consumer.ack(&deliveries).await;
                found.push(payloads(&deliveries));
            }
        }
        found.pop();
        assert!(batches.starts_with(&found), "{polls} polls: {found:?}");
        assert!(stored != Some(true) || found == batches, "{polls} polls: {found:?}");
        assert!(polls > 0 || found.is_empty(), "what was never polled does nothing");
    }
    assert!(completed, "an append is not done after {POLLS_MAX} polls");
}

/// A dropped subscribe leaves at most the group, and everything for its first consumer.
pub async fn subscribe_dropped_at_any_await_loses_nothing(fixture: &dyn Fixture) {
    const GROUPS: [&str; POLLS_MAX] =
        ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9", "g10", "g11"];
    let client = Client::patient(fixture).await;
    let sent = texts("event ", 5);
    client.publish(&sent).await;
    for (polls, group) in GROUPS.into_iter().enumerate() {
        drop(polled(client.driver.subscribe(client.wish(group)), polls).await);
        let mut consumer = client.join(group).await;
        assert_eq!(consumer.handle(5).await, sent, "{polls} polls");
        client.settles_to(group, Backlog::default()).await;
    }
    client.publish(&["later"]).await;
    let mut last = client.join(GROUPS[POLLS_MAX - 1]).await;
    assert_eq!(last.handle(1).await, ["later"]);
}

/// A dropped settle has applied each settlement whole or not at all; repeating it mends that.
pub async fn settle_dropped_at_any_await_is_whole_or_absent(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut wish = client.wish("readers");
    wish.routes = vec![("conformance.>".parse().expect("a pattern"), None)];
    let mut consumer = client.subscribe(wish).await;
    client.declare("outputs").await;
    let mut mailer = client.join("mailers").await;
    let mut completed = false;
    for polls in 0..POLLS_MAX {
        client.publish_batch(&["published", "buried", "acked"]).await;
        assert_eq!(mailer.handle(3).await, ["published", "buried", "acked"]);
        let deliveries = consumer.take(3).await;
        let settlements: Vec<Settlement> = deliveries
            .iter()
            .map(|delivery| match payload(delivery).as_str() {
                "published" => {
                    let outputs = vec![output("outputs", "mail")];
                    delivery.clone().settle(Outcome::Ack { outputs })
                }
                "buried" => delivery.clone().settle(dead_letter()),
                _ => delivery.clone().settle(Outcome::ack()),
            })
            .collect();
        let settler = std::sync::Arc::clone(&consumer.feed.settler);
        completed |= polled(settler.settle(settlements.clone()), polls).await.is_some();
        let answers = settle(&*settler, settlements).await;
        assert!(!answers.contains(&Settled::LeaseLost), "{polls} polls: {answers:?}");
        assert_eq!(mailer.handle(1).await, ["mail"], "{polls} polls");
        let again = consumer.settle(all(&deliveries, &dead_letter())).await;
        assert_eq!(again, [Settled::Already; 3]);
        let dead = polls as u64 + 1;
        client.settles_to("readers", Backlog { dead, ..Backlog::default() }).await;
    }
    mailer.gets_nothing(super::kit::WATCH).await;
    assert!(completed, "a settle is not done after {POLLS_MAX} polls");
}
