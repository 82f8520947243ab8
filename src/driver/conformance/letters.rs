//! Dead letters that are edited, and restored from an export. A driver without these powers
//! passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::Fixture;
use super::admin::{READERS, bury, log};
use super::kit::{
    Client, Consumer, DEADLINE, WATCH, dead_letter, entry, group, patient, payloads, retry, texts,
};
use crate::codec::ContentType;
use crate::delivery::{DeadLetter, Delivery, EntryId, Outcome};
use crate::driver::admin::{Admin, Redriven, STEP_MAX};
use crate::driver::{Backlog, Subscription};
use crate::envelope::{Envelope, PAYLOAD_BYTES_MAX};
use crate::error::{ErrorKind, HandlerError};
use crate::event_type::EventType;
use crate::time::Timestamp;
use crate::{Bus, Context, ServiceOptions, Services};

/// All letters of the group, in order.
async fn letters(admin: &dyn Admin) -> Vec<DeadLetter> {
    let page = admin.page(&group(READERS), &log(), EntryId::ZERO, STEP_MAX).await;
    page.expect("a page").letters
}

async fn edit(admin: &dyn Admin, id: EntryId, payload: &'static str) -> Option<EntryId> {
    let payload = Bytes::from_static(payload.as_bytes());
    admin.edit(&group(READERS), &log(), id, payload).await.expect("an answer")
}

async fn restore(admin: &dyn Admin, these: &[DeadLetter], last: EntryId) -> Option<EntryId> {
    admin.restore(&group(READERS), &log(), these, last).await.expect("an answer")
}

/// An edited letter is the same one with another payload: what was published stays beside it.
pub async fn an_edit_keeps_what_was_published(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = bury(&client, &texts("event ", 2)).await;
    let before = letters(admin).await;
    let id = edit(admin, before[0].id, "mended").await.expect("it is there");
    assert!(id > before[1].id, "an edited letter is the last");
    let again = edit(admin, id, "mended again").await.expect("it is there");
    let after = letters(admin).await;
    assert_eq!(after[0], before[1]);
    let (edited, first) = (after[1].clone(), before[0].clone());
    assert_eq!((edited.id, edited.first_id), (again, first.id));
    assert_eq!(edited.original.as_ref(), Some(first.record.as_ref().expect("an event").payload()));
    assert!(edited.is_same(&first) && !edited.is_same(&after[0]));
    let event = edited.record.as_ref().expect("an event");
    assert_eq!(event.payload(), "mended again");
    let (id, first_id) = (event.id(), first.record.as_ref().map(crate::Envelope::id));
    assert_eq!(Ok(id), first_id);
    let restored =
        DeadLetter { id: first.id, record: first.record.clone(), original: None, ..edited };
    assert_eq!(restored, first, "the rest is as it was");
    let done = admin.redrive(&group(READERS), &log(), &[again]).await.expect("redriven");
    assert_eq!(done.moved, 1);
    assert_eq!(consumer.handle(1).await, ["mended again"]);
}

/// Of two changes of one letter only the first comes true.
pub async fn an_edit_and_a_redrive_exclude_each_other(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = bury(&client, &texts("event ", 2)).await;
    let ids: Vec<EntryId> = letters(admin).await.iter().map(|letter| letter.id).collect();
    let edited = edit(admin, ids[0], "mended").await.expect("it is there");
    let done = admin.redrive(&group(READERS), &log(), &ids).await.expect("an answer");
    assert_eq!(done, Redriven { moved: 1, missing: 1, malformed: 0 });
    let taken = consumer.take(1).await;
    assert_eq!(payloads(&taken), ["event 1"]);
    consumer.ack(&taken).await;
    assert_eq!(edit(admin, ids[0], "late").await, None, "it was edited");
    assert_eq!(edit(admin, ids[1], "late").await, None, "it was redriven");
    assert_eq!(letters(admin).await.len(), 1);
    let large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let error = admin.edit(&group(READERS), &log(), edited, large).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    client.settles_to(READERS, Backlog { dead: 1, ..Backlog::default() }).await;
}

/// A client whose consumers park keys, where the driver can.
async fn parking(fixture: &dyn Fixture) -> Option<(Client, Consumer)> {
    let client = Client::new(fixture).await;
    if client.driver.admin().is_none() || !client.driver.parks_keys() {
        return None;
    }
    let wish = Subscription { park_keys: true, ..client.wish(READERS) };
    let consumer = client.subscribe(wish).await;
    Some((client, consumer))
}

async fn is_parked(consumer: &Consumer, delivery: &Delivery) -> bool {
    consumer.feed.settler.is_parked(delivery).await.expect("an answer")
}

/// How many wait behind dead letters.
async fn parked(admin: &dyn Admin) -> u64 {
    super::admin::becomes(admin, |_| true).await.parked
}

/// Later events of a key wait for its dead letter, and are handed out one by one in their order
/// when it was redriven and handled.
pub async fn a_dead_letter_parks_its_key(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = parking(fixture).await else { return };
    let admin = client.driver.admin().expect("it was there");
    client.publish(&["a", "b", "c"]).await;
    let taken = consumer.take(3).await;
    assert!(!is_parked(&consumer, &taken[1]).await, "nothing is dead yet");
    consumer.end(&taken[..1], &dead_letter()).await;
    for delivery in &taken[1..] {
        assert!(is_parked(&consumer, delivery).await);
    }
    // Whatever order they come in.
    consumer.end(&taken[2..], &Outcome::Park).await;
    consumer.end(&taken[1..2], &Outcome::Park).await;
    assert_eq!(parked(admin).await, 2);
    client.settles_to(READERS, Backlog { dead: 1, ..Backlog::default() }).await;
    consumer.gets_nothing(WATCH).await;
    let id = letters(admin).await[0].id;
    let id = edit(admin, id, "mended").await.expect("it is there");
    let done = admin.redrive(&group(READERS), &log(), &[id]).await.expect("redriven");
    assert_eq!(done.moved, 1);
    let first = consumer.take(1).await;
    assert_eq!(payloads(&first), ["mended"]);
    assert!(!is_parked(&consumer, &first[0]).await, "it does not wait for itself");
    assert!(is_parked(&consumer, &taken[1]).await, "it is not handled yet");
    consumer.gets_nothing(WATCH).await;
    consumer.end(&first, &retry(Duration::ZERO)).await;
    let again = consumer.take(1).await;
    assert_eq!(payloads(&again), ["mended"], "what is tried again goes on to hold its key");
    consumer.ack(&again).await;
    let second = consumer.take(1).await;
    assert_eq!((payloads(&second), parked(admin).await), (vec!["b".to_owned()], 1));
    client.publish(&["d"]).await;
    let fourth = consumer.take(1).await;
    assert!(is_parked(&consumer, &fourth[0]).await, "those before it are not handled yet");
    consumer.end(&fourth, &Outcome::Park).await;
    consumer.ack(&second).await;
    assert_eq!(consumer.handle(1).await, ["c"]);
    assert_eq!(consumer.handle(1).await, ["d"]);
    client.publish(&["e"]).await;
    let fifth = consumer.take(1).await;
    assert!(!is_parked(&consumer, &fifth[0]).await, "nothing holds the key any more");
    consumer.ack(&fifth).await;
    client.settles_to(READERS, Backlog::default()).await;
    assert_eq!(parked(admin).await, 0);
}

/// A deleted letter holds its key no more, whichever way it was deleted.
pub async fn a_purge_lets_the_parked_go(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = parking(fixture).await else { return };
    let admin = client.driver.admin().expect("it was there");
    for by_id in [true, false] {
        client.publish(&["a", "b", "c"]).await;
        let taken = consumer.take(3).await;
        consumer.end(&taken[..1], &dead_letter()).await;
        consumer.end(&taken[1..], &Outcome::Park).await;
        let id = letters(admin).await[0].id;
        let deleted = match by_id {
            true => admin.purge(&group(READERS), &log(), &[id]).await,
            false => admin.purge_until(&group(READERS), &log(), id).await,
        };
        assert_eq!(deleted.expect("deleted"), 1);
        assert_eq!(consumer.handle(1).await, ["b"]);
        assert_eq!(consumer.handle(1).await, ["c"]);
        client.settles_to(READERS, Backlog::default()).await;
    }
}

/// A letter parks what comes after it, of its own key, and no more.
pub async fn only_later_events_of_the_key_are_parked(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = parking(fixture).await else { return };
    let admin = client.driver.admin().expect("it was there");
    client.publish(&["a", "b", "c"]).await;
    let event_type = EventType::from_static("conformance.thing.happened");
    let now = Timestamp::from_millis(1);
    let other = |key: Option<&'static str>| {
        let builder = Envelope::builder(event_type.clone(), ContentType::JSON, "1", now);
        entry(&log(), vec![builder.key(key).build().expect("an event")])
    };
    client.append(vec![other(Some("another key")), other(None)]).await;
    let taken = consumer.take(5).await;
    consumer.end(&taken[1..2], &dead_letter()).await;
    let mut answers = Vec::new();
    for delivery in &taken {
        answers.push(is_parked(&consumer, delivery).await);
    }
    assert_eq!(answers, [false, false, true, false, false]);
    // What nothing holds back is run again at once.
    consumer.end(&taken[..1], &Outcome::Park).await;
    consumer.end(&taken[3..], &Outcome::Park).await;
    let back = consumer.take(3).await;
    assert!(back.iter().all(|delivery| delivery.attempt() == 1));
    assert_eq!(parked(admin).await, 0);
    // A letter before the one that holds the key holds what that held.
    let first = back.iter().position(|delivery| delivery.origin() == taken[0].origin());
    let first = first.expect("it is among them");
    consumer.end(&back[first..=first], &dead_letter()).await;
    consumer.end(&taken[2..3], &Outcome::Park).await;
    let ids: Vec<EntryId> = letters(admin).await.iter().map(|letter| letter.id).collect();
    admin.purge(&group(READERS), &log(), &ids[..1]).await.expect("deleted");
    assert_eq!(parked(admin).await, 1, "the other letter is before it, too");
    admin.purge(&group(READERS), &log(), &ids[1..]).await.expect("deleted");
    assert_eq!(parked(admin).await, 0);
    let rest: Vec<Delivery> =
        back.into_iter().filter(|delivery| delivery.origin() != taken[0].origin()).collect();
    consumer.ack(&rest).await;
    assert_eq!(consumer.handle(1).await, ["c"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// A service whose handler rejects one event handles the others of its key after that, in order.
pub async fn a_service_that_parks_keeps_the_order(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin().filter(|_| client.driver.parks_keys()) else { return };
    let bus = Bus::builder().driver(Arc::clone(&client.driver)).services(Services::none());
    let bus = bus.build().await.expect("a bus");
    let broken = Arc::new(AtomicBool::new(true));
    let (say, mut said) = tokio::sync::mpsc::channel::<String>(64);
    let lease = patient(fixture.lease());
    let options = ServiceOptions { park_keys: true, lease, ..Default::default() };
    let flag = Arc::clone(&broken);
    let handle = move |event: Envelope, _: Context| {
        let (say, broken) = (say.clone(), flag.load(Ordering::SeqCst));
        async move {
            let text = String::from_utf8_lossy(event.payload()).into_owned();
            if broken && text == "event 2" {
                return Err(HandlerError::reject("not this one"));
            }
            Ok(say.send(text).await?)
        }
    };
    bus.subscribe_routes(READERS, options, |routes| routes.on_any_fn(">", handle))
        .await
        .expect("subscribed");
    let sent = texts("event ", 12);
    client.publish(&sent[..8]).await;
    client.publish_batch(&sent[8..]).await;
    client.settles_to(READERS, Backlog { dead: 1, ..Backlog::default() }).await;
    let mut handled = Vec::new();
    while let Ok(text) = said.try_recv() {
        handled.push(text);
    }
    assert_eq!(handled, sent[..2]);
    assert_eq!(parked(admin).await, 9);
    broken.store(false, Ordering::SeqCst);
    let id = letters(admin).await[0].id;
    admin.redrive(&group(READERS), &log(), &[id]).await.expect("redriven");
    while handled.len() < sent.len() {
        let next = timeout(DEADLINE, said.recv()).await.expect("in time");
        handled.push(next.expect("the handler is there"));
    }
    assert_eq!(handled, sent, "each once, and in order");
    client.settles_to(READERS, Backlog::default()).await;
    assert_eq!(parked(admin).await, 0);
    bus.drain(DEADLINE).await;
}

/// What holds no event has no payload to edit; it is restored as it was.
pub async fn the_malformed_is_restored_and_not_edited(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    if !fixture.foreign(&log(), vec![("foo".into(), "bar".into())]).await {
        return;
    }
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(1).await;
    consumer.end(&deliveries, &super::kit::dead_letter()).await;
    let before = letters(admin).await;
    let payload = Bytes::from_static(b"1");
    let error = admin.edit(&group(READERS), &log(), before[0].id, payload).await;
    assert_eq!(error.expect_err("no event").kind(), ErrorKind::Invalid);
    assert_eq!(letters(admin).await, before);
    admin.purge(&group(READERS), &log(), &[before[0].id]).await.expect("deleted");
    let id = restore(admin, &before, EntryId::ZERO).await.expect("restored");
    assert_eq!(letters(admin).await, [DeadLetter { id, ..before[0].clone() }]);
}

/// Restored letters are what they were; where another came since the look, nothing is added.
pub async fn letters_are_restored_as_they_were(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let _consumer = bury(&client, &texts("event ", 3)).await;
    let edited = edit(admin, letters(admin).await[1].id, "mended").await.expect("edited");
    let before = letters(admin).await;
    assert_eq!(before[2].id, edited);
    let ids: Vec<EntryId> = before.iter().map(|letter| letter.id).collect();
    admin.purge(&group(READERS), &log(), &ids[..2]).await.expect("deleted");
    assert_eq!(restore(admin, &before[..2], ids[1]).await, None, "there is one behind it");
    assert_eq!(restore(admin, &[], edited).await, Some(edited));
    let last = restore(admin, &before[..2], edited).await.expect("restored");
    let after = letters(admin).await;
    assert_eq!((after.len(), after[0].clone()), (3, before[2].clone()));
    assert_eq!(after[2].id, last);
    for (restored, was) in after[1..].iter().zip(&before) {
        assert!(restored.is_same(was) && restored.id > edited);
        assert_eq!(restored, &DeadLetter { id: restored.id, ..was.clone() });
    }
    let many = vec![before[0].clone(); STEP_MAX + 1];
    let error = admin.restore(&group(READERS), &log(), &many, last).await.expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let wrong = admin.restore(&group("nobody"), &log(), &before[..1], EntryId::ZERO).await;
    assert_eq!(wrong.expect_err("it reads nothing").kind(), ErrorKind::Invalid);
}
