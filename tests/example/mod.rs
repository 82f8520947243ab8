//! A built example, to be run as a user runs it.

// Each test target uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;
use std::process::Command;

/// A command that runs an example. `cargo test` builds all of them beside the tests; a run of a
/// single test target does not, so what is missing is built here.
pub fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("the test knows itself");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--examples"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo starts");
        assert!(built.success(), "cargo build --workspace --examples");
    }
    Command::new(path)
}
