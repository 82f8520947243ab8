//! Two builds of one service in one group on Redis, the newer with one more event type.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::{Bus, Event, ServiceOptions, Services};
use serde::{Deserialize, Serialize};

mod server;

use server::Server;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "billing.invoice.sent")]
struct InvoiceSent {
    number: u64,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "billing.invoice.voided")]
struct InvoiceVoided {
    number: u64,
}

async fn bus(server: &Server) -> Bus {
    let builder = Bus::builder().url(server.url()).services(Services::none());
    builder.build().await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_newer_build_knows_is_handled_by_it_alone() {
    let server = Server::start();
    let (older, newer, publisher) = (bus(&server).await, bus(&server).await, bus(&server).await);
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let routes = |routes: rumormill::Routes<()>| {
        routes.on_fn(move |_: InvoiceSent, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        })
    };
    let options = ServiceOptions::default();
    older.subscribe_routes("billing", options, routes).await.expect("subscribed");
    let voided: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (numbers, counted) = (Arc::clone(&voided), Arc::clone(&sent));
    let routes = |routes: rumormill::Routes<()>| {
        routes
            .on_fn(move |_: InvoiceSent, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok(()))
            })
            .on_fn(move |event: InvoiceVoided, _| {
                numbers.lock().expect("no handler panics").push(event.number);
                std::future::ready(Ok(()))
            })
    };
    newer.subscribe_routes("billing", options, routes).await.expect("subscribed");
    let voids: Vec<_> = (0..1_000).map(|number| InvoiceVoided { number }).collect();
    let known: Vec<_> = (0..100).map(|number| InvoiceSent { number }).collect();
    let answers = publisher.publish_many(&voids).await.into_iter();
    for answer in answers.chain(publisher.publish_many(&known).await) {
        answer.expect("stored");
    }
    let settled = tokio::time::timeout(Duration::from_secs(120), newer.settled()).await;
    settled.expect("in time").expect("the server tells");
    let handled = voided.lock().expect("no handler panics").clone();
    assert_eq!(handled.len(), 1_000, "each once");
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), (0..1_000).collect());
    assert_eq!(sent.load(Ordering::SeqCst), 100, "what both know either may handle");
    assert_eq!((older.counts("billing").unrouted, newer.counts("billing").unrouted), (0, 0));
    let dead = server.ask(&["XLEN", "rm:{billing:0}:dead:billing"]);
    assert_eq!(dead.int(), 0);
    for bus in [older, newer, publisher] {
        bus.drain(Duration::from_secs(5)).await;
    }
}

/// Each of two members knows what the other does not, and both are kept busy with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_builds_that_each_know_something_else_both_get_theirs() {
    let server = Server::start();
    let (left, right, publisher) = (bus(&server).await, bus(&server).await, bus(&server).await);
    let (sent, voided): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
    let counted = Arc::clone(&sent);
    let routes = |routes: rumormill::Routes<()>| {
        routes.on_fn(move |_: InvoiceSent, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        })
    };
    left.subscribe_routes("billing", ServiceOptions::default(), routes).await.expect("subscribed");
    let counted = Arc::clone(&voided);
    let routes = |routes: rumormill::Routes<()>| {
        routes.on_fn(move |_: InvoiceVoided, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(()))
        })
    };
    right.subscribe_routes("billing", ServiceOptions::default(), routes).await.expect("subscribed");
    for number in 0..100 {
        publisher.publish(&InvoiceSent { number }).await.expect("stored");
        publisher.publish(&InvoiceVoided { number }).await.expect("stored");
    }
    let settled = tokio::time::timeout(Duration::from_secs(120), right.settled()).await;
    settled.expect("in time").expect("the server tells");
    assert_eq!((sent.load(Ordering::SeqCst), voided.load(Ordering::SeqCst)), (100, 100));
    for bus in [left, right, publisher] {
        bus.drain(Duration::from_secs(5)).await;
    }
}
