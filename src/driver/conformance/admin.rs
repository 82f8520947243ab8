//! The powers that operate a store. A driver without them passes.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Fixture;
use super::kit::{
    Client, Consumer, DEADLINE, TOPIC, WATCH, all, comeback, dead_letter, entry, event, group,
    partition, payloads, retry, settle, texts, topic,
};
use crate::delivery::{EntryId, Partition, Queue, Start};
use crate::driver::admin::{
    Admin, Count, DeadLetterSummary, GroupPartition, GroupReport, PARTITIONS_MAX, Redriven,
    STEP_MAX, SeekPlan, SeekStep,
};
use crate::driver::{Append, Backlog};
use crate::error::ErrorKind;
use crate::time::Timestamp;

pub(super) const READERS: &str = "readers";

pub(super) fn log() -> Partition {
    partition(TOPIC, 0)
}

async fn report(admin: &dyn Admin) -> GroupReport {
    admin.group(&group(READERS)).await.expect("a report")
}

/// The group on the usual partition, once it is as wanted.
pub(super) async fn becomes(
    admin: &dyn Admin,
    wanted: impl Fn(&GroupPartition) -> bool,
) -> GroupPartition {
    let found = timeout(DEADLINE, async {
        loop {
            let mut own = report(admin).await;
            own.partitions.retain(|own| own.partition == log());
            let own = own.partitions.pop().expect("the group is on the usual partition");
            if wanted(&own) {
                return own;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.expect("the group becomes as wanted")
}

async fn plan(admin: &dyn Admin, to: Start) -> SeekPlan {
    admin.plan_seek(&group(READERS), to, None).await.expect("a plan")
}

/// A plan, once no consumer of the group lives.
async fn quiet_plan(admin: &dyn Admin, to: Start) -> SeekPlan {
    let quiet = timeout(DEADLINE, async {
        loop {
            let plan = plan(admin, to).await;
            if plan.live_consumers.is_empty() {
                return plan;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    quiet.await.expect("the consumers are gone")
}

fn only(plan: &SeekPlan) -> &SeekStep {
    assert_eq!(plan.partitions.len(), 1, "{plan:?}");
    &plan.partitions[0]
}

/// A consumer that has taken so many events and settled none.
async fn holding(client: &Client, events: usize) -> Consumer {
    let mut consumer = client.join(READERS).await;
    consumer.take(events).await;
    consumer
}

/// A report tells where a group is, what it has before it, and who is in it.
pub async fn a_group_is_reported(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = client.join(READERS).await;
    let other = client.join("others").await;
    let ids = client.publish(&["a", "b", "c"]).await;
    let deliveries = consumer.take(3).await;
    consumer.end(&deliveries[..1], &retry(comeback(fixture) * 10)).await;
    consumer.end(&deliveries[1..2], &dead_letter()).await;
    let own = becomes(admin, |own| own.pending.count == 1).await;
    assert_eq!((own.position, own.unread), (ids[2], Count::ZERO));
    assert_eq!(own.position_time, Some(Timestamp::from_millis(ids[2].millis)));
    assert_eq!(own.pending.oldest, Some(Timestamp::from_millis(ids[2].millis)));
    assert_eq!(own.pending.by_consumer.len(), 1);
    assert_eq!(own.pending.by_consumer[0].consumer, consumer.feed.consumer);
    assert_eq!((own.due.count, own.retry_length, own.dead.count), (1, 0, 1));
    assert!(own.due.next.is_some() && own.dead.first == own.dead.last && own.dead.last.is_some());
    let GroupReport { routes, consumers, .. } = report(admin).await;
    assert_eq!(routes.len(), 1);
    assert_eq!((routes[0].pattern.as_str(), routes[0].version), (">", None));
    assert!(routes[0].last_seen.is_some());
    assert_eq!(consumers.len(), 1, "{consumers:?}");
    assert_eq!((&consumers[0].name, consumers[0].pending), (&consumer.feed.consumer, 1));
    assert!(consumers[0].live && consumers[0].last_heartbeat.is_some());
    let names = admin.groups().await.expect("groups");
    assert_eq!(names, [group("others"), group(READERS)]);
    drop(other);
}

/// A topic's report counts what is there, what is kept back, and who reads it.
pub async fn a_topic_is_reported(fixture: &dyn Fixture) {
    fixture.partitions(&topic("wide"), 2).await;
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    client.declare("wide").await;
    let consumer = client.join(READERS).await;
    drop(consumer);
    let wide = partition("wide", 1);
    let ids = client.publish_to(&wide, &texts("event ", 5)).await;
    let mut later = entry(&wide, vec![event("later"), event("too")]);
    later.delay = DEADLINE * 10;
    client.append(vec![later]).await;
    let report = admin.topic(&topic("wide")).await.expect("a report");
    assert_eq!(report.partitions.len(), 2);
    let (empty, full) = (&report.partitions[0], &report.partitions[1]);
    assert_eq!((empty.entries, empty.first, empty.last), (0, None, None));
    assert_eq!((empty.delayed.count, empty.delayed.next), (0, None));
    assert_eq!((full.entries, full.first, full.last), (5, Some(ids[0]), Some(ids[4])));
    assert_eq!(full.last_time, Some(Timestamp::from_millis(ids[4].millis)));
    assert!(full.bytes_estimate.is_some_and(|bytes| bytes > 0));
    assert_eq!(full.delayed.count, 2);
    assert!(full.delayed.next.is_some_and(|next| next.as_millis() > ids[4].millis));
    assert_eq!(full.groups.len(), 1);
    assert_eq!((&full.groups[0].group, full.groups[0].pending), (&group(READERS), 0));
    assert_eq!((full.groups[0].position, full.groups[0].unread), (EntryId::ZERO, Count::exact(5)));
}

/// What is not known is refused with what to do about it.
pub async fn the_unknown_is_refused(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let nobody = group("nobody");
    let errors = [
        admin.group(&nobody).await.expect_err("no group"),
        admin.plan_seek(&nobody, Start::New, None).await.expect_err("no group"),
        admin.topic(&topic("nothing")).await.expect_err("no topic"),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(error.help().is_some(), "{error:?}");
    }
    let page = admin.page(&nobody, &log(), EntryId::ZERO, 10).await.expect("an empty page");
    assert!(page.letters.is_empty() && page.next.is_none());
}

/// A group that goes back repeats what the plan said, and only that.
pub async fn seek_back_repeats_what_it_says(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let sent = texts("event ", 10);
    let ids = client.publish(&sent).await;
    let mut consumer = client.join(READERS).await;
    assert_eq!(consumer.handle(10).await, sent);
    drop(consumer);
    for (to, from) in [
        (Start::After(ids[6]), 7),
        (Start::Earliest, 0),
        (Start::At(Timestamp::from_millis(ids[9].millis + 1)), 10),
    ] {
        let plan = quiet_plan(admin, to).await;
        let repeats = u64::try_from(10 - from).expect("small");
        assert_eq!((only(&plan).from, only(&plan).repeats), (ids[9], Count::exact(repeats)));
        assert_eq!((only(&plan).skips, only(&plan).pending_dropped), (Count::ZERO, Count::ZERO));
        let done = admin.seek(&plan, false).await.expect("moved");
        assert_eq!(done.partitions[0].to, only(&plan).to);
        let own = becomes(admin, |own| own.position == only(&plan).to).await;
        assert_eq!(own.unread, Count::exact(repeats));
        let mut consumer = client.join(READERS).await;
        if from < 10 {
            assert_eq!(consumer.handle(10 - from).await, sent[from..]);
        }
        consumer.gets_nothing(WATCH).await;
    }
}

/// What is pending when a group goes back comes once, not once more by its lease.
pub async fn seek_back_takes_back_what_is_pending(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let sent = texts("event ", 6);
    let ids = client.publish(&sent).await;
    drop(holding(&client, 6).await);
    let plan = quiet_plan(admin, Start::After(ids[1])).await;
    assert_eq!(only(&plan).repeats, Count::exact(4));
    assert_eq!(only(&plan).pending_dropped, Count::exact(4));
    let done = admin.seek(&plan, false).await.expect("moved");
    assert_eq!(done.partitions[0].pending_dropped, 4);
    assert_eq!(becomes(admin, |_| true).await.pending.count, 2, "what lies before stays pending");
    let mut consumer = client.join(READERS).await;
    let mut handled = consumer.handle(6).await;
    handled.sort();
    assert_eq!(handled, sent);
    consumer.gets_nothing(comeback(fixture)).await;
    client.settles_to(READERS, Backlog::default()).await;
}

/// A repeated entry is handled whole, also where it was half settled.
pub async fn seek_forgets_progress(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    client.publish_batch(&["a", "b", "c"]).await;
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(3).await;
    consumer.ack(&deliveries[..2]).await;
    drop(consumer);
    let plan = quiet_plan(admin, Start::Earliest).await;
    admin.seek(&plan, false).await.expect("moved");
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(3).await;
    assert_eq!(payloads(&deliveries), ["a", "b", "c"]);
    consumer.ack(&deliveries[..1]).await;
    consumer.ack(&deliveries[1..]).await;
    client.settles_to(READERS, Backlog::default()).await;
}

/// A group that goes forward skips what the plan said; what is retried stays.
pub async fn seek_forward_skips_what_it_says(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    client.publish(&["retried", "pending"]).await;
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(2).await;
    consumer.end(&deliveries[..1], &retry(comeback(fixture))).await;
    drop(consumer);
    quiet_plan(admin, Start::New).await;
    let sent = texts("event ", 10);
    let ids = client.publish(&sent).await;
    let step = {
        let plan = quiet_plan(admin, Start::After(ids[3])).await;
        let done = admin.seek(&plan, false).await.expect("moved");
        assert_eq!(done.partitions[0].pending_dropped, 1);
        only(&plan).clone()
    };
    assert_eq!((step.repeats, step.skips), (Count::ZERO, Count::exact(4)));
    assert_eq!((step.pending_dropped, step.retrying), (Count::exact(1), 1));
    let mut consumer = client.join(READERS).await;
    let mut handled = consumer.handle(7).await;
    handled.sort();
    assert_eq!(handled[..6], sent[4..]);
    assert_eq!(handled[6], "retried");
    client.settles_to(READERS, Backlog::default()).await;
}

/// A time or an id beyond the end skips nothing that comes later.
pub async fn seek_to_the_end_skips_nothing_later(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    client.publish(&["a", "b"]).await;
    drop(client.join(READERS).await);
    let far = EntryId { millis: u64::MAX / 2, seq: 0 };
    let plan = quiet_plan(admin, Start::After(far)).await;
    // A driver may have read ahead for the consumer that is gone.
    let step = only(&plan);
    assert_eq!(step.skips.count + step.pending_dropped.count, 2, "{step:?}");
    client.publish(&["c"]).await;
    admin.seek(&plan, false).await.expect("moved");
    let mut consumer = client.join(READERS).await;
    assert_eq!(consumer.handle(1).await, ["c"]);
    consumer.gets_nothing(comeback(fixture)).await;
}

/// A group with a live consumer is moved by force only, and a plan is good for where the group
/// was.
pub async fn a_live_group_is_moved_by_force_only(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = client.join(READERS).await;
    let sent = texts("event ", 3);
    client.publish(&sent).await;
    assert_eq!(consumer.handle(3).await, sent);
    let early = plan(admin, Start::Earliest).await;
    assert_eq!(early.live_consumers, [consumer.feed.consumer.clone()]);
    let error = admin.seek(&early, false).await.expect_err("it lives");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.help().is_some());
    admin.seek(&early, true).await.expect("forced");
    assert_eq!(consumer.handle(3).await, sent);
    client.publish(&["more"]).await;
    assert_eq!(consumer.handle(1).await, ["more"]);
    drop(consumer);
    quiet_plan(admin, Start::New).await;
    let error = admin.seek(&early, false).await.expect_err("it moved");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
}

/// A topic grows: groups read the new partitions from their beginning, and none is taken away.
pub async fn a_topic_grows(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    drop(client.join("sleepers").await);
    let mut consumer = client.join(READERS).await;
    client.publish(&["old"]).await;
    assert_eq!(consumer.handle(1).await, ["old"]);
    let change = admin.set_partitions(&topic(TOPIC), 3).await.expect("grown");
    assert_eq!((change.before, change.partitions), (Some(1), 3));
    assert_eq!(change.groups, [group(READERS), group("sleepers")]);
    let publisher = Client::new(fixture).await;
    assert_eq!(publisher.declare(TOPIC).await.len(), 3);
    publisher.publish_to(&partition(TOPIC, 2), &["new"]).await;
    assert_eq!(consumer.handle(1).await, ["new"]);
    let report = admin.topic(&topic(TOPIC)).await.expect("a report");
    let sleepers = report.partitions[2].groups.iter().find(|own| own.group == group("sleepers"));
    assert_eq!(sleepers.expect("it is on the partition").unread, Count::exact(1));
    let mut sleeper = client.join("sleepers").await;
    let mut handled = sleeper.handle(2).await;
    handled.sort();
    assert_eq!(handled, ["new", "old"]);
    let again = admin.set_partitions(&topic(TOPIC), 3).await.expect("nothing to do");
    assert!(again.before == Some(3) && again.groups.is_empty());
    let error = admin.set_partitions(&topic(TOPIC), 2).await.expect_err("shrinks");
    assert!(error.kind() == ErrorKind::Conflict && error.help().is_some(), "{error:?}");
    for bad in [0, PARTITIONS_MAX + 1] {
        let error = admin.set_partitions(&topic(TOPIC), bad).await.expect_err("never right");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let fresh = admin.set_partitions(&topic("fresh"), 2).await.expect("declared");
    assert_eq!((fresh.before, client.declare("fresh").await.len()), (None, 2));
}

/// Who follows the logs without a group takes up new partitions, too, from their beginning.
pub async fn a_broadcast_follows_a_topic_that_grows(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let (Some(admin), Some(broadcasts)) = (client.driver.admin(), client.driver.broadcasts())
    else {
        return;
    };
    let patterns = [crate::pattern::Pattern::all()];
    let mut followed = broadcasts.follow(&group(READERS), &patterns).await.expect("follows");
    client.publish(&["old"]).await;
    let mut next = async || {
        let entries = timeout(DEADLINE, followed.source.fetch(1)).await.expect("in time");
        entries.expect("a working source").remove(0).partition
    };
    assert_eq!(next().await, log());
    admin.set_partitions(&topic(TOPIC), 2).await.expect("grown");
    client.publish_to(&partition(TOPIC, 1), &["new"]).await;
    assert_eq!(next().await, partition(TOPIC, 1));
}

/// A client that knew the topic learns of its new partitions.
pub async fn a_client_learns_that_a_topic_grew(fixture: &dyn Fixture) {
    let (client, old) = (Client::new(fixture).await, Client::new(fixture).await);
    let Some(admin) = client.driver.admin() else { return };
    assert_eq!(old.declare(TOPIC).await.len(), 1);
    admin.set_partitions(&topic(TOPIC), 2).await.expect("grown");
    let learned = timeout(DEADLINE, async {
        while old.declare(TOPIC).await.len() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    });
    learned.await.expect("it learns in time");
}

/// Dead letters of the group: so many events that were given up.
pub(super) async fn bury(client: &Client, payloads: &[String]) -> Consumer {
    client.publish(payloads).await;
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(payloads.len()).await;
    consumer.end(&deliveries, &dead_letter()).await;
    consumer
}

/// Dead letters are paged through, each with all that is known.
pub async fn dead_letters_are_paged(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let sent = texts("event ", 7);
    let consumer = bury(&client, &sent).await;
    let (mut after, mut found) = (EntryId::ZERO, Vec::new());
    loop {
        let page = admin.page(&group(READERS), &log(), after, 3).await.expect("a page");
        assert!(page.letters.len() <= 3);
        found.extend(page.letters);
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(found.len(), 7);
    let mut payloads: Vec<_> = found
        .iter()
        .map(|letter| letter.record.as_ref().expect("an event").payload().to_vec())
        .collect();
    payloads.sort();
    assert_eq!(payloads, sent.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
    let one = admin.page(&group(READERS), &log(), found[4].id.previous(), 1).await.expect("one");
    assert_eq!(one.letters, found[4..5]);
    let summary = DeadLetterSummary::from(&found[4]);
    assert_eq!((summary.id, summary.consumer), (found[4].id, consumer.feed.consumer.clone()));
    assert!(summary.malformed.is_none() && summary.event.is_some());
}

/// A redriven event is attempt 1 again, is the event that it was, and is redriven once.
pub async fn redrive_begins_again(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let ids = client.publish(&["a"]).await;
    let mut consumer = client.join(READERS).await;
    let first = consumer.take(1).await;
    let origin = first[0].origin();
    consumer.end(&first, &retry(Duration::ZERO)).await;
    let second = consumer.take(1).await;
    assert_eq!((second[0].attempt(), origin.entry), (2, ids[0]));
    consumer.end(&second, &dead_letter()).await;
    let page = admin.page(&group(READERS), &log(), EntryId::ZERO, 10).await.expect("a page");
    let letters: Vec<EntryId> = page.letters.iter().map(|letter| letter.id).collect();
    let (readers, place) = (group(READERS), log());
    let redrive = || admin.redrive(&readers, &place, &letters);
    let done = redrive().await.expect("redriven");
    assert_eq!(done, Redriven { moved: 1, ..Redriven::default() });
    let third = consumer.take(1).await;
    assert_eq!((third[0].attempt(), third[0].origin()), (1, origin));
    assert_eq!(third[0].entry.queue, Queue::Retry);
    assert_eq!(third[0].envelope(), first[0].envelope());
    let again = redrive().await.expect("nothing left");
    assert_eq!(again, Redriven { missing: 1, ..Redriven::default() });
    let settled = settle(&*consumer.feed.settler, all(&third, &crate::delivery::Outcome::ack()));
    settled.await;
    consumer.gets_nothing(WATCH).await;
    client.settles_to(READERS, Backlog::default()).await;
}

/// What holds no event cannot be redriven, and stays.
pub async fn the_malformed_is_not_redriven(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    if !fixture.foreign(&log(), vec![("foo".into(), "bar".into())]).await {
        return;
    }
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(1).await;
    consumer.end(&deliveries, &dead_letter()).await;
    let page = admin.page(&group(READERS), &log(), EntryId::ZERO, 10).await.expect("a page");
    assert!(DeadLetterSummary::from(&page.letters[0]).malformed.is_some());
    let done = admin.redrive(&group(READERS), &log(), &[page.letters[0].id]).await;
    assert_eq!(done.expect("an answer"), Redriven { malformed: 1, ..Redriven::default() });
    client.settles_to(READERS, Backlog { dead: 1, ..Backlog::default() }).await;
}

/// Letters are deleted by their ids and up to one, in bounded steps.
pub async fn purge_deletes_what_it_says(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let many = STEP_MAX + 20;
    let _consumer = bury(&client, &texts("event ", many)).await;
    let readers = group(READERS);
    let page = admin.page(&readers, &log(), EntryId::ZERO, many).await.expect("a page");
    assert_eq!(page.letters.len(), STEP_MAX, "a page is one step at most");
    let ids: Vec<EntryId> = page.letters[..5].iter().map(|letter| letter.id).collect();
    assert_eq!(admin.purge(&readers, &log(), &ids).await.expect("deleted"), 5);
    assert_eq!(admin.purge(&readers, &log(), &ids).await.expect("nothing left"), 0);
    let too_many = vec![EntryId::ZERO; STEP_MAX + 1];
    let error = admin.purge(&readers, &log(), &too_many).await.expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let error = admin.redrive(&readers, &log(), &too_many).await.expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let last = becomes(admin, |_| true).await.dead.last.expect("letters are left");
    let mut steps = Vec::new();
    while steps.last() != Some(&0) {
        steps.push(admin.purge_until(&readers, &log(), last).await.expect("deleted"));
    }
    assert_eq!(steps, [100, 15, 0]);
    client.settles_to(READERS, Backlog::default()).await;
}

/// Many pending entries are dropped in several steps, and none is left behind.
pub async fn seek_drops_more_than_one_step(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let many = STEP_MAX * 2 + 50;
    let sent = texts("event ", many);
    let appends: Vec<Append> =
        sent.iter().map(|text| entry(&log(), vec![event(text.clone())])).collect();
    client.append(appends).await;
    drop(holding(&client, many).await);
    let plan = quiet_plan(admin, Start::Earliest).await;
    let expected = u64::try_from(many).expect("small");
    assert_eq!(only(&plan).pending_dropped, Count::exact(expected));
    let done = admin.seek(&plan, false).await.expect("moved");
    assert_eq!(done.partitions[0].pending_dropped, expected);
    let own = becomes(admin, |_| true).await;
    assert_eq!((own.pending.count, own.unread), (0, Count::exact(expected)));
    let mut consumer = client.join(READERS).await;
    assert_eq!(consumer.handle(many).await, sent);
}
