//! Outputs: what a handler publishes is in its log with the end of the delivery, or not at all.

use super::Fixture;
use super::kit::{Client, WATCH, all, event, output, partition, payloads, settle, sorted, topic};
use super::leases::{Rivals, rivals};
use crate::delivery::{Outcome, Output, Settled};
use crate::driver::Backlog;

const OUTPUTS: &str = "outputs";

fn publishes(payload: &'static str) -> Outcome {
    Outcome::Ack { outputs: vec![output(OUTPUTS, payload)] }
}

/// The outputs come with the ack, once; a repeat brings no second.
pub async fn outputs_appear_with_the_end_and_never_without(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut wish = client.wish("readers");
    wish.routes = vec![("conformance.>".parse().expect("a pattern"), None)];
    let mut consumer = client.subscribe(wish).await;
    let mut wish = client.wish("mailers");
    wish.routes = vec![("outputs.>".parse().expect("a pattern"), None)];
    let mut mailer = client.subscribe(wish).await;
    client.declare(OUTPUTS).await;
    client.publish_batch(&["a", "b"]).await;
    let deliveries = consumer.take(2).await;
    mailer.gets_nothing(WATCH).await;
    let expected = event("mail for a");
    let outcome = Outcome::Ack {
        outputs: vec![Output { partition: partition(OUTPUTS, 0), envelope: expected.clone() }],
    };
    consumer.end(&deliveries[..1], &outcome).await;
    let mails = mailer.take(1).await;
    assert_eq!(mails[0].record(), &Ok(expected));
    mailer.ack(&mails).await;
    let repeated = consumer.settle(all(&deliveries[..1], &outcome)).await;
    assert_eq!(repeated, [Settled::Already]);
    consumer.ack(&deliveries[1..]).await;
    mailer.gets_nothing(WATCH).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// One handler's outputs may go to several partitions and its own topic, and keep their order in
/// each.
pub async fn outputs_go_to_several_partitions(fixture: &dyn Fixture) {
    fixture.partitions(&topic(OUTPUTS), 2).await;
    let client = Client::patient(fixture).await;
    client.declare(OUTPUTS).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["a"]).await;
    let deliveries = consumer.take(1).await;
    let to =
        |index, payload| Output { partition: partition(OUTPUTS, index), envelope: event(payload) };
    let outputs = vec![
        to(0, "0 first"),
        to(1, "1 first"),
        output(super::kit::TOPIC, "own"),
        to(0, "0 second"),
        to(1, "1 second"),
    ];
    consumer.end(&deliveries, &Outcome::Ack { outputs }).await;
    let published = consumer.take(5).await;
    assert_eq!(sorted(&published), ["0 first", "0 second", "1 first", "1 second", "own"]);
    for index in [0, 1] {
        let mut own = published.clone();
        own.retain(|delivery| delivery.entry.partition == partition(OUTPUTS, index));
        assert_eq!(payloads(&own), [format!("{index} first"), format!("{index} second")]);
    }
    consumer.ack(&published).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A consumer that lost its lease publishes nothing; the holder's outputs come once.
pub async fn a_lost_lease_publishes_nothing(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    client.declare(OUTPUTS).await;
    let Rivals { stale, lost, mut heir, held } = rivals(&client).await;
    let answers = settle(&*stale, all(&lost, &publishes("lost"))).await;
    assert_eq!(answers, [Settled::LeaseLost; 2]);
    heir.end(&held, &publishes("held")).await;
    let late = settle(&*stale, all(&lost, &publishes("late"))).await;
    assert_eq!(late, [Settled::Already; 2]);
    assert_eq!(heir.handle(2).await, ["held", "held"]);
    heir.gets_nothing(WATCH).await;
}
