//! Compares rumormill with its peers, and with what the server can do, in one run: the same job
//! for all, rounds interleaved, medians and ratios.
//!
//! A round of a peer is three processes: its server, a publisher and a consumer. The publisher
//! and the consumer are this program again (`role`), so that each one's CPU is its own.

mod compare;
mod job;
mod measure;
mod peers;
mod report;
mod role;
mod server;

use clap::{Parser, Subcommand};

use crate::compare::Compare;
use crate::role::RoleArgs;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Compares rumormill with its peers, and with what the server can do")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every job with every peer that is found
    Compare(Compare),
    /// One end of a round; started by `compare`
    #[command(hide = true)]
    Role(RoleArgs),
}

fn main() -> Result<(), Error> {
    match Args::parse().command {
        Command::Compare(compare) => compare.run(),
        Command::Role(args) => args.run(),
    }
}
