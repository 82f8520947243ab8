//! A model of the driver contract, held against each driver: random sequences of commands, shrunk
//! where one fails. `MODEL_CASES` and `MODEL_REDIS_CASES` say how many sequences are tried, by
//! chance; without them a few are tried that are the same each time.

#![allow(unreachable_pub, reason = "a program of its own, in several files")]

mod model;
#[path = "../server/mod.rs"]
mod server;
mod store;
mod system;

use proptest::test_runner::{Config, RngSeed};
use proptest_state_machine::prop_state_machine;

use store::{Memory, Redis};
use system::Machine;

fn cases(variable: &str, usual: u32) -> Config {
    let asked = std::env::var(variable).ok();
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    let cases = asked.map_or(usual, |text| text.parse().expect("a number of cases"));
    // A failing case is printed, shrunk; it is to become a test of its own name.
    Config {
        cases,
        rng_seed,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        // Milliseconds: a command that is not answered takes a minute each time.
        max_shrink_time: 240_000,
        ..Config::default()
    }
}

prop_state_machine! {
    #![proptest_config(cases("MODEL_CASES", 150))]

    #[test]
    fn memory_does_what_the_model_says(sequential 1..60 => Machine<Memory>);
}

prop_state_machine! {
    #![proptest_config(cases("MODEL_REDIS_CASES", 10))]

    #[test]
    fn redis_does_what_the_model_says(sequential 1..40 => Machine<Redis>);
}
