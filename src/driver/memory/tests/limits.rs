//! Limits: appends wait for room in their order, and nothing grows without one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, advance, timeout};

use super::*;

#[tokio::test(start_paused = true)]
async fn appends_wait_for_room_and_get_it_in_their_order() {
    let driver = driver(room_for(2)).await;
    let mut feed = subscribe(&driver, "slow").await;
    let names = ["0", "1", "2", "3", "4", "5", "6", "7"];
    let appends = names.map(|name| {
        let driver = Arc::clone(&driver);
        tokio::spawn(async move { driver.append(vec![append(name)]).await })
    });
    let mut found = Vec::new();
    while found.len() < names.len() {
        let deliveries = fetch(&mut feed, 10).await;
        assert!(deliveries.len() <= 2, "there is room for two");
        for delivery in &deliveries {
            found.push(delivery.record().as_ref().unwrap().payload().clone());
        }
        end(&feed, deliveries, Outcome::ack()).await;
    }
    assert_eq!(found, names);
    for append in appends {
        assert!(append.await.unwrap()[0].is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_without_room_is_not_stored_and_says_who_is_in_the_way() {
    let driver = driver(room_for(2)).await;
    let mut feed = subscribe(&driver, "sleepers").await;
    let answers = driver.append(["1", "2", "3", "4"].map(append).to_vec()).await;
    assert!(answers[..2].iter().all(Result::is_ok));
    for answer in &answers[2..] {
        assert_eq!(refusal(answer).kind(), ErrorKind::Timeout);
        let help = refusal(answer).help().unwrap();
        assert!(help.contains("group sleepers has 2 entries"), "{help}");
    }
    assert_eq!(fetch(&mut feed, 10).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_dropped_while_it_waits_lets_the_next_pass() {
    let driver = driver(room_for(1)).await;
    let mut feed = subscribe(&driver, "slow").await;
    driver.append(vec![append("1")]).await[0].as_ref().unwrap();
    let dropped = timeout(Duration::from_secs(1), driver.append(vec![append("2")])).await;
    assert!(dropped.is_err());
    let third = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.append(vec![append("3")]).await }
    });
    for payload in ["1", "3"] {
        let deliveries = fetch(&mut feed, 10).await;
        assert_eq!(deliveries[0].record().as_ref().unwrap().payload(), payload);
        end(&feed, deliveries, Outcome::ack()).await;
    }
    assert!(third.await.unwrap()[0].is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_small_append_does_not_overtake_a_large_one() {
    let driver = driver(room_for(3)).await;
    let mut feed = subscribe(&driver, "slow").await;
    driver.append(["1", "2"].map(append).to_vec()).await;
    let two = [append("3"), append("4")].map(|mut append| append.envelopes.remove(0));
    let large = Append { envelopes: two.to_vec(), ..append("3") };
    let mut found = Vec::new();
    let read = async {
        while found.len() < 5 {
            let deliveries = fetch(&mut feed, 1).await;
            let payload = |own: &Delivery| own.record().as_ref().unwrap().payload().clone();
            found.extend(deliveries.iter().map(payload));
            end(&feed, deliveries, Outcome::ack()).await;
        }
    };
    let small = vec![append("5")];
    let (large, small, ()) = tokio::join!(driver.append(vec![large]), driver.append(small), read);
    assert!(large[0].is_ok() && small[0].is_ok());
    assert_eq!(found, ["1", "2", "3", "4", "5"]);
}

#[tokio::test(start_paused = true)]
async fn closing_answers_the_appends_that_wait() {
    let driver = driver(room_for(1)).await;
    let _feed = subscribe(&driver, "slow").await;
    let (appends, start) = (["1", "2"].map(append).to_vec(), Instant::now());
    let (answers, ()) = tokio::join!(driver.append(appends), driver.close());
    assert_eq!(start.elapsed(), Duration::ZERO, "at once, not at the deadline");
    assert!(answers[0].is_ok());
    assert_eq!(refusal(&answers[1]).kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_stored_is_refused_at_once() {
    let driver = driver(room_for(2)).await;
    let mut large = append("1");
    large.envelopes = vec![large.envelopes[0].clone(); 3];
    let empty = Append { envelopes: Vec::new(), ..append("1") };
    let unknown = Append { partition: partition(1), ..append("1") };
    let answers = driver.append(vec![large, empty, unknown, append("2")]).await;
    let kinds: Vec<_> = answers[..3].iter().map(|answer| refusal(answer).kind()).collect();
    assert_eq!(kinds, [ErrorKind::TooLarge, ErrorKind::Invalid, ErrorKind::Invalid]);
    assert!(answers[3].is_ok());
}

#[tokio::test(start_paused = true)]
async fn delayed_and_retried_events_count_as_unsettled() {
    let driver = driver(room_for(2)).await;
    let mut feed = subscribe(&driver, "readers").await;
    let delayed = Append { delay: Duration::from_secs(3600), ..append("l") };
    driver.append(vec![delayed]).await[0].as_ref().unwrap();
    assert_eq!(driver.store.state().unsettled_bytes, weight());
    driver.append(vec![append("1")]).await[0].as_ref().unwrap();
    let deliveries = fetch(&mut feed, 1).await;
    end(&feed, deliveries, retry()).await;
    assert_eq!(driver.store.state().unsettled_bytes, 2 * weight());
    for _ in 0..2 {
        let deliveries = fetch(&mut feed, 1).await;
        end(&feed, deliveries, Outcome::ack()).await;
        advance(Duration::from_secs(3600)).await;
    }
    assert_eq!(driver.store.state().unsettled_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn history_is_kept_per_topic_and_the_oldest_goes() {
    let options =
        MemoryOptions { history_events_max: 6, partitions: 2, ..MemoryOptions::default() };
    let driver = driver(options).await;
    let other = |payload| Append { partition: partition(1), ..append(payload) };
    for payload in ["0", "1", "2", "3", "4"] {
        driver.append(vec![append(payload), other(payload)]).await;
    }
    let mut late = subscribe(&driver, "late").await;
    let deliveries = fetch(&mut late, 100).await;
    let texts = |index| {
        let own = deliveries.iter().filter(move |own| own.entry.partition == partition(index));
        own.map(|own| own.record().as_ref().unwrap().payload().clone()).collect::<Vec<_>>()
    };
    assert_eq!((texts(0), texts(1)), (vec!["2".into(), "3".into(), "4".into()], texts(0)));
    // What the late group has still to settle is no history: nothing drives it out.
    for _ in 0..20 {
        driver.append(vec![append("x")]).await[0].as_ref().unwrap();
    }
    let later = fetch(&mut late, 100).await;
    assert_eq!(later.len(), 20);
    end(&late, later, Outcome::ack()).await;
    drop(late);
    let mut heir = subscribe(&driver, "late").await;
    let inherited = fetch(&mut heir, 100).await;
    assert_eq!(inherited.len(), 6);
    end(&heir, inherited, Outcome::ack()).await;
    assert_eq!(
        driver.store.state().parts.iter().map(|part| part.log.entries.len()).sum::<usize>(),
        6
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_grows_with_the_events_that_were_settled() {
    let options = MemoryOptions { history_events_max: 100, ..MemoryOptions::default() };
    let driver = driver(options).await;
    let mut feeds = Vec::new();
    for group in ["a", "b", "c"] {
        feeds.push(subscribe(&driver, group).await);
    }
    driver.append(vec![append("held")]).await[0].as_ref().unwrap();
    let held = fetch(&mut feeds[0], 1).await;
    for feed in &mut feeds[1..] {
        let deliveries = fetch(feed, 1).await;
        end(feed, deliveries, Outcome::ack()).await;
    }
    for _ in 0..300 {
        driver.append(vec![append("event"); 10]).await;
        for feed in &mut feeds {
            let mut deliveries = fetch(feed, 10).await;
            let retried = deliveries.split_off(9);
            end(feed, deliveries, Outcome::ack()).await;
            end(feed, retried, retry()).await;
            advance(Duration::from_secs(1)).await;
            let again = fetch(feed, 10).await;
            end(feed, again, Outcome::ack()).await;
        }
    }
    let state = driver.store.state();
    let part = &state.parts[0];
    assert_eq!(part.log.entries.len(), 101, "the history and what is held");
    assert_eq!(state.unsettled_bytes, held[0].entry.weight());
    for (group, own) in &part.groups {
        let (backlog, held) = (own.backlog(), u64::from(*group == 0));
        assert_eq!((backlog.unread, backlog.pending, backlog.due), (0, held, 0));
        assert!(own.retry.is_empty());
    }
    assert!(state.waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_pauses_where_its_dead_letters_are_at_the_limit() {
    let options = MemoryOptions { dead_letters_max: 2, ..MemoryOptions::default() };
    let driver = driver(options).await;
    let mut full = subscribe(&driver, "full").await;
    let mut other = subscribe(&driver, "other").await;
    driver.append(["1", "2", "3"].map(append).to_vec()).await;
    let deliveries = fetch(&mut full, 2).await;
    end(&full, deliveries, reject()).await;
    let more = timeout(Duration::from_secs(5), full.source.fetch(1)).await;
    assert!(more.is_err(), "it gets no more");
    let group = "full".parse().unwrap();
    assert_eq!(driver.backlog(&group).await.unwrap().unread, 1);
    assert_eq!(driver.dead_letters(&group, 5).await.unwrap().len(), 2);
    assert_eq!(fetch(&mut other, 5).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_falls_behind_the_history_counts_what_it_missed() {
    let options = MemoryOptions { history_events_max: 3, ..MemoryOptions::default() };
    let driver = driver(options).await;
    let (name, all) = (GroupName::new("b").unwrap(), [Pattern::all()]);
    driver.append(vec![append("0")]).await[0].as_ref().unwrap();
    let mut followed = driver.follow(&name, &all).await.unwrap();
    let mut found = Vec::new();
    for (payloads, missed) in [(["1", "2"].as_slice(), 0), (&["3", "4", "5", "6", "7"], 2)] {
        driver.append(payloads.iter().map(|payload| append(payload)).collect()).await;
        for entry in timeout(DEADLINE, followed.source.fetch(10)).await.unwrap().unwrap() {
            found.push(entry.records[0].as_ref().unwrap().payload().clone());
        }
        assert_eq!(followed.missed.entries(), missed);
    }
    assert_eq!(found, ["1", "2", "5", "6", "7"]);
}
