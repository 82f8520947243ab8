//! The chaos harness: real servers, real processes, a proxy on every path, faults by seed, and
//! checkers that read what everybody wrote down.
//!
//! ```text
//! run ── servers ── proxies ── publishers, workers        (this program, as other processes)
//!  │                                  │
//! nemesis(seed): break, hold, mend    histories: NDJSON per process, one clock
//!  └──────────── book ── checkers ── report
//! ```
//!
//! It is tested itself: `--plant` switches on a known bug of the library, which a run must find.

mod args;
mod aside;
mod check;
mod crew;
mod finale;
mod history;
mod input;
mod kinds;
mod load;
mod markdown;
mod nemesis;
mod node;
mod picture;
mod plants;
mod progress;
mod proxy;
mod publisher;
mod report;
#[path = "../../tests/fault/resp.rs"]
#[allow(unreachable_pub)]
mod resp;
mod rounds;
mod session;
mod shim;
mod site;
mod time;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.command {
        Command::Run(args) => rounds::run(args.seed, &args.shape, args.resume).await,
        Command::Replay(args) => rounds::run(Some(args.seed), &args.shape, false).await,
        Command::Report(args) => rounds::report(&args.folders, args.markdown),
        Command::Kinds => {
            print!("{}", kinds::list());
            Ok(true)
        }
        Command::Plants => {
            print!("{}", plants::list());
            Ok(true)
        }
        Command::Publisher(args) => publisher::run(&args).await.map(|()| true),
        Command::Worker(args) => worker::run(&args).await.map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: error: {error}");
            ExitCode::from(2)
        }
    }
}
