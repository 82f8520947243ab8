//! One job with some peers, for a look at a change.

use std::time::Duration;

use crate::Error;
use crate::case::Case;
use crate::job::Job;
use crate::measured::{Effort, measure};
use crate::peers::{Needs, PEERS};
use crate::round::Servers;
use crate::table;

/// One job with some peers, onto the terminal
#[derive(clap::Args)]
pub(crate) struct Compare {
    /// How often each is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these peers; else all with a server
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Bytes of a payload
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// How many groups get every event
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// At most so many publishes without an answer
    #[arg(long, default_value_t = 512)]
    window: usize,
    /// Events a second by schedule; 0: as fast as it goes
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How long the publisher waits for company, in microseconds
    #[arg(long, default_value_t = 0)]
    linger_us: u64,
    /// Keys by turns, for peers that keep their order; 0: none
    #[arg(long, default_value_t = 0)]
    keys: u64,
    /// Milliseconds that a round should take
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Redis appends to a file
    #[arg(long)]
    everysec: bool,
}

impl Compare {
    pub(crate) fn run(self) -> Result<(), Error> {
        let job = Job {
            payload: self.payload,
            groups: self.groups,
            window: self.window,
            rate: self.rate,
            linger_us: self.linger_us,
            keys: self.keys,
            everysec: self.everysec,
            ..Job::default()
        };
        let mut names = self.peers;
        if names.is_empty() {
            let served = PEERS.iter().filter(|entry| entry.needs != Needs::Nothing);
            names = served.map(|entry| entry.name.to_owned()).collect();
        }
        let cases = names.iter().map(|name| Case::new(name, job.clone())).collect();
        let effort = Effort { rounds: self.rounds, time: Duration::from_millis(self.millis) };
        let all = measure("compare", cases, effort, &mut Servers::default());
        if self.rate > 0 {
            print!("{}", table::latency(&all, self.rate));
        } else {
            print!("{}", table::throughput(&all, |_| true));
        }
        Ok(())
    }
}
