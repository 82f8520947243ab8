//! Tables of Markdown.

use std::fmt::Write;

use crate::case::Series;
use crate::job::Job;
use crate::peers::{PEERS, entry_of};
use crate::stats::short;

pub(crate) fn title(text: &str) -> String {
    format!("#### {text}\n\n")
}

/// `1 group`, `3 groups`.
pub(crate) fn groups(number: usize) -> String {
    format!("{number} group{}", if number == 1 { "" } else { "s" })
}

fn head(columns: &[&str]) -> String {
    format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()))
}

/// The series that have rounds and a job that passes, in the order of the peers.
fn rows(all: &[Series], is: impl Fn(&Job) -> bool) -> Vec<&Series> {
    let place = |series: &Series| PEERS.iter().position(|entry| entry.name == series.case.peer);
    let mut rows: Vec<&Series> =
        all.iter().filter(|series| !series.rounds.is_empty() && is(&series.case.job)).collect();
    rows.sort_by_key(|series| place(series));
    rows
}

fn guarantees(series: &Series) -> &'static str {
    entry_of(&series.case.peer).map_or("", |entry| entry.guarantees)
}

/// `a / b`, as so many times.
fn times(a: f64, b: f64) -> String {
    let times = a / b;
    if times.is_finite() { format!("{} x", short(times)) } else { "-".to_owned() }
}

fn rate_of(rows: &[&Series], peer: &str) -> f64 {
    rows.iter().find(|row| row.case.peer == peer).map_or(f64::NAN, |row| row.rate())
}

fn percent(part: f64) -> String {
    format!("±{:.0} %", part * 100.0)
}

/// Events a second of every peer, and what they cost.
pub(crate) fn throughput(all: &[Series], is: impl Fn(&Job) -> bool) -> String {
    let mut text = head(&[
        "peer",
        "events/s",
        "spread",
        "of its ceiling",
        "rumormill is",
        "one per entry is",
        "server us",
        "publisher us",
        "consumer us",
        "guarantees",
    ]);
    let rows = rows(all, is);
    let (ours, alone) = (rate_of(&rows, "rumormill"), rate_of(&rows, "rumormill-entry"));
    for row in &rows {
        let peer = row.case.peer.as_str();
        let batches =
            matches!(peer, "rumormill" | "rumormill-many" | "rumormill-current" | "ceiling-batch");
        let ceiling = if batches { "ceiling-batch" } else { "ceiling-entry" };
        let _ = writeln!(
            text,
            "| {peer} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            short(row.rate()),
            percent(row.spread()),
            times(row.rate(), rate_of(&rows, ceiling)),
            times(ours, row.rate()),
            times(alone, row.rate()),
            short(row.median(|round| round.server_us)),
            short(row.median(|round| round.publisher_us)),
            short(row.median(|round| round.consumer_us)),
            guarantees(row),
        );
    }
    text + "\n"
}

/// Events a second of every peer by window, with 100 bytes.
pub(crate) fn windows(all: &[Series], windows: &[usize], groups: usize) -> String {
    let names: Vec<String> = windows.iter().map(usize::to_string).collect();
    let mut columns = vec!["peer"];
    columns.extend(names.iter().map(String::as_str));
    columns.extend(["best", "rumormill's best is"]);
    let mut text = head(&columns);
    let is = |job: &Job, window| (job.payload, job.groups, job.window) == (100, groups, window);
    let rate = |peer: &str, window| {
        let series = rows(all, |job| is(job, window));
        rate_of(&series, peer)
    };
    let best = |peer: &str| windows.iter().map(|w| rate(peer, *w)).fold(f64::NAN, f64::max);
    for entry in PEERS.iter().filter(|entry| best(entry.name).is_finite()) {
        let cells: Vec<String> =
            windows.iter().map(|window| short(rate(entry.name, *window))).collect();
        let own = best(entry.name);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            entry.name,
            cells.join(" | "),
            short(own),
            times(best("rumormill"), own)
        );
    }
    text + "\n"
}

/// How late events are at a rate, and what they cost.
pub(crate) fn latency(all: &[Series], rate: u64) -> String {
    let mut text = head(&[
        "peer",
        "p50 us",
        "p90",
        "p99",
        "p99.9",
        "most",
        "rumormill's p50 is",
        "its p99 is",
        "server us",
        "publisher us",
        "consumer us",
    ]);
    let rows = rows(all, |job| job.rate == rate);
    let ours = rows.iter().find(|row| row.case.peer == "rumormill");
    let our = |at: usize| ours.map_or(f64::NAN, |row| row.latency_us(at));
    for row in &rows {
        let late: Vec<String> = (0..5).map(|at| short(row.latency_us(at))).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.case.peer,
            late.join(" | "),
            times(our(0), row.latency_us(0)),
            times(our(2), row.latency_us(2)),
            short(row.median(|round| round.server_us)),
            short(row.median(|round| round.publisher_us)),
            short(row.median(|round| round.consumer_us)),
        );
    }
    text + "\n"
}

/// Events a second without a server.
pub(crate) fn memory(all: &[Series], groups: usize) -> String {
    let columns =
        ["peer", "events/s", "spread", "handler calls/s", "CPU ns per event", "guarantees"];
    let mut text = head(&columns);
    for row in rows(all, |job| job.groups == groups) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            row.case.peer,
            short(row.rate()),
            percent(row.spread()),
            short(row.rate() * groups as f64),
            short(row.cpu_us() * 1000.0),
            guarantees(row),
        );
    }
    text + "\n"
}
