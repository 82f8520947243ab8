//! One kind of work, so many times: `instructions CASE TIMES`, `instructions --list`.
//!
//! `scripts/instructions` runs each case twice under callgrind, with more times and with fewer:
//! the difference is what the events cost, without the start and the end. One thread, no server,
//! no timer that matters: two runs execute nearly the same instructions.

mod flow;
mod parts;

use std::process::ExitCode;

/// A case's name, how many times it is done under callgrind, and what it is. What is handled is
/// published before, and that is counted with it.
type Case = (&'static str, u64, fn(u64));

const CASES: [Case; 10] = [
    ("publish", 500, flow::publish),
    ("publish_many", 1_000, flow::publish_many),
    ("handle", 1_000, flow::handle),
    ("handle_envelopes", 1_000, flow::handle_envelopes),
    ("handle_by_three_groups", 500, flow::handle_by_three_groups),
    ("route_first_time", 1_000, parts::route),
    ("payload_encode", 2_000, parts::payload_encode),
    ("payload_decode", 2_000, parts::payload_decode),
    ("envelope_encode", 2_000, parts::envelope_encode),
    ("envelope_decode", 2_000, parts::envelope_decode),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["--list"] => {
            for (name, times, _) in CASES {
                println!("{name} {times}");
            }
            ExitCode::SUCCESS
        }
        [name, times] => run(name, times),
        _ => refuse("instructions CASE TIMES, or instructions --list"),
    }
}

fn run(name: &str, times: &str) -> ExitCode {
    let case = CASES.into_iter().find(|(known, ..)| *known == name);
    match (case, times.parse()) {
        (Some((.., work)), Ok(times)) => {
            work(times);
            ExitCode::SUCCESS
        }
        (None, _) => refuse("no such case"),
        (_, Err(_)) => refuse("TIMES is no number"),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}
