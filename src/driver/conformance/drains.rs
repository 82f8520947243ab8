//! Ending: what runs is finished, what waits goes to the others, nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::Fixture;
use super::kit::{DEADLINE, WATCH, polled};
use super::workshop::{
    Inbox, backlog, bus, bus_on, collect, end, handle, mortal, options, publish, settled, text,
    thing,
};
use crate::error::ErrorKind;
use crate::service::ServiceOptions;

/// A drain waits for the handlers that run and settles what they did.
pub async fn drain_finishes_what_runs(fixture: &dyn Fixture) {
    let (bus, watcher) = (bus(fixture).await, bus(fixture).await);
    let mut started = Inbox::new();
    let done = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (started.sender.clone(), Arc::clone(&done));
    handle(&bus, "g", options(fixture), move |_, _| {
        let (seen, done) = (seen.clone(), Arc::clone(&count));
        async move {
            seen.send(()).await?;
            sleep(Duration::from_millis(100)).await;
            done.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .await;
    publish(&bus, (0..4).map(|number| thing(None, &number.to_string())).collect()).await;
    started.take(4).await;
    let report = timeout(DEADLINE, bus.drain(Duration::from_secs(5))).await.expect("drained");
    assert_eq!(done.load(Ordering::SeqCst), 4);
    assert_eq!((report.finished, report.handed_over, report.forced), (4, 0, 0));
    assert!(backlog(&watcher, "g").await.is_settled());
    end(watcher).await;
}

/// What waits in a draining worker is run by another one while a handler before it still runs,
/// attempt unchanged, and each event exactly once.
pub async fn drain_hands_over_what_waits(fixture: &dyn Fixture) {
    let (leaving, staying) = (bus(fixture).await, bus(fixture).await);
    let (mut started, gate) = (Inbox::new(), Arc::new(Semaphore::new(0)));
    let (seen, closed) = (started.sender.clone(), Arc::clone(&gate));
    let one_lane = ServiceOptions { lanes: 1, ..options(fixture) };
    handle(&leaving, "g", one_lane, move |envelope, _| {
        let (seen, gate) = (seen.clone(), Arc::clone(&closed));
        async move {
            seen.send(text(&envelope)).await?;
            gate.acquire().await?.forget();
            Ok(())
        }
    })
    .await;
    let sent: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    publish(&leaving, sent.iter().map(|payload| thing(Some("k"), payload)).collect()).await;
    let first = started.next().await;
    let mut inbox = Inbox::new();
    let seen = inbox.sender.clone();
    handle(&staying, "g", options(fixture), move |envelope, ctx| {
        let seen = seen.clone();
        async move {
            seen.send((text(&envelope), ctx.attempt())).await?;
            Ok(())
        }
    })
    .await;
    let before = Instant::now();
    let (report, mut came) = futures_util::future::join(leaving.drain(DEADLINE), async {
        // What waits behind the handler does not wait for it.
        let came = inbox.take(sent.len() - 1).await;
        gate.add_permits(1);
        came
    })
    .await;
    settled(&staying).await;
    // A lease would take longer on any fixture under paused time; on real time this is the bound.
    assert!(before.elapsed() < DEADLINE);
    came.extend(inbox.rest());
    assert!(came.iter().all(|(_, attempt)| *attempt == 1), "{came:?}");
    let mut all: Vec<String> = came.into_iter().map(|(payload, _)| payload).collect();
    let (left, right) = (all.len() as u64, started.rest());
    all.push(first);
    all.extend(right);
    all.sort_by_key(|payload| payload.parse::<u32>().ok());
    assert_eq!(all, sent, "each exactly once");
    assert_eq!((report.handed_over, report.forced), (left, 0));
    end(staying).await;
}

/// A handler that does not end by the deadline is cancelled and its event goes to another worker.
pub async fn drain_forces_what_does_not_end(fixture: &dyn Fixture) {
    let (leaving, staying) = (bus(fixture).await, bus(fixture).await);
    let mut started = Inbox::new();
    let seen = started.sender.clone();
    handle(&leaving, "g", options(fixture), move |_, _| {
        let seen = seen.clone();
        async move {
            seen.send(()).await?;
            std::future::pending().await
        }
    })
    .await;
    publish(&leaving, vec![thing(None, "stuck")]).await;
    started.next().await;
    let report = timeout(DEADLINE, leaving.drain(Duration::from_millis(100))).await;
    let report = report.expect("drained");
    assert_eq!((report.forced, report.is_clean()), (1, false));
    let mut inbox = Inbox::new();
    collect(&staying, "g", options(fixture), &inbox).await;
    assert_eq!(inbox.next().await, "stuck");
    settled(&staying).await;
    end(staying).await;
}

/// Every publish that was accepted has an answer when the drain is over, and a stored one is in
/// the log; what comes later is certainly not stored.
pub async fn drain_answers_what_was_accepted(fixture: &dyn Fixture) {
    let (bus, reader) = (bus(fixture).await, bus(fixture).await);
    let publisher = bus.publisher().clone();
    let (answers, mut answered) = mpsc::channel(1_000);
    for number in 0..500 {
        let (publisher, answers) = (publisher.clone(), answers.clone());
        tokio::spawn(async move {
            let event = thing(None, &number.to_string());
            let answer = publisher.publish_envelope(event).await;
            let _full = answers.send((number, answer)).await;
        });
    }
    drop(answers);
    let first = timeout(DEADLINE, answered.recv()).await.expect("an answer").expect("a task");
    end(bus).await;
    let mut stored = Vec::new();
    let mut next = Some(first);
    while let Some((number, answer)) = next {
        match answer {
            Ok(_) => stored.push(number),
            Err(error) => assert!(error.is_not_stored(), "{number}: {error}"),
        }
        next = timeout(DEADLINE, answered.recv()).await.expect("each has its answer");
    }
    let mut inbox = Inbox::new();
    let seen = inbox.sender.clone();
    handle(&reader, "g", options(fixture), move |envelope, _| {
        let seen = seen.clone();
        async move {
            seen.send(text(&envelope).parse::<u32>()?).await?;
            Ok(())
        }
    })
    .await;
    settled(&reader).await;
    let mut came = inbox.rest();
    came.sort_unstable();
    stored.sort_unstable();
    assert_eq!(came, stored, "stored is in the log, not stored is not");
    let late = publisher.publish_envelope(thing(None, "late")).await;
    let error = late.expect_err("the bus is closed");
    assert!(error.is_not_stored() && error.error().kind() == ErrorKind::Closed, "{error}");
    end(reader).await;
}

/// After `unsubscribe` returns no handler of the group starts; the group keeps what comes.
pub async fn unsubscribe_starts_no_handler(fixture: &dyn Fixture) {
    let driver = fixture.driver().await;
    let bus = bus_on(driver).await;
    let mut inbox = Inbox::new();
    for round in 0..2 {
        let seen = inbox.sender.clone();
        handle(&bus, "g", options(fixture), move |envelope, _| {
            let seen = seen.clone();
            async move {
                seen.send((round, text(&envelope))).await?;
                Ok(())
            }
        })
        .await;
        if round == 0 {
            publish(&bus, vec![thing(None, "first")]).await;
            assert_eq!(inbox.next().await, (0, "first".to_owned()));
            bus.unsubscribe("g", Duration::from_secs(5)).await.expect("was subscribed");
            publish(&bus, vec![thing(None, "second")]).await;
            sleep(WATCH).await;
            assert!(inbox.rest().is_empty(), "a handler started");
        }
    }
    assert_eq!(inbox.next().await, (1, "second".to_owned()));
    let conflict = bus.subscribe_any("g", ">", |_, _| async { Ok(()) }).await;
    assert_eq!(conflict.expect_err("taken").kind(), ErrorKind::Conflict);
    assert!(bus.unsubscribe("other", Duration::ZERO).await.is_err());
    end(bus).await;
}

/// A publish that is dropped at any await stores its event once or not at all, and takes nothing
/// from those after it.
pub async fn publish_dropped_at_any_await_loses_nothing(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    collect(&bus, "g", options(fixture), &inbox).await;
    let mut answered = Vec::new();
    for polls in 0..20 {
        let payload = format!("event {polls}");
        let publish = bus.publisher().publish_envelope(thing(Some("k"), &payload));
        if let Some(answer) = polled(publish, polls).await {
            answer.expect("stored");
            answered.push(payload);
        }
    }
    publish(&bus, vec![thing(Some("k"), "last")]).await;
    settled(&bus).await;
    let came = inbox.rest();
    let mut distinct = came.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), came.len(), "none twice: {came:?}");
    assert!(answered.iter().all(|payload| came.contains(payload)), "{answered:?} {came:?}");
    assert_eq!(came.last().map(String::as_str), Some("last"));
    end(bus).await;
}

/// A bus that is dropped stops reading; what its handlers were at comes back to the group.
pub async fn a_dropped_bus_ends_its_workers(fixture: &dyn Fixture) {
    let (dropped, staying) = (bus(fixture).await, bus(fixture).await);
    let mut started = Inbox::new();
    let seen = started.sender.clone();
    handle(&dropped, "g", mortal(fixture), move |_, _| {
        let seen = seen.clone();
        async move {
            seen.send(()).await?;
            std::future::pending().await
        }
    })
    .await;
    publish(&staying, vec![thing(None, "a")]).await;
    started.next().await;
    drop(dropped);
    let mut inbox = Inbox::new();
    collect(&staying, "g", mortal(fixture), &inbox).await;
    assert_eq!(inbox.next().await, "a");
    settled(&staying).await;
    end(staying).await;
}
