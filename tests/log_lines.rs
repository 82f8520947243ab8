//! What a service writes to its log while its server is down: a line for each change, however
//! long it lasts. Alone in its program, since it takes the log for itself.

mod server;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumormill::{Bus, Event};
use serde::{Deserialize, Serialize};
use server::Server;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long the server is down: the client's first deadlines pass, and many attempts.
const DOWN: Duration = Duration::from_secs(7);
/// Lines that this may cost: both groups and the process say once what they cannot do, each of a
/// dozen things, and that they can again.
const LINES_MAX: usize = 30;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "log.written", key = number)]
struct Written {
    number: u32,
}

/// What was written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().expect("nobody panics").clone();
        String::from_utf8_lossy(&bytes).lines().map(ToOwned::to_owned).collect()
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            // waits: for the caller's condition, with a deadline
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_costs_few_lines() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let mut server = Server::durable();
    let bus = Bus::connect(&server.url()).await.expect("connects");
    let seen = Arc::new(Mutex::new(Vec::new()));
    for group in ["one", "two"] {
        let seen = Arc::clone(&seen);
        let handle = move |event: Written, _| {
            seen.lock().expect("nobody panics").push((group, event.number));
            async { Ok(()) }
        };
        bus.subscribe(group, handle).await.expect("subscribes");
    }
    let both = |number: u32| {
        let seen = seen.lock().expect("nobody panics");
        ["one", "two"].iter().all(|group| seen.contains(&(group, number)))
    };
    bus.publish(&Written { number: 1 }).await.expect("stored");
    eventually("both groups handle the first", || both(1)).await;
    let before = log.lines().len();

    server.kill();
    let down = Instant::now();
    let mut refused = 0;
    while down.elapsed() < DOWN {
        // Its deadline passes: callers learn of it by their answers, the log need not repeat it.
        refused += u32::from(bus.publish(&Written { number: 2 }).await.is_err());
    }
    assert!(refused > 0, "the server was down");
    let lines = log.lines();
    let lost = |line: &&String| line.contains("lost the connection");
    assert!(lines.iter().any(|line| lost(&line)), "it was said:\n{}", lines.join("\n"));
    server.restart();
    let wait = async { while bus.publish(&Written { number: 3 }).await.is_err() {} };
    timeout(PATIENCE, wait).await.expect("published again");
    eventually("both groups handle the last", || both(3)).await;
    eventually("it is ready again", || bus.health().is_ready()).await;
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("connected again")), "{}", lines.join("\n"));
    let cost = lines.len() - before;
    assert!(cost <= LINES_MAX, "{cost} lines:\n{}", lines[before..].join("\n"));
    bus.drain(Duration::from_secs(5)).await;
}
