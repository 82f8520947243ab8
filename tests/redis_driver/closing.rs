//! A driver that ends while work of it is under way.

use std::sync::Arc;
use std::time::Duration;

use rumormill::{Bus, Services};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::server::Server;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize, rumormill::Event)]
#[event(type = "shop.order.placed")]
struct Placed;

/// A bus whose handler runs, and goes on when a permit is given.
async fn busy(server: &Server) -> (Bus, Arc<Semaphore>) {
    let bus = Bus::builder().url(server.url()).services(Services::none()).build().await;
    let bus = bus.expect("connected");
    let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, gate) = (Arc::clone(&begun), Arc::clone(&go_on));
    let handler = move |_: Placed, _| {
        let (begins, gate) = (Arc::clone(&begins), Arc::clone(&gate));
        async move {
            begins.add_permits(1);
            gate.acquire().await.expect("the gate stays").forget();
            Ok(())
        }
    };
    bus.subscribe("readers", handler).await.expect("subscribed");
    bus.publish(&Placed).await.expect("stored");
    timeout(PATIENCE, begun.acquire()).await.expect("in time").expect("it stays").forget();
    (bus, go_on)
}

/// A group that drains ends also where the driver was closed beside it.
#[tokio::test]
async fn a_drain_beside_that_of_the_bus_ends() {
    let server = Server::start();
    let (bus, go_on) = busy(&server).await;
    let (first, second) = (bus.clone(), bus.clone());
    let both = async {
        tokio::join!(biased; first.unsubscribe("readers", PATIENCE), async {
            second.drain(Duration::ZERO).await;
            go_on.add_permits(1);
        })
    };
    let (report, ()) = timeout(PATIENCE * 2, both).await.expect("both end");
    assert_eq!(report.expect("it ran").forced, 0);
}

/// Where nobody has a bus any more, what it ran is still handed over.
#[tokio::test]
async fn a_dropped_bus_hands_over_what_it_ran() {
    let server = Server::start();
    let (bus, _go_on) = busy(&server).await;
    drop(bus);
    let pending = || server.say("XPENDING rm:{shop:0}:log readers").list()[0].int();
    let settled = async {
        while pending() > 0 {
            // waits: for the last settlement
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, settled).await.expect("nothing is pending");
}
