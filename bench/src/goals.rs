//! What it was to reach, and whether it does.

use std::fmt::Write;

use crate::case::Series;
use crate::job::Job;
use crate::results::Results;
use crate::sections::{
    EVENT_ID, FIRST_EXACT, FIRST_PATTERN, IDLE, LINGER_LINE, MEMORY_ENVELOPE, MEMORY_TYPED,
};
use crate::stats::short;

/// A bound, in the unit that its text names.
#[derive(Clone, Copy)]
enum Bound {
    Least(f64),
    Most(f64),
}

struct Goal {
    text: &'static str,
    bound: Bound,
    measured: f64,
}

fn least(text: &'static str, bound: f64, measured: f64) -> Goal {
    Goal { text, bound: Bound::Least(bound), measured }
}

fn most(text: &'static str, bound: f64, measured: f64) -> Goal {
    Goal { text, bound: Bound::Most(bound), measured }
}

impl Goal {
    fn is_reached(&self) -> Option<bool> {
        if !self.measured.is_finite() {
            return None;
        }
        Some(match self.bound {
            Bound::Least(bound) => self.measured >= bound,
            Bound::Most(bound) => self.measured <= bound,
        })
    }
}

/// A table of all goals.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::from("| goal | bound | measured | |\n|---|---|---|---|\n");
    for goal in all(results) {
        let bound = match goal.bound {
            Bound::Least(bound) => format!("at least {}", short(bound)),
            Bound::Most(bound) => format!("at most {}", short(bound)),
        };
        let verdict = match goal.is_reached() {
            None => "not measured",
            Some(true) => "reached",
            Some(false) => "**not reached**",
        };
        let measured = short(goal.measured);
        let _ = writeln!(text, "| {} | {bound} | {measured} | {verdict} |", goal.text);
    }
    text
}

fn all(results: &Results) -> Vec<Goal> {
    let mut goals = throughput(results);
    goals.extend(latency(results));
    goals.extend(memory(results));
    goals.extend(pieces(results));
    goals
}

/// The best of a peer over the windows.
fn best<'a>(results: &'a Results, peer: &str, payload: usize, groups: usize) -> Option<&'a Series> {
    let is = |job: &Job| job.payload == payload && job.groups == groups;
    let all = results.series("throughput", |case| case.peer == peer && is(&case.job));
    all.into_iter().max_by(|a, b| a.rate().total_cmp(&b.rate()))
}

fn throughput(results: &Results) -> Vec<Goal> {
    let ratio = |ours: &str, peer: &str, payload, groups| {
        let rate = |peer| best(results, peer, payload, groups).map_or(f64::NAN, Series::rate);
        rate(ours) / rate(peer)
    };
    // Singly published or many in a call: both are the defaults.
    let ways = ["rumormill", "rumormill-many"];
    let typed = |peer: &str, payload, groups| {
        ways.map(|way| ratio(way, peer, payload, groups)).into_iter().fold(f64::NAN, f64::max)
    };
    let server = ways
        .iter()
        .filter_map(|way| best(results, way, 100, 1))
        .max_by(|a, b| a.rate().total_cmp(&b.rate()))
        .map_or(f64::NAN, |series| series.median(|round| round.server_us));
    vec![
        least("100 B, 1 group, best window: x SeaStreamer", 8.0, typed("sea-streamer", 100, 1)),
        least("the same: x JetStream on file", 20.0, typed("nats-file", 100, 1)),
        least("the same: of the ceiling", 0.5, typed("ceiling-batch", 100, 1)),
        least("100 B, 3 groups: x SeaStreamer", 10.0, typed("sea-streamer", 100, 3)),
        least("the same: x JetStream on file", 20.0, typed("nats-file", 100, 3)),
        least("1 KiB, 1 group: x SeaStreamer", 3.0, typed("sea-streamer", 1024, 1)),
        least("the same: x JetStream on file", 5.0, typed("nats-file", 1024, 1)),
        least(
            "one event per entry, 1 group: x SeaStreamer",
            1.2,
            ratio("rumormill-entry", "sea-streamer", 100, 1),
        ),
        least(
            "the same: x the plain `redis` crate loop",
            1.5,
            ratio("rumormill-entry", "redis-crate", 100, 1),
        ),
        most("Redis CPU per event, 1 group, us", 0.4, server),
    ]
}

fn latency(results: &Results) -> Vec<Goal> {
    let late = |peer: &str, rate, at| {
        let series = results.one("latency", peer, |job| job.rate == rate);
        series.map_or(f64::NAN, |series| series.latency_us(at))
    };
    let against = |peer: &str, rate, at| late("rumormill", rate, at) / late(peer, rate, at);
    let cpu = |section: &str, line: &str| {
        let found = results.series(section, |case| {
            case.peer == "rumormill" && case.line == line && case.job.rate == 10_000
        });
        found.first().map_or(f64::NAN, |series| series.cpu_us())
    };
    vec![
        most("p50 at 1 k/s: x SeaStreamer's", 0.75, against("sea-streamer", 1_000, 0)),
        most("the same: x JetStream's (file)", 0.6, against("nats-file", 1_000, 0)),
        most("p50 at 10 k/s: x SeaStreamer's", 1.0, against("sea-streamer", 10_000, 0)),
        most("the same: x JetStream's (file)", 1.0, against("nats-file", 10_000, 0)),
        most("p99 at 10 k/s: x the ceiling's", 1.25, against("ceiling-batch", 10_000, 2)),
        most("p99 at 50 k/s: x SeaStreamer's", 0.1, against("sea-streamer", 50_000, 2)),
        most("CPU per event at 10 k/s, us", 115.0, cpu("latency", "rumormill")),
        most("the same with half a millisecond of linger", 60.0, cpu("growth-rate", LINGER_LINE)),
    ]
}

fn memory(results: &Results) -> Vec<Goal> {
    let calls = |peers: [&str; 2], groups: usize| {
        let rate = |peer| {
            let series = results.one("memory", peer, |job| job.groups == groups);
            series.map_or(f64::NAN, |series| series.rate() * groups as f64)
        };
        peers.map(rate).into_iter().fold(f64::NAN, f64::max)
    };
    vec![
        least("memory, a typed handler, events/s", 2e6, calls(MEMORY_TYPED, 1)),
        least("memory, three of them, handler calls/s", 3e6, calls(MEMORY_TYPED, 3)),
        least("memory, a handler of envelopes, events/s", 4e6, calls(MEMORY_ENVELOPE, 1)),
        least("memory, three of them, handler calls/s", 8e6, calls(MEMORY_ENVELOPE, 3)),
    ]
}

fn pieces(results: &Results) -> Vec<Goal> {
    let figure = |name: &str| results.figure("pieces", name);
    vec![
        most("routing among 100,000 exact types, first time, ns", 100.0, figure(FIRST_EXACT)),
        most("routing among 100,000 patterns, first time, ns", 100.0, figure(FIRST_PATTERN)),
        most("event id, ns", 20.0, figure(EVENT_ID)),
        most("100,000 idle types, 50 groups, in memory: start, s", 2.0, figure(IDLE[0][0])),
        most("the same: resident, MB", 200.0, figure(IDLE[0][1])),
        most("100,000 idle types, 50 groups, on Redis: start, s", 2.0, figure(IDLE[1][0])),
        most("the same: resident, MB", 200.0, figure(IDLE[1][1])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_not_reached_or_not_measured() {
        let reached = |goal: Goal| goal.is_reached();
        assert_eq!(reached(least("", 8.0, 8.0)), Some(true));
        assert_eq!(reached(least("", 8.0, 7.9)), Some(false));
        assert_eq!(reached(most("", 0.4, 0.5)), Some(false));
        assert_eq!(reached(most("", 0.4, f64::NAN)), None);
    }

    #[test]
    fn without_results_nothing_is_reached() {
        let text = markdown(&Results::default());
        assert!(!text.contains("reached |"), "{text}");
        assert_eq!(text.matches("not measured").count(), 29);
    }
}
