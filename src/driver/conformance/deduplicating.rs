//! Deduplication on request: an id is stored once per window, and the answers say where.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Fixture;
use super::kit::{
    CLOCK_SLACK, Client, DEADLINE, TOPIC, entry, event, partition, payloads, texts, topic,
};
use crate::driver::{Append, Appended, Placed};
use crate::envelope::Envelope;
use crate::error::ErrorKind;

/// Between two tries whether the window has ended.
const PAUSE: Duration = Duration::from_millis(50);

fn deduplicated(envelopes: &[Envelope]) -> Append {
    Append { deduplicate: true, ..entry(&partition(TOPIC, 0), envelopes.to_vec()) }
}

async fn append(client: &Client, envelopes: &[Envelope]) -> Appended {
    client.append(vec![deduplicated(envelopes)]).await.remove(0)
}

/// An event with the id of another one.
fn with_id_of(other: &Envelope, payload: &'static str) -> Envelope {
    let own = event(payload);
    let builder = Envelope::builder(
        own.event_type().clone(),
        own.content_type().clone(),
        payload,
        own.time(),
    );
    builder.id(other.id()).build().expect("within the limits")
}

fn place(appended: &Appended, index: u32, repeated: bool) -> Placed {
    Placed { entry: appended.entry.expect("an entry of its own"), index, repeated }
}

/// The second time nothing is stored, and the answer is that of the first.
pub async fn an_id_is_stored_once(fixture: &dyn Fixture) {
    let (client, other) = (Client::patient(fixture).await, Client::patient(fixture).await);
    let mut consumer = client.join("readers").await;
    let one = [event("one")];
    let first = append(&client, &one).await;
    assert_eq!(first.places, [place(&first, 0, false)]);
    let again = append(&other, &one).await;
    assert_eq!((again.entry, again.places), (None, vec![place(&first, 0, true)]));
    client.publish(&["two"]).await;
    assert_eq!(payloads(&consumer.take(2).await), ["one", "two"]);
}

/// The id is all that is compared.
pub async fn the_first_payload_stays(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let one = event("one");
    let first = append(&client, std::slice::from_ref(&one)).await;
    let again = append(&client, &[with_id_of(&one, "another")]).await;
    assert_eq!(again.places, [place(&first, 0, true)]);
    assert_eq!(payloads(&consumer.take(1).await), ["one"]);
}

/// What was not published so is neither known nor compared.
pub async fn plain_appends_are_not_compared(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let one = event("one");
    let plain = || vec![entry(&partition(TOPIC, 0), vec![one.clone()])];
    assert!(client.append(plain()).await[0].places.is_empty());
    let first = append(&client, std::slice::from_ref(&one)).await;
    assert_eq!(first.places, [place(&first, 0, false)]);
    assert!(client.append(plain()).await[0].entry.is_some());
    assert_eq!(payloads(&consumer.take(3).await), ["one", "one", "one"]);
}

/// Of a batch only what is new is stored, in its order; each event has its own answer.
pub async fn a_batch_may_be_half_known(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let events: Vec<Envelope> = texts("event ", 5).into_iter().map(event).collect();
    let known = append(&client, &[events[1].clone(), events[3].clone()]).await;
    let rest = append(&client, &events).await;
    let expected = [
        place(&rest, 0, false),
        place(&known, 0, true),
        place(&rest, 1, false),
        place(&known, 1, true),
        place(&rest, 2, false),
    ];
    assert_eq!(rest.places, expected);
    let taken = consumer.take(5).await;
    assert_eq!(payloads(&taken), ["event 1", "event 3", "event 0", "event 2", "event 4"]);
    assert_eq!(taken[4].entry.id, rest.entry.expect("an entry of its own"));
}

/// An id that is in a batch twice is stored once.
pub async fn an_id_twice_in_a_batch_is_stored_once(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let mut consumer = client.join("readers").await;
    let (one, two) = (event("one"), event("two"));
    let stored = append(&client, &[one.clone(), two, with_id_of(&one, "another")]).await;
    let expected = [place(&stored, 0, false), place(&stored, 1, false), place(&stored, 0, true)];
    assert_eq!(stored.places, expected);
    assert_eq!(payloads(&consumer.take(2).await), ["one", "two"]);
}

/// Ids are known per partition.
pub async fn another_partition_does_not_know_an_id(fixture: &dyn Fixture) {
    fixture.partitions(&topic("wide"), 2).await;
    let client = Client::patient(fixture).await;
    let one = event("one");
    for partition in client.declare("wide").await {
        let append = Append { deduplicate: true, ..entry(&partition, vec![one.clone()]) };
        let appended = client.append(vec![append]).await.remove(0);
        assert_eq!(appended.places, [place(&appended, 0, false)]);
    }
}

/// When the window is over, an id is new again. A repeat does not prolong it.
pub async fn an_id_is_forgotten_after_the_window(fixture: &dyn Fixture) {
    let Some(window) = fixture.dedup_window() else { return };
    let client = Client::patient(fixture).await;
    let one = [event("one")];
    let start = Instant::now();
    let first = append(&client, &one).await;
    let pause = PAUSE.max(window / 100);
    let second = loop {
        let again = append(&client, &one).await;
        if again.entry.is_some() {
            break again;
        }
        assert!(start.elapsed() < window + DEADLINE, "it is never forgotten");
        // waits: for the window to end, with a deadline
        sleep(pause).await;
    };
    assert!(start.elapsed() + CLOCK_SLACK >= window, "forgotten after {:?}", start.elapsed());
    assert_ne!(first.entry, second.entry);
    assert_eq!(append(&client, &one).await.places, [place(&second, 0, true)]);
}

/// What comes later has no place that could be told: it is refused.
pub async fn delayed_events_are_not_deduplicated(fixture: &dyn Fixture) {
    let client = Client::patient(fixture).await;
    let delayed = Append { delay: Duration::from_secs(1), ..deduplicated(&[event("one")]) };
    let answers = client.driver.append(vec![delayed, deduplicated(&[event("two")])]).await;
    let error = answers[0].as_ref().expect_err("refused");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Invalid, "{error}");
    assert!(answers[1].is_ok(), "{answers:?}");
}
