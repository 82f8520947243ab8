//! Handled once: of all deliveries of an event id one has its outputs published, and what was
//! handled within the window is known.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Fixture;
use super::kit::{
    CLOCK_SLACK, Client, Consumer, DEADLINE, TOPIC, all, dead_letter, entry, event, group, output,
    partition, payload, payloads, retry, settle, sorted,
};
use super::workshop::{self, Inbox, options, settled, text, thing};
use crate::Bus;
use crate::codec::ContentType;
use crate::delivery::{Delivery, Outcome, Settled};
use crate::driver::{Backlog, Subscription};
use crate::envelope::Envelope;
use crate::error::{ErrorKind, HandlerError};
use crate::event::Event;
use crate::event_type::EventType;
use crate::middleware::Idempotent;
use crate::service::{Batch, BatchOptions, Context, Routes, ServiceOptions, Services};

const READERS: &str = "readers";
const OUTPUTS: &str = "outputs";
/// Longer than any scenario.
const WINDOW: Duration = Duration::from_secs(3600);

/// Handled once, with one output.
fn once(text: &'static str) -> Outcome {
    Outcome::AckOnce { outputs: vec![output(OUTPUTS, text)], window: WINDOW }
}

/// A client and a consumer of the usual topic only, where the driver keeps marks.
async fn marking(fixture: &dyn Fixture) -> Option<(Client, Consumer)> {
    let client = Client::new(fixture).await;
    if !client.driver.marks_handled() {
        return None;
    }
    client.declare(OUTPUTS).await;
    let consumer = join(&client).await;
    Some((client, consumer))
}

fn wish(client: &Client) -> Subscription {
    let pattern = "conformance.>".parse().expect("a pattern");
    Subscription { routes: vec![(pattern, None)], ..client.wish(READERS) }
}

async fn join(client: &Client) -> Consumer {
    client.subscribe(wish(client)).await
}

/// Appends events to the usual topic, in one entry.
async fn append(client: &Client, envelopes: &[&Envelope]) {
    let envelopes = envelopes.iter().map(|envelope| (*envelope).clone()).collect();
    client.append(vec![entry(&partition(TOPIC, 0), envelopes)]).await;
}

async fn is_handled(consumer: &Consumer, delivery: &Delivery) -> bool {
    let asked = consumer.feed.settler.handled(&delivery.entry);
    let handled = timeout(DEADLINE, asked).await.expect("an answer in time");
    handled.expect("a driver that keeps marks").contains(delivery.index)
}

/// What was published as outputs, in any order.
async fn outputs(client: &Client) -> Vec<String> {
    let tools = client.driver.tools().expect("a driver in this suite has tools");
    let entries = tools.latest(&partition(OUTPUTS, 0), 100).await.expect("the store tells");
    let entries = entries.into_iter().map(Arc::new);
    sorted(&entries.flat_map(|entry| entry.deliveries().collect::<Vec<_>>()).collect::<Vec<_>>())
}

/// The second event of an id is known as handled, by every instance; where it is run all the
/// same, nothing is published again.
pub async fn an_id_is_handled_once(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    let one = event("one");
    append(&client, &[&one]).await;
    let first = consumer.take(1).await;
    assert!(!is_handled(&consumer, &first[0]).await);
    consumer.end(&first, &once("done")).await;
    consumer.crash();
    let other = Client::new(fixture).await;
    let mut consumer = join(&other).await;
    append(&other, &[&event("before"), &one, &event("behind")]).await;
    let again = consumer.take(3).await;
    let mut known = Vec::new();
    for delivery in &again {
        known.push(is_handled(&consumer, delivery).await);
    }
    assert_eq!(known, [false, true, false]);
    let answers = consumer.settle(all(&again, &once("again"))).await;
    assert_eq!(answers, [Settled::Done, Settled::Duplicate, Settled::Done]);
    assert_eq!(outputs(&client).await, ["again", "again", "done"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// Of two copies that run at the same time in two instances, the outputs of one are published.
pub async fn of_two_copies_one_publishes(fixture: &dyn Fixture) {
    let Some((client, mut first)) = marking(fixture).await else { return };
    let one = event("one");
    append(&client, &[&one]).await;
    let copy = first.take(1).await;
    let mut second = join(&client).await;
    append(&client, &[&one]).await;
    let (mut other, holder) = tokio::select! {
        taken = first.take(1) => (taken, &first),
        taken = second.take(1) => (taken, &second),
    };
    assert!(!is_handled(holder, &other[0]).await);
    let (one, another) = (once("one"), once("another"));
    let (ends, rivals) =
        tokio::join!(first.settle(all(&copy, &one)), holder.settle(all(&other, &another)));
    let mut answers = [ends[0], rivals[0]];
    answers.sort_by_key(|settled| *settled == Settled::Duplicate);
    assert_eq!(answers, [Settled::Done, Settled::Duplicate]);
    assert_eq!(outputs(&client).await.len(), 1);
    assert!(is_handled(holder, &other.remove(0)).await);
    client.settles_to(READERS, Backlog::default()).await;
}

/// Copies within one entry and one call are told apart as well.
pub async fn copies_may_be_settled_together(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    let (one, two) = (event("one"), event("two"));
    append(&client, &[&one, &two, &one]).await;
    append(&client, &[&two]).await;
    let taken = consumer.take(4).await;
    let answers = consumer.settle(all(&taken, &once("out"))).await;
    let (done, duplicate) = (Settled::Done, Settled::Duplicate);
    assert_eq!(answers, [done, done, duplicate, duplicate]);
    assert_eq!(outputs(&client).await, ["out", "out"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// An event that publishes nothing leaves its mark, too.
pub async fn a_copy_without_outputs_is_told_as_well(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    let (one, silent) = (event("one"), Outcome::AckOnce { outputs: Vec::new(), window: WINDOW });
    for answer in [Settled::Done, Settled::Duplicate] {
        append(&client, &[&one]).await;
        let taken = consumer.take(1).await;
        assert_eq!(consumer.settle(all(&taken, &silent)).await, [answer]);
    }
    // A plain ack neither asks nor tells.
    let two = event("two");
    append(&client, &[&one, &two]).await;
    let taken = consumer.take(2).await;
    consumer.ack(&taken).await;
    append(&client, &[&two]).await;
    let taken = consumer.take(1).await;
    assert!(!is_handled(&consumer, &taken[0]).await);
    consumer.end(&taken, &silent).await;
    client.settles_to(READERS, Backlog::default()).await;
}

/// What ran and was not settled runs again, and its outputs come once.
pub async fn a_crash_before_the_end_leaves_no_mark(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    append(&client, &[&event("one")]).await;
    let lost = consumer.take(1).await;
    let stale = consumer.crash();
    let mut heir = join(&client).await;
    let held = heir.take(1).await;
    assert!(!is_handled(&heir, &held[0]).await);
    heir.end(&held, &once("heir")).await;
    assert_eq!(settle(&*stale, all(&lost, &once("late"))).await, [Settled::Already]);
    assert_eq!(outputs(&client).await, ["heir"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// A retry and a dead letter leave no mark: the next attempt runs, and so does what is redriven.
pub async fn only_a_success_leaves_a_mark(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    append(&client, &[&event("one")]).await;
    for outcome in [retry(Duration::ZERO), super::kit::split()] {
        let taken = consumer.take(1).await;
        assert!(!is_handled(&consumer, &taken[0]).await);
        consumer.end(&taken, &outcome).await;
    }
    let taken = consumer.take(1).await;
    assert!(!is_handled(&consumer, &taken[0]).await);
    let Some(admin) = client.driver.admin() else {
        return consumer.end(&taken, &once("done")).await;
    };
    consumer.end(&taken, &dead_letter()).await;
    let (readers, log) = (group(READERS), partition(TOPIC, 0));
    let letters = client.driver.tools().expect("tools").dead_letters(&readers, 10).await;
    let id = letters.expect("the store tells")[0].id;
    admin.redrive(&readers, &log, &[id]).await.expect("redriven");
    let taken = consumer.take(1).await;
    assert!(!is_handled(&consumer, &taken[0]).await);
    consumer.end(&taken, &once("done")).await;
    assert_eq!(outputs(&client).await, ["done"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// After its window an event of the id is a new one.
pub async fn a_mark_ends_with_its_window(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    let (one, window) = (event("one"), Duration::from_secs(1));
    append(&client, &[&one]).await;
    let taken = consumer.take(1).await;
    let short = |text| Outcome::AckOnce { outputs: vec![output(OUTPUTS, text)], window };
    let since = Instant::now();
    consumer.end(&taken, &short("first")).await;
    append(&client, &[&one, &one]).await;
    let taken = consumer.take(2).await;
    let known = is_handled(&consumer, &taken[0]).await;
    let early = consumer.settle(all(&taken[..1], &short("early"))).await;
    let mut published = vec!["first"];
    // On a busy machine the window may be over by now.
    if since.elapsed() + CLOCK_SLACK < window || early == [Settled::Duplicate] {
        assert!(known && early == [Settled::Duplicate], "{known} {early:?}");
    } else {
        published.insert(0, "early");
    }
    let over = async {
        while is_handled(&consumer, &taken[1]).await {
            // waits: for the window to end
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, over).await.expect("the window ends");
    assert_eq!(consumer.settle(all(&taken[1..], &short("second"))).await, [Settled::Done]);
    published.push("second");
    assert_eq!(outputs(&client).await, published);
    client.settles_to(READERS, Backlog::default()).await;
}

/// What one group has handled is new to another.
pub async fn groups_have_marks_of_their_own(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    let mut other = client.subscribe(Subscription { group: group("other"), ..wish(&client) }).await;
    append(&client, &[&event("one")]).await;
    let taken = consumer.take(1).await;
    consumer.end(&taken, &once("readers")).await;
    let taken = other.take(1).await;
    assert!(!is_handled(&other, &taken[0]).await);
    other.end(&taken, &once("other")).await;
    assert_eq!(outputs(&client).await, ["other", "readers"]);
}

/// The mark of an event stands while the rest of its entry is open, and whoever takes that over.
pub async fn a_mark_outlives_the_rest_of_its_entry(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    let (one, two) = (event("one"), event("two"));
    append(&client, &[&one, &two]).await;
    let taken = consumer.take(2).await;
    consumer.end(&taken[..1], &once("one")).await;
    consumer.crash();
    let mut heir = join(&client).await;
    let rest = heir.take(1).await;
    assert_eq!(payloads(&rest), ["two"]);
    assert!(!is_handled(&heir, &rest[0]).await);
    append(&client, &[&one]).await;
    let copy = heir.take(1).await;
    assert!(is_handled(&heir, &copy[0]).await);
    let both = [rest[0].clone(), copy[0].clone()];
    let answers = heir.settle(all(&both, &once("two"))).await;
    assert_eq!(answers, [Settled::Done, Settled::Duplicate]);
    assert_eq!(outputs(&client).await, ["one", "two"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// An end that is said twice, as after a lost answer, is that of one delivery.
pub async fn a_repeated_end_is_no_duplicate(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    append(&client, &[&event("one"), &event("two")]).await;
    let taken = consumer.take(2).await;
    for events in [0..1, 0..2] {
        let ends = all(&taken[events], &once("out"));
        consumer.settle(ends.clone()).await;
        let repeated = consumer.settle(ends).await;
        assert!(repeated.iter().all(|settled| *settled == Settled::Already), "{repeated:?}");
    }
    assert_eq!(outputs(&client).await, ["out", "out"]);
}

/// Who lost its lease leaves no mark, or the holder's outputs would be left out.
pub async fn a_lost_lease_leaves_no_mark(fixture: &dyn Fixture) {
    let Some((client, mut consumer)) = marking(fixture).await else { return };
    append(&client, &[&event("one")]).await;
    let lost = consumer.take(1).await;
    let stale = consumer.crash();
    let mut heir = join(&client).await;
    let held = heir.take(1).await;
    assert_eq!(settle(&*stale, all(&lost, &once("stale"))).await, [Settled::LeaseLost]);
    assert!(!is_handled(&heir, &held[0]).await);
    heir.end(&held, &once("heir")).await;
    assert_eq!(outputs(&client).await, ["heir"]);
}

/// A redriven dead letter whose copy was handled meanwhile does not hold its key for ever.
pub async fn what_is_parked_by_a_copy_is_let_go(fixture: &dyn Fixture) {
    let Some((client, consumer)) = marking(fixture).await else { return };
    let Some(admin) = client.driver.admin().filter(|_| client.driver.parks_keys()) else { return };
    consumer.crash();
    let mut consumer = client.subscribe(Subscription { park_keys: true, ..wish(&client) }).await;
    let one = event("one");
    append(&client, &[&one]).await;
    let taken = consumer.take(1).await;
    append(&client, &[&one]).await;
    let copy = consumer.take(1).await;
    consumer.end(&copy, &once("copy")).await;
    consumer.end(&taken, &dead_letter()).await;
    append(&client, &[&event("behind")]).await;
    let behind = consumer.take(1).await;
    consumer.end(&behind, &Outcome::Park).await;
    let (readers, log) = (group(READERS), partition(TOPIC, 0));
    let letters = client.driver.tools().expect("tools").dead_letters(&readers, 10).await;
    let id = letters.expect("the store tells")[0].id;
    admin.redrive(&readers, &log, &[id]).await.expect("redriven");
    let again = consumer.take(1).await;
    assert!(is_handled(&consumer, &again[0]).await);
    assert_eq!(consumer.settle(all(&again, &once("again"))).await, [Settled::Duplicate]);
    let behind = consumer.take(1).await;
    assert_eq!(payload(&behind[0]), "behind");
    consumer.end(&behind, &once("behind")).await;
    assert_eq!(outputs(&client).await, ["behind", "copy"]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// What the handlers of the scenarios with a bus publish.
#[derive(serde::Serialize, serde::Deserialize)]
struct Noted {
    text: String,
}

impl Event for Noted {
    const TYPE: EventType = EventType::from_static("outputs.thing.noted");
}

/// A bus whose services are idempotent, where the driver keeps marks.
async fn careful(fixture: &dyn Fixture) -> Option<(Client, Bus)> {
    let client = Client::new(fixture).await;
    if !client.driver.marks_handled() {
        return None;
    }
    client.declare(OUTPUTS).await;
    let builder = Bus::builder().driver(Arc::clone(&client.driver)).services(Services::none());
    let bus = builder.with(Idempotent::default()).build().await.expect("a bus");
    Some((client, bus))
}

fn note(ctx: &Context, text: &str) -> Result<(), HandlerError> {
    Ok(ctx.publish(&Noted { text: text.to_owned() })?)
}

/// How many events handlers published.
async fn noted(client: &Client) -> usize {
    let tools = client.driver.tools().expect("a driver in this suite has tools");
    let entries = tools.latest(&partition(OUTPUTS, 0), 1000).await.expect("the store tells");
    entries.iter().map(|entry| entry.records.len()).sum()
}

/// An event that is published again is acknowledged without its handler, and counted; one that
/// fails first is not.
pub async fn a_service_handles_an_id_once(fixture: &dyn Fixture) {
    let Some((client, bus)) = careful(fixture).await else { return };
    let mut inbox = Inbox::<String>::new();
    let seen = inbox.sender.clone();
    workshop::handle(&bus, READERS, options(fixture), move |envelope, ctx| {
        let seen = seen.clone();
        async move {
            let text = text(&envelope);
            seen.send(text.clone()).await?;
            note(&ctx, &text)?;
            match text.as_str() {
                "fails" if ctx.attempt() == 1 => Err(HandlerError::retry("once")),
                "panics" if ctx.attempt() == 1 => panic!("once"),
                "rejected" => Err(HandlerError::reject("never")),
                _ => Ok(()),
            }
        }
    })
    .await;
    let sent: Vec<Envelope> =
        ["plain", "fails", "panics", "rejected"].map(|text| thing(Some(text), text)).into();
    for _ in 0..3 {
        workshop::publish(&bus, sent.clone()).await;
        settled(&bus).await;
    }
    let mut seen = inbox.rest();
    seen.sort();
    let expected =
        ["fails", "fails", "panics", "panics", "plain", "rejected", "rejected", "rejected"];
    assert_eq!(seen, expected);
    assert_eq!(bus.counts(READERS).duplicates, 6);
    assert_eq!(noted(&client).await, 3);
    workshop::end(bus).await;
}

/// Copies that run in two lanes at the same time both run, and publish once.
pub async fn copies_in_two_lanes_publish_once(fixture: &dyn Fixture) {
    let Some((client, bus)) = careful(fixture).await else { return };
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let own = ServiceOptions { lanes: 4, ..options(fixture) };
    workshop::handle(&bus, READERS, own, move |_, ctx| {
        let both = Arc::clone(&both);
        async move {
            both.wait().await;
            note(&ctx, "out")
        }
    })
    .await;
    let copy = thing(None, "copy");
    workshop::publish(&bus, vec![copy.clone(), copy]).await;
    settled(&bus).await;
    assert_eq!((noted(&client).await, bus.counts(READERS).duplicates), (1, 1));
    workshop::end(bus).await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Counted {
    number: u32,
}

impl Event for Counted {
    const TYPE: EventType = EventType::from_static("conformance.number.counted");
}

/// Of a batch only what is new comes to the handler, and each event has its own mark.
pub async fn each_event_of_a_batch_is_handled_once(fixture: &dyn Fixture) {
    let Some((client, bus)) = careful(fixture).await else { return };
    let mut inbox = Inbox::<u32>::new();
    let seen = inbox.sender.clone();
    let handler = move |batch: Batch<Counted>| {
        let seen = seen.clone();
        async move {
            for item in batch.iter() {
                seen.send(item.event.number).await?;
                note(&item.ctx, "out")?;
                if item.event.number == 3 && item.ctx.attempt() == 1 {
                    item.fail(HandlerError::retry("once"));
                }
            }
            Ok(())
        }
    };
    let batch = BatchOptions { size: 8, linger: Duration::from_millis(20) };
    let routes = |routes: Routes<()>| routes.on_batch_fn(batch, handler);
    bus.subscribe_routes(READERS, options(fixture), routes).await.expect("subscribed");
    let now = crate::time::Timestamp::from_millis(1_767_323_045_678);
    let counted = |number: u32| {
        let payload = format!("{{\"number\":{number}}}");
        let builder = Envelope::builder(Counted::TYPE, ContentType::JSON, payload, now);
        builder.key(Some("k")).build().expect("within limits")
    };
    let sent: Vec<Envelope> = (0..8).map(counted).collect();
    workshop::publish(&bus, sent[..5].to_vec()).await;
    settled(&bus).await;
    workshop::publish(&bus, sent).await;
    settled(&bus).await;
    let mut seen = inbox.rest();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 3, 4, 5, 6, 7]);
    assert_eq!((noted(&client).await, bus.counts(READERS).duplicates), (8, 5));
    workshop::end(bus).await;
}

/// Each instance of a broadcast handles every event: there is no group that could have.
pub async fn a_broadcast_is_refused(fixture: &dyn Fixture) {
    let Some((_client, bus)) = careful(fixture).await else { return };
    let refused = bus.broadcast_any("cache", "conformance.>", |_, _| async { Ok(()) }).await;
    let error = refused.expect_err("a broadcast has no marks");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("broadcast cache"), "{error}");
    workshop::end(bus).await;
}
