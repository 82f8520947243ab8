//! Lanes: order per key, and nobody waits for a stranger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Fixture;
use super::kit::{DEADLINE, TOPIC, WATCH, topic};
use super::workshop::{Inbox, bus, collect, end, handle, options, publish, settled, text, thing};
use crate::service::ServiceOptions;

/// Events of one key are handled in order, whatever their neighbours do; over several partitions
/// too.
pub async fn order_per_key_under_concurrency(fixture: &dyn Fixture) {
    fixture.partitions(&topic(TOPIC), 3).await;
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let seen = inbox.sender.clone();
    handle(&bus, "g", options(fixture), move |envelope, _| {
        let seen = seen.clone();
        async move {
            sleep(Duration::from_micros(fastrand::u64(0..1_000))).await;
            let key = envelope.key().expect("keyed").to_owned();
            seen.send((key, text(&envelope).parse::<u32>()?)).await?;
            Ok(())
        }
    })
    .await;
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    let events: Vec<_> = (0..350_u32)
        .map(|number| thing(Some(keys[number as usize % keys.len()]), &number.to_string()))
        .collect();
    publish(&bus, events).await;
    let mut by_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (key, number) in inbox.take(350).await {
        by_key.entry(key).or_default().push(number);
    }
    assert_eq!(by_key.len(), keys.len());
    for (key, numbers) in by_key {
        assert_eq!(numbers.len(), 50, "{key}");
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
    settled(&bus).await;
    end(bus).await;
}

/// While one key's handler does not return, events of other keys are handled, many more of them
/// than fit into a lane.
pub async fn a_slow_key_does_not_stop_others(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let (seen, gate) = (inbox.sender.clone(), Arc::new(Semaphore::new(0)));
    let closed = Arc::clone(&gate);
    let options = ServiceOptions { lanes: 8, lane_depth: 4, ..options(fixture) };
    handle(&bus, "g", options, move |envelope, _| {
        let (seen, gate) = (seen.clone(), Arc::clone(&closed));
        async move {
            if envelope.key() == Some("slow") {
                gate.acquire().await?.forget();
            }
            seen.send(envelope.key().unwrap_or_default().to_owned()).await?;
            Ok(())
        }
    })
    .await;
    // More of the slow key than its lane holds, so that the lane is full while others come.
    let mut events: Vec<_> = (0..10).map(|_| thing(Some("slow"), "s")).collect();
    let others: Vec<String> = (0..200).map(|number| format!("key {number}")).collect();
    events.extend(others.iter().map(|key| thing(Some(key), "o")));
    publish(&bus, events).await;
    // One lane in eight is taken by the slow key; what shares it waits for it, by contract.
    let came = inbox.take(100).await;
    assert!(came.iter().all(|key| key != "slow"));
    gate.add_permits(10);
    let rest = inbox.take(110).await;
    assert_eq!(rest.iter().filter(|key| *key == "slow").count(), 10);
    settled(&bus).await;
    end(bus).await;
}

/// A worker whose handlers do not return reads no more than it may hold; the rest stays for the
/// other instances.
pub async fn a_full_lane_pushes_back(fixture: &dyn Fixture) {
    let (stuck, free) = (bus(fixture).await, bus(fixture).await);
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (closed, running) = (Arc::clone(&gate), Arc::clone(&started));
    let small = ServiceOptions { lanes: 2, lane_depth: 2, ..options(fixture) };
    handle(&stuck, "g", small, move |_, _| {
        let (gate, running) = (Arc::clone(&closed), Arc::clone(&running));
        async move {
            running.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await?.forget();
            Ok(())
        }
    })
    .await;
    for number in 0..100 {
        publish(&stuck, vec![thing(None, &number.to_string())]).await;
    }
    let both = async {
        while started.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, both).await.expect("both lanes run");
    sleep(WATCH).await;
    assert_eq!(started.load(Ordering::SeqCst), 2, "one event per lane at a time");
    // What the stuck one does not hold goes to the other: all but two lanes of two and one more
    // of read-ahead, what runs, and one entry of overshoot.
    let mut inbox = Inbox::new();
    collect(&free, "g", options(fixture), &inbox).await;
    let held_max = 3 * 2 + 2 + 2;
    assert_eq!(inbox.take(100 - held_max).await.len(), 100 - held_max);
    gate.add_permits(100);
    settled(&free).await;
    let handled_elsewhere = started.load(Ordering::SeqCst);
    assert_eq!(inbox.rest().len() + 100 - held_max + handled_elsewhere, 100, "each exactly once");
    end(stuck).await;
    end(free).await;
}

/// Events without a key go to whoever is free: as many run at a time as there are lanes.
pub async fn events_without_a_key_use_every_lane(fixture: &dyn Fixture) {
    let (bus, mut inbox) = (bus(fixture).await, Inbox::new());
    let (seen, gate) = (inbox.sender.clone(), Arc::new(Semaphore::new(0)));
    let closed = Arc::clone(&gate);
    let options = ServiceOptions { lanes: 8, ..options(fixture) };
    handle(&bus, "g", options, move |envelope, _| {
        let (seen, gate) = (seen.clone(), Arc::clone(&closed));
        async move {
            seen.send(text(&envelope)).await?;
            gate.acquire().await?.forget();
            Ok(())
        }
    })
    .await;
    // One after the other, so that each finds the lanes of those before it busy.
    for number in 0..8 {
        publish(&bus, vec![thing(None, &number.to_string())]).await;
        assert_eq!(inbox.next().await, number.to_string(), "it does not wait for the others");
    }
    gate.add_permits(8);
    settled(&bus).await;
    end(bus).await;
}
