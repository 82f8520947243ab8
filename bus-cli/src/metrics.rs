//! `bus-cli metrics`: what lies on the bus as numbers for a monitoring system, in the text format
//! of OpenMetrics: once, or over HTTP to whoever asks.

mod gather;
mod sample;
mod serve;

use std::net::SocketAddr;

use self::gather::gather;
use self::sample::text;
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::operate::Store;
use crate::table;

/// Write what lies on the bus as numbers for a monitoring system, in the text format of OpenMetrics
///
/// Depths and ages per topic and group: unread, pending, due, dead, parked, dropped, consumers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bus-cli metrics > /var/lib/node_exporter/rumormill.prom.new
  bus-cli metrics --listen 127.0.0.1:9464        for http://127.0.0.1:9464/metrics
  bus-cli metrics --output json | jq -c 'select(.name | contains(\"dead\"))'")]
pub(crate) struct MetricsArgs {
    /// Answer GET /metrics there until SIGTERM or ctrl-c, each time with new numbers
    #[arg(long, value_name = "ADDR:PORT", env = "BUS_METRICS_LISTEN")]
    listen: Option<SocketAddr>,
}

/// What `metrics` was asked for.
pub(crate) struct Metrics {
    listen: Option<SocketAddr>,
    format: Format,
}

impl Metrics {
    pub(crate) fn new(args: &MetricsArgs, format: Format) -> Self {
        Self { listen: args.listen, format }
    }

    pub(crate) async fn run(self, store: &Store<'_>) -> Result<Exit, Failure> {
        if let Some(address) = self.listen {
            return serve::run(store, address).await;
        }
        let samples = gather(store).await;
        let samples =
            samples.map_err(|error| Failure::library("cannot look at the bus", &error))?;
        match self.format {
            Format::Json => table::write(&table::json_lines(&samples)?),
            Format::Pretty | Format::Raw => table::write(&text(&samples)?),
        }
    }
}
