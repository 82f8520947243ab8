//! A server with groups and dead letters, made with the library.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which needs all of it")]

use std::process::Command;
use std::time::Duration;

use rumormill::{Bus, Context, Event, HandlerError, Services};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cli::{bus_cli, lines, run};
use crate::server::Server;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.placed", key = note)]
pub struct Placed {
    pub number: u64,
    pub note: String,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "orders.order.cancelled")]
pub struct Cancelled {
    pub number: u64,
}

/// A server, and what drives the library in a test.
pub struct Lab {
    pub server: Server,
    pub runtime: Runtime,
}

impl Lab {
    pub fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        Self { server: Server::start(), runtime }
    }

    pub fn bus(&self) -> Bus {
        let builder = Bus::builder().url(self.server.url()).services(Services::none());
        self.runtime.block_on(builder.build()).expect("the server answers")
    }

    /// Publishes so many orders, numbered from 0.
    pub fn publish(&self, bus: &Bus, count: u64) {
        self.runtime.block_on(async {
            let orders: Vec<Placed> =
                (0..count).map(|number| Placed { number, note: format!("n{number}") }).collect();
            for receipt in bus.publish_many(&orders).await {
                receipt.expect("stored");
            }
        });
    }

    /// A group that rejects every order, at work.
    pub fn rejecting(&self, group: &'static str) -> Bus {
        let bus = self.bus();
        self.runtime.block_on(async {
            let reject = |_: Placed, _: Context| async {
                Err(HandlerError::reject("no such \u{1b}[31m customer"))
            };
            bus.subscribe(group, reject).await.expect("subscribed");
        });
        bus
    }

    /// Leaves `count` dead letters of `orders.order.placed` with a group that is gone.
    pub fn dead(&self, group: &'static str, count: u64) {
        let bus = self.rejecting(group);
        self.publish(&bus, count);
        self.runtime.block_on(bus.settled()).expect("all is settled");
        self.leave(&bus);
    }

    /// Ends a bus; its consumers leave their groups.
    pub fn leave(&self, bus: &Bus) {
        self.runtime.block_on(bus.drain(Duration::from_secs(10)));
    }

    pub fn cli(&self, line: &[&str]) -> Command {
        bus_cli(&self.server, line)
    }

    /// Runs to a good end; what it wrote, as JSON.
    pub fn json(&self, line: &[&str]) -> Vec<Value> {
        let lines = lines(self.cli(line).args(["--output", "json"]));
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The one object that it wrote.
    pub fn object(&self, line: &[&str]) -> Value {
        let mut objects = self.json(line);
        assert_eq!(objects.len(), 1, "{objects:?}");
        objects.remove(0)
    }

    /// Runs to a bad end; what it said, and its exit code.
    pub fn refused(&self, line: &[&str]) -> (String, i32) {
        let (out, err, code) = run(&mut self.cli(line));
        assert_ne!(code, 0, "{out}{err}");
        (err, code)
    }

    /// Waits for the group's dead letters to be as `is_so` wants them.
    pub fn until(&self, group: &str, is_so: impl Fn(usize) -> bool) {
        for _ in 0..1000 {
            if is_so(self.letters(group).len()) {
                return;
            }
            // waits: for other processes.
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the dead letters of {group} did not become what they should");
    }

    /// The ids of a group's dead letters.
    pub fn letters(&self, group: &str) -> Vec<String> {
        lines(&mut self.cli(&["dead-letters", "list", "--group", group, "--output", "raw"]))
    }
}
