//! Compares rumormill with its peers, and with what the server can do, in one run: the same job
//! for all, rounds interleaved, medians and ratios.
//!
//! A round of a peer is three processes: its server, a publisher and a consumer. The publisher
//! and the consumer are this program again (`role`), so that each one's CPU is its own. What
//! needs no server is one process.

mod case;
mod chart;
mod compare;
mod goals;
mod idle;
mod job;
mod measure;
mod measured;
mod page;
mod peers;
mod proxy;
mod results;
mod role;
mod round;
mod run;
mod sections;
mod server;
mod stats;
mod table;
mod tally;

use clap::{Parser, Subcommand};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Compares rumormill with its peers, and with what the server can do")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything there is to measure, onto a page
    Run(run::Run),
    /// One job with some peers, onto the terminal
    Compare(compare::Compare),
    /// One end of a round; started by the others
    #[command(hide = true)]
    Role(role::RoleArgs),
    /// A bus that only waits; started by `run`
    #[command(hide = true)]
    Idle(idle::IdleArgs),
}

fn main() -> Result<(), Error> {
    match Args::parse().command {
        Command::Run(run) => run.run(),
        Command::Compare(compare) => compare.run(),
        Command::Role(role) => role.run(),
        Command::Idle(idle) => idle.run(),
    }
}
