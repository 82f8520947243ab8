//! How deliveries end: ack, retry, dead letter, and each only once.

use std::time::Duration;

use tokio::time::Instant;

use super::Fixture;
use super::kit::{
    CLOCK_SLACK, Client, WATCH, all, comeback, dead_letter, failure, group, payload, retry, sorted,
    split, texts,
};
use crate::delivery::{Cause, Delivery, Failure, Outcome, Queue, Settled, Site};
use crate::driver::Backlog;

/// What was acked does not come again: not to its consumer, and not after its death.
pub async fn ack_removes(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["a", "b"]).await;
    client.publish_batch(&["c", "d"]).await;
    assert_eq!(consumer.handle(4).await, ["a", "b", "c", "d"]);
    client.settles_to("readers", Backlog::default()).await;
    consumer.crash();
    let mut next = client.join("readers").await;
    next.gets_nothing(comeback(fixture)).await;
}

/// The events of one entry end one by one, in any order, by any number of calls.
pub async fn parts_of_an_entry_may_be_acked_in_any_order(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish_batch(&texts("event ", 10)).await;
    let deliveries = consumer.take(10).await;
    for index in [7, 3, 9] {
        consumer.ack(&deliveries[index..=index]).await;
    }
    let mut rest: Vec<Delivery> = deliveries.clone();
    rest.retain(|delivery| ![7, 3, 9].contains(&delivery.index));
    rest.reverse();
    consumer.ack(&rest).await;
    assert_eq!(consumer.settle(all(&deliveries, &Outcome::ack())).await, [Settled::Already; 10]);
    client.settles_to("readers", Backlog::default()).await;
}

/// A retry comes after its delay, as attempt 2 of the same event.
pub async fn retry_comes_after_its_delay_with_attempt_2_and_same_id_time_key(
    fixture: &dyn Fixture,
) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish(&["before", "retried", "behind"]).await;
    let deliveries = consumer.take(3).await;
    let (delay, start) = (Duration::from_millis(300), Instant::now());
    consumer.end(&deliveries[1..2], &retry(delay)).await;
    consumer.ack(&[deliveries[0].clone(), deliveries[2].clone()]).await;
    client.keeps_back("readers", start, delay).await;
    let again = consumer.take(1).await;
    assert!(start.elapsed() + CLOCK_SLACK >= delay, "it came after {:?}", start.elapsed());
    assert_eq!(again[0].record(), deliveries[1].record());
    let (first, second) = (deliveries[1].record().as_ref(), again[0].record().as_ref());
    let (first, second) = (first.expect("an event"), second.expect("an event"));
    assert_eq!((first.id(), first.time(), first.key()), (second.id(), second.time(), second.key()));
    assert_eq!((again[0].attempt(), again[0].entry.queue), (2, Queue::Retry));
    assert_eq!(again[0].origin(), deliveries[1].origin());
    consumer.end(&again, &retry(Duration::ZERO)).await;
    let third = consumer.take(1).await;
    assert_eq!((third[0].attempt(), third[0].origin()), (3, deliveries[1].origin()));
    consumer.ack(&third).await;
    client.settles_to("readers", Backlog::default()).await;
}

/// A retry without a delay does not wait, and wakes a consumer that does.
pub async fn retry_at_once_comes_at_once(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut first = client.join("readers").await;
    let mut second = client.join("readers").await;
    client.publish(&["event"]).await;
    let deliveries = first.take(1).await;
    first.feed.source.close().await;
    let at_once = retry(Duration::ZERO);
    let (again, ()) = tokio::join!(second.take(1), first.end(&deliveries, &at_once));
    assert_eq!((payload(&again[0]).as_str(), again[0].attempt()), ("event", 2));
    second.ack(&again).await;
}

/// A retry is the group's own: no other group sees it.
pub async fn a_retry_belongs_to_its_group(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut failing = client.join("failing").await;
    let mut other = client.join("other").await;
    client.publish(&["event"]).await;
    let deliveries = failing.take(1).await;
    failing.end(&deliveries, &retry(Duration::ZERO)).await;
    assert_eq!(failing.handle(1).await, ["event"]);
    assert_eq!(other.handle(1).await, ["event"]);
    other.gets_nothing(WATCH).await;
}

/// A dead letter tells everything: the event, where it lay, why, how often, and who gave up.
pub async fn reject_goes_to_the_dead_letters_with_its_cause(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish_batch(&["good", "bad", "worse"]).await;
    let deliveries = consumer.take(3).await;
    let rejected = Failure {
        cause: Cause::Rejected,
        errors: vec!["no such user".into(), "line one\nline two".into()],
        site: Site { handler: "orders.>".into(), version: "1.2.3".into(), host: "h7".into() },
    };
    consumer.end(&deliveries[1..2], &Outcome::DeadLetter { failure: rejected.clone() }).await;
    consumer.end(&deliveries[2..], &retry(Duration::ZERO)).await;
    consumer.ack(&deliveries[..1]).await;
    let again = consumer.take(1).await;
    consumer.end(&again, &dead_letter()).await;
    client.settles_to("readers", Backlog { dead: 2, ..Backlog::default() }).await;
    consumer.gets_nothing(WATCH).await;
    let Some(tools) = client.driver.tools() else { return };
    let dead = tools.dead_letters(&group("readers"), 10).await.expect("dead letters");
    assert_eq!(dead.len(), 2);
    assert!(dead[0].id < dead[1].id);
    let own = &consumer.feed.consumer;
    for (letter, delivery, failure, attempts) in
        [(&dead[0], &deliveries[1], rejected, 1), (&dead[1], &deliveries[2], failure(), 2)]
    {
        assert_eq!(&letter.record, delivery.record());
        assert_eq!((&letter.origin, letter.first_id), (&delivery.origin(), letter.id));
        assert_eq!(letter.first_seen().as_millis(), letter.origin.entry.millis);
        assert_eq!((&letter.failure, letter.attempts, &letter.consumer), (&failure, attempts, own));
    }
    let oldest = tools.dead_letters(&group("readers"), 1).await.expect("dead letters");
    assert_eq!(oldest, dead[..1]);
}

/// Whatever its end, a delivery ends once; a repeat changes nothing.
pub async fn settle_twice_answers_already(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    for (name, outcome) in
        [("ack", Outcome::ack()), ("retry", retry(Duration::ZERO)), ("dead letter", dead_letter())]
    {
        client.publish(&[name]).await;
        let deliveries = consumer.take(1).await;
        consumer.end(&deliveries, &outcome).await;
        for repeat in [outcome, Outcome::ack(), retry(Duration::ZERO), dead_letter(), split()] {
            let repeated = consumer.settle(all(&deliveries, &repeat)).await;
            assert_eq!(repeated, [Settled::Already], "{name}, then {repeat:?}");
        }
        if name == "retry" {
            assert_eq!(consumer.handle(1).await, ["retry"]);
        }
    }
    client.publish_batch(&["a", "b"]).await;
    let deliveries = consumer.take(2).await;
    consumer.ack(&deliveries[..1]).await;
    let twice = [deliveries[0].clone(), deliveries[1].clone(), deliveries[1].clone()];
    let answers = consumer.settle(all(&twice, &dead_letter())).await;
    assert_eq!(answers, [Settled::Already, Settled::Done, Settled::Already]);
    client.settles_to("readers", Backlog { dead: 2, ..Backlog::default() }).await;
    consumer.gets_nothing(WATCH).await;
}

/// One call may end events of several entries in every way, and answers in its order.
pub async fn one_call_may_hold_every_outcome(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    client.publish_batch(&["retry", "dead letter", "ack"]).await;
    client.publish_batch(&["split", "ack too"]).await;
    let deliveries = consumer.take(5).await;
    let mut settlements: Vec<_> = deliveries
        .iter()
        .map(|delivery| match payload(delivery).as_str() {
            "retry" => delivery.clone().settle(retry(Duration::ZERO)),
            "dead letter" => delivery.clone().settle(dead_letter()),
            "split" => delivery.clone().settle(split()),
            _ => delivery.clone().settle(Outcome::ack()),
        })
        .collect();
    settlements.reverse();
    assert_eq!(consumer.settle(settlements).await, [Settled::Done; 5]);
    let again = consumer.take(2).await;
    assert_eq!(sorted(&again), ["retry", "split"]);
    for delivery in &again {
        assert_eq!(delivery.attempt(), if payload(delivery) == "retry" { 2 } else { 1 });
    }
    consumer.ack(&again).await;
    client.settles_to("readers", Backlog { dead: 1, ..Backlog::default() }).await;
}
