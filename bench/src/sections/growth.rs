//! How cost grows, curve by curve.

use super::{Kind, Section};
use crate::case::{Case, Series};
use crate::chart::{Chart, Draw, Scale};
use crate::job::Job;

const EVENTS: Draw = Draw { name: "", of: Series::rate };
const SERVER: Draw = Draw { name: "server", of: |series| series.median(|round| round.server_us) };
const PUBLISHER: Draw =
    Draw { name: "publisher", of: |series| series.median(|round| round.publisher_us) };
const CONSUMER: Draw =
    Draw { name: "consumer", of: |series| series.median(|round| round.consumer_us) };
const P50: Draw = Draw { name: "p50", of: |series| series.latency_us(0) };
const P99: Draw = Draw { name: "p99", of: |series| series.latency_us(2) };
const ALL_CPU: &[Draw] = &[SERVER, PUBLISHER, CONSUMER];
const LATE: &[Draw] = &[P50, P99];
const PER_EVENT: &str = "microseconds of CPU per event";

/// The line with half a millisecond.
pub(crate) const LINGER_LINE: &str = "0.5 ms:";

fn job() -> Job {
    Job { payload: 100, groups: 1, window: 4096, ..Job::default() }
}

/// All, or the first and every second of them.
fn some<T: Copy>(quick: bool, values: &[T]) -> Vec<T> {
    values.iter().copied().step_by(if quick { 2 } else { 1 }).collect()
}

fn growth(name: &'static str, cases: fn(bool) -> Vec<Case>, chart: Chart) -> Section {
    Section { name, kind: Kind::Growth { cases, chart } }
}

pub(super) fn sections() -> Vec<Section> {
    let mut all = vec![by_rate(), by_delay(), by_delay_latency(), by_log(), by_topics()];
    all.extend([by_groups(), by_patterns(), by_backlog(), by_payload()]);
    all.extend([by_lanes(), by_lanes_waiting(), by_slow()]);
    all
}

fn by_rate() -> Section {
    growth(
        "growth-rate",
        |_| {
            let mut cases = Vec::new();
            for (line, linger_us) in [("no linger:", 0), (LINGER_LINE, 500)] {
                for rate in [1_000, 10_000, 50_000, 0] {
                    let x = if rate == 0 { 1e6 } else { rate as f64 };
                    let job = Job { rate, linger_us, ..job() };
                    cases.push(Case::at("rumormill", line, x, job));
                }
            }
            cases
        },
        Chart {
            title: "CPU per event and rate",
            text: "What an event costs where few come, and where many do; the last column of \
                   points is full speed. Few events a second cost wake-ups: of the publisher, of \
                   the server, of the consumer.",
            x: ("events a second; 1 M: as fast as it goes", Scale::Ranks),
            y: (PER_EVENT, Scale::Logarithmic),
            draws: ALL_CPU,
        },
    )
}

fn by_delay() -> Section {
    growth(
        "growth-delay",
        |_| {
            let mut cases = Vec::new();
            for peer in ["rumormill", "rumormill-entry", "ceiling-batch"] {
                for millis in [0, 1, 5] {
                    let (delay_us, window) = (millis * 1000, 512);
                    let job = Job { delay_us, window, proxied: true, ..job() };
                    cases.push(Case::at(peer, peer, millis as f64, job));
                }
            }
            cases
        },
        Chart {
            title: "A longer way to Redis",
            text: "Full speed, with 512 publishes under way, through a proxy that adds a round \
                   trip.",
            x: ("added round trip, milliseconds", Scale::Ranks),
            y: ("events a second", Scale::Logarithmic),
            draws: &[EVENTS],
        },
    )
}

fn by_delay_latency() -> Section {
    growth(
        "growth-delay-latency",
        |_| {
            let point = |millis: u64| {
                let job = Job { delay_us: millis * 1000, proxied: true, rate: 1_000, ..job() };
                Case::at("rumormill", "1,000 a second:", millis as f64, job)
            };
            [0, 1, 5].map(point).to_vec()
        },
        Chart {
            title: "A longer way to Redis, and how late events are",
            text: "From the moment at which an event is due to its handler, at 1,000 events a \
                   second. An event crosses the way twice: to Redis, and from it.",
            x: ("added round trip, milliseconds", Scale::Ranks),
            y: ("microseconds", Scale::Linear),
            draws: LATE,
        },
    )
}

fn by_log() -> Section {
    growth(
        "growth-aof",
        |quick| {
            let mut cases = Vec::new();
            for (line, everysec) in [("no log", false), ("everysec", true)] {
                for groups in some(quick, &[1, 2, 4, 8]) {
                    for (peer, own) in [("rumormill", ""), ("rumormill-entry", ", one per entry")] {
                        let job = Job { groups, everysec, ..job() };
                        cases.push(Case::at(peer, &format!("{line}{own}"), groups as f64, job));
                    }
                }
            }
            cases
        },
        Chart {
            title: "Redis that appends to a file (`appendfsync everysec`)",
            text: "Every entry that a group takes is written to the file as well, so what one \
                   entry costs counts once more for each group.",
            x: ("groups", Scale::Ranks),
            y: ("events a second", Scale::Logarithmic),
            draws: &[EVENTS],
        },
    )
}

fn by_topics() -> Section {
    growth(
        "growth-topics",
        |quick| {
            let points = some(quick, &[1, 3, 10, 30, 100]);
            let case = |topics| Case::at("rumormill", "", topics as f64, Job { topics, ..job() });
            points.into_iter().map(case).collect()
        },
        Chart {
            title: "Topics",
            text: "Events go to all topics by turns, so a batch of each holds fewer.",
            x: ("topics", Scale::Logarithmic),
            y: (PER_EVENT, Scale::Linear),
            draws: ALL_CPU,
        },
    )
}

fn by_groups() -> Section {
    growth(
        "growth-groups",
        |quick| {
            let points = some(quick, &[1, 3, 10, 25, 50]);
            let case = |groups| Case::at("rumormill", "", groups as f64, Job { groups, ..job() });
            points.into_iter().map(case).collect()
        },
        Chart {
            title: "Groups",
            text: "Every group gets every event; the cost is for an event with all its \
                   deliveries.",
            x: ("groups", Scale::Linear),
            y: (PER_EVENT, Scale::Linear),
            draws: ALL_CPU,
        },
    )
}

fn by_patterns() -> Section {
    growth(
        "growth-patterns",
        |quick| {
            let points = some(quick, &[10, 100, 1_000, 10_000, 100_000]);
            let case =
                |patterns| Case::at("rumormill", "", patterns as f64, Job { patterns, ..job() });
            points.into_iter().map(case).collect()
        },
        Chart {
            title: "Patterns",
            text: "Routes with patterns in the group, of which one type has its own.",
            x: ("patterns", Scale::Logarithmic),
            y: (PER_EVENT, Scale::Linear),
            draws: ALL_CPU,
        },
    )
}

fn by_backlog() -> Section {
    growth(
        "growth-backlog",
        |quick| {
            let most = if quick { 100_000 } else { 5_000_000 };
            let points = [1_000, 10_000, 100_000, 1_000_000, 5_000_000];
            let case = |events| {
                // Small ones, so that all of them are kept.
                let job = Job { payload: 16, backlog: true, events, ..job() };
                Case::at("rumormill", "", events as f64, job)
            };
            points.into_iter().filter(|events| *events <= most).map(case).collect()
        },
        Chart {
            title: "A backlog",
            text: "All is published before the group has a consumer; what it costs to take it, \
                   from the start of the consumer.",
            x: ("events that wait", Scale::Logarithmic),
            y: (PER_EVENT, Scale::Logarithmic),
            draws: &[SERVER, CONSUMER],
        },
    )
}

fn by_payload() -> Section {
    growth(
        "growth-payload",
        |quick| {
            let points = some(quick, &[10, 100, 1_024, 10_240, 102_400, 1_048_576]);
            let case = |payload| {
                Case::at("rumormill", "", payload as f64, Job { payload, window: 512, ..job() })
            };
            points.into_iter().map(case).collect()
        },
        Chart {
            title: "Payload",
            text: "From 10 bytes to a mebibyte, with 512 publishes under way.",
            x: ("bytes", Scale::Logarithmic),
            y: (PER_EVENT, Scale::Logarithmic),
            draws: ALL_CPU,
        },
    )
}

fn lanes(quick: bool, handler_us: u64) -> Vec<Case> {
    let points = some(quick, &[1, 2, 4, 8, 16, 32, 64]);
    let case = |lanes| Case::at("rumormill", "", lanes as f64, Job { lanes, handler_us, ..job() });
    points.into_iter().map(case).collect()
}

fn by_lanes() -> Section {
    growth(
        "growth-lanes",
        |quick| lanes(quick, 0),
        Chart {
            title: "Lanes, and handlers that return at once",
            text: "More lanes than there is work for only cost.",
            x: ("lanes", Scale::Ranks),
            y: ("events a second", Scale::Linear),
            draws: &[EVENTS],
        },
    )
}

fn by_lanes_waiting() -> Section {
    growth(
        "growth-lanes-waiting",
        |quick| lanes(quick, 1_000),
        Chart {
            title: "Lanes, and handlers that wait",
            text: "Handlers that wait a millisecond, as for an answer from elsewhere; tokio's \
                   timers make it one to two.",
            x: ("lanes", Scale::Ranks),
            y: ("events a second", Scale::Logarithmic),
            draws: &[EVENTS],
        },
    )
}

fn by_slow() -> Section {
    growth(
        "growth-slow",
        |_| {
            let mut cases = Vec::new();
            for lanes in [1, 8, 64] {
                for millis in [0, 1, 10, 100] {
                    let job = Job { rate: 5_000, slow_us: millis * 1000, lanes, ..job() };
                    let line = format!("{lanes} lanes:");
                    cases.push(Case::at("rumormill", &line, millis as f64, job));
                }
            }
            cases
        },
        Chart {
            title: "A slow handler among fast ones",
            text: "5,000 events a second, of which one in a thousand takes long; how late the \
                   others are. With lanes to spare it holds up what is in its own.",
            x: ("milliseconds that the slow one takes", Scale::Ranks),
            y: ("microseconds", Scale::Logarithmic),
            draws: LATE,
        },
    )
}
