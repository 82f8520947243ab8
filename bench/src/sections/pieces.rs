//! Single parts of the path, and a bus that only waits.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::{Command, Stdio};

use rumormill::{Clock, EventId, EventType, Matcher, Pattern, SystemClock};

use crate::measure::now_ns;
use crate::peers::Needs;
use crate::results::Measured;
use crate::server::Server;
use crate::stats::{short, spread};
use crate::{Error, idle};

const PATTERNS: usize = 100_000;

pub(crate) const EVENT_ID: &str = "event id, ns";
pub(crate) const FIRST_EXACT: &str = "route among 100,000 exact types, ns";
pub(crate) const FIRST_PATTERN: &str = "route among 100,000 patterns, ns";
pub(crate) const IDLE: [[&str; 2]; 2] = [
    ["idle in memory: start, s", "idle in memory: resident, MB"],
    ["idle on Redis: start, s", "idle on Redis: resident, MB"],
];

pub(super) fn measure(quick: bool) -> Result<BTreeMap<String, Vec<f64>>, Error> {
    let rounds = if quick { 2 } else { 5 };
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut add = |name: &str, value: f64| figures.entry(name.to_owned()).or_default().push(value);
    let (exact, types) = routes(|n| format!("shop.thing{n}.happened"))?;
    let (patterns, matched) = routes(|n| format!("shop.thing{n}.*"))?;
    for _ in 0..rounds {
        add(EVENT_ID, event_id_ns());
        add(FIRST_EXACT, first_ns(&exact, &types));
        add(FIRST_PATTERN, first_ns(&patterns, &matched));
        let memory = idle_of("memory:")?;
        add(IDLE[0][0], memory.seconds);
        add(IDLE[0][1], memory.megabytes);
        let server = Server::start(Needs::Redis, false)?;
        let redis = idle_of(&server.url(server.port()))?;
        add(IDLE[1][0], redis.seconds);
        add(IDLE[1][1], redis.megabytes);
    }
    Ok(figures)
}

fn event_id_ns() -> f64 {
    const CALLS: u32 = 2_000_000;
    let now = SystemClock.now();
    let began = now_ns();
    for _ in 0..CALLS {
        black_box(EventId::new(black_box(now)));
    }
    (now_ns() - began) as f64 / f64::from(CALLS)
}

type Table = (Matcher<usize>, Vec<EventType>);

/// So many patterns, and for some of them a type that each matches.
fn routes(pattern: impl Fn(usize) -> String) -> Result<Table, Error> {
    let mut matcher = Matcher::new();
    for number in 0..PATTERNS {
        matcher.insert(&Pattern::new(pattern(number))?, number);
    }
    let types = (0..PATTERNS).step_by(97);
    let types = types.map(|number| EventType::new(format!("shop.thing{number}.happened")));
    Ok((matcher, types.collect::<Result<_, _>>()?))
}

fn first_ns(matcher: &Matcher<usize>, types: &[EventType]) -> f64 {
    const PASSES: usize = 200;
    let began = now_ns();
    for _ in 0..PASSES {
        for event_type in types {
            black_box(matcher.first(black_box(event_type)));
        }
    }
    (now_ns() - began) as f64 / (PASSES * types.len()) as f64
}

/// In a process of its own, whose memory is nobody else's.
fn idle_of(url: &str) -> Result<idle::Idle, Error> {
    let output = Command::new(std::env::current_exe()?)
        .args(["idle", url])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).map_err(|_| format!("it ended with {}", output.status).into())
}

pub(super) fn markdown(measured: &Measured) -> String {
    let mut text = String::from("| | median | spread |\n|---|---|---|\n");
    for (name, values) in &measured.figures {
        let median = short(crate::stats::median(values.iter().copied()));
        let spread = spread(values.iter().copied()) * 100.0;
        text += &format!("| {name} | {median} | ±{spread:.0} % |\n");
    }
    text
}
