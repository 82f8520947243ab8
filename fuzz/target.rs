//! One fuzz target, the one of the name that this is built under.
#![no_main]

use std::sync::LazyLock;

use bus_cli::fuzzing::targets;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    let found = targets().find(|(own, _)| *own == name);
    found.expect("a target of this name").1
});

fuzz_target!(|data: &[u8]| TARGET(data));
