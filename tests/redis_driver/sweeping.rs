//! What a sweep costs the server where very much is pending. By hand, with a million:
//!
//! ```text
//! PENDING=1000000 cargo test --test redis_driver a_sweep -- --nocapture
//! ```

use std::time::Duration;

use rumormill::driver::{Driver, LeaseTimes, Subscribe, Subscription};
use tokio::time::{Instant, timeout};

use crate::kit::*;
use crate::server::Server;

const LOG: &str = "rm:{t:0}:log";
/// Entries that are made by one script.
const CHUNK: u64 = 10_000;
/// Most entries that one command may name or be given.
const COUNT_MAX: u64 = 100;

/// A log with so many entries, all of them pending for a consumer that nobody knows.
fn fill(server: &Server, entries: u64) {
    server.ask(&["HSET", "rm:topics", "t", r#"{"partitions":1}"#]);
    server.ask(&["XGROUP", "CREATE", LOG, "g", "0", "MKSTREAM"]);
    let script = "for _ = 1, ARGV[1] do \
         redis.call('XADD', KEYS[1], '*', 'type', 't.x', 'data', '1') end \
         redis.call('XREADGROUP', 'GROUP', 'g', 'busy', 'COUNT', ARGV[1], 'STREAMS', KEYS[1], '>')";
    let mut left = entries;
    while left > 0 {
        let chunk = left.min(CHUNK);
        server.ask(&["EVAL", script, "1", LOG, &chunk.to_string()]);
        left -= chunk;
    }
}

/// From now on every command is in the slow log.
fn watch(server: &Server) {
    server.say("CONFIG SET slowlog-max-len 1000000");
    server.say("CONFIG SET slowlog-log-slower-than 0");
    server.say("SLOWLOG RESET");
    server.say("CONFIG RESETSTAT");
}

/// The commands that were seen, with what each took in microseconds.
fn seen(server: &Server) -> Vec<(u64, Vec<String>)> {
    let log = server.say("SLOWLOG GET -1");
    let command = |row: &crate::server::Reply| {
        let words = row.list()[3].list().iter().map(|word| word.text()).collect();
        (u64::try_from(row.list()[2].int()).expect("a time"), words)
    };
    log.list().iter().map(command).collect()
}

fn check_bounds(commands: &[(u64, Vec<String>)]) {
    for (_, words) in commands {
        let count = |at: usize| words[at].parse::<u64>().expect("a count");
        match words[0].to_uppercase().as_str() {
            "XAUTOCLAIM" => assert!(count(7) <= COUNT_MAX, "{words:?}"),
            "XPENDING" if words.len() > 3 => {
                assert!(words[3] != "IDLE" && count(5) <= COUNT_MAX, "{words:?}");
            }
            "XCLAIM" => assert!(words.len() as u64 <= COUNT_MAX + 10, "{words:?}"),
            _ => {}
        }
    }
}

fn print(server: &Server, title: &str, commands: &[(u64, Vec<String>)], took: Duration) {
    println!("{title}, {took:?}:");
    let mut names: Vec<String> =
        commands.iter().map(|(_, words)| words[0].to_uppercase()).collect();
    names.sort();
    names.dedup();
    for name in names.iter().filter(|name| name.starts_with('X') || *name == "EVALSHA") {
        let own = commands.iter().filter(|(_, words)| words[0].eq_ignore_ascii_case(name));
        let mut times: Vec<u64> = own.map(|(micros, _)| *micros).collect();
        times.sort_unstable();
        let (calls, sum) = (times.len() as u64, times.iter().sum::<u64>());
        let (mean, p99) = (sum / calls, times[times.len() * 99 / 100]);
        let most = times[times.len() - 1];
        println!("  {name:<12} {calls:>7} calls, mean {mean} us, p99 {p99} us, most {most} us");
    }
    let stats = server.say("INFO commandstats").text();
    for line in stats.lines().filter(|line| line.starts_with("cmdstat_xautoclaim")) {
        println!("  {line}");
    }
}

/// Of a sweep that finds nothing, and of one that takes over: no command touches more than a
/// hundred entries, however many are pending. The times are printed, not judged.
#[tokio::test]
async fn a_sweep_takes_small_steps() {
    let entries = std::env::var("PENDING").ok().and_then(|count| count.parse().ok());
    let entries: u64 = entries.unwrap_or(20_000);
    let server = Server::start();
    fill(&server, entries);
    let driver = connect(&server).await;
    // A lease that is not over: everything is looked at, nothing is taken.
    let hour = Duration::from_secs(3600);
    let lease = LeaseTimes { lease: hour, ..short_lease() };
    let wish = |lease| Subscription { lease, ..wish("g", &["t.>"]) };
    let mut feed = driver.subscribe(wish(lease)).await.expect("subscribes");
    watch(&server);
    let began = Instant::now();
    let waits = timeout(Duration::from_secs(1), feed.source.fetch(1_000)).await;
    assert!(waits.is_err(), "nothing is to be taken");
    let commands = seen(&server);
    print(&server, "a second of sweeping over what is not abandoned", &commands, began.elapsed());
    check_bounds(&commands);
    assert!(commands.iter().any(|(_, words)| words[0].eq_ignore_ascii_case("XAUTOCLAIM")));
    drop(feed);

    let mut feed = driver.subscribe(wish(short_lease())).await.expect("subscribes");
    watch(&server);
    let (began, mut taken) = (Instant::now(), Vec::new());
    while taken.len() < 1_000 {
        taken.extend(
            timeout(PATIENCE, feed.source.fetch(1_000)).await.expect("in time").expect("reads"),
        );
    }
    let commands = seen(&server);
    print(&server, "taking over a thousand", &commands, began.elapsed());
    check_bounds(&commands);
    driver.close().await;
}
