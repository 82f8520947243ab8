//! What there is to measure, section by section.

mod growth;
mod latency;
mod memory;
mod pieces;
mod throughput;

pub(crate) use self::growth::LINGER_LINE;
pub(crate) use self::memory::{MEMORY_ENVELOPE, MEMORY_TYPED};
pub(crate) use self::pieces::{EVENT_ID, FIRST_EXACT, FIRST_PATTERN, IDLE};

use std::time::Duration;

use crate::Error;
use crate::case::Case;
use crate::chart::Chart;
use crate::measured::{Effort, measure};
use crate::peers::{PEERS, is_there};
use crate::results::Measured;
use crate::round::Servers;

/// A part of the page, between markers of its name.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// Tables of all peers.
    Compared {
        cases: fn(bool) -> Vec<Case>,
        effort: fn(bool) -> Effort,
        markdown: fn(&Measured) -> String,
    },
    /// How a cost grows: a table and a plot.
    Growth { cases: fn(bool) -> Vec<Case>, chart: Chart },
    /// Figures that need no server of a peer.
    Pieces,
}

/// In the order of the page.
pub(crate) fn all() -> Vec<Section> {
    let mut all = vec![throughput::section(), latency::section(), memory::section()];
    all.extend(growth::sections());
    all.push(Section { name: "pieces", kind: Kind::Pieces });
    all
}

impl Section {
    pub(crate) fn measure(&self, quick: bool, servers: &mut Servers) -> Result<Measured, Error> {
        let began = crate::measure::now_ns();
        let mut measured = match &self.kind {
            Kind::Compared { cases, effort, .. } => {
                let series = measure(self.name, cases(quick), effort(quick), servers);
                Measured { series, skipped: skipped(), ..Measured::default() }
            }
            Kind::Growth { cases, .. } => {
                let series = measure(self.name, cases(quick), growth_effort(quick), servers);
                Measured { series, ..Measured::default() }
            }
            Kind::Pieces => Measured { figures: pieces::measure(quick)?, ..Measured::default() },
        };
        measured.took_seconds = (crate::measure::now_ns() - began) / 1_000_000_000;
        Ok(measured)
    }

    pub(crate) fn markdown(&self, measured: &Measured) -> String {
        let mut text = match &self.kind {
            Kind::Compared { markdown, .. } => markdown(measured),
            Kind::Growth { chart, .. } => chart.markdown(self.name, measured),
            Kind::Pieces => pieces::markdown(measured),
        };
        text += &crate::page::footnotes(measured);
        text
    }
}

fn growth_effort(quick: bool) -> Effort {
    let (rounds, millis) = if quick { (1, 250) } else { (3, 1000) };
    Effort { rounds, time: Duration::from_millis(millis) }
}

/// Peers that are not there.
fn skipped() -> Vec<String> {
    let missing = PEERS.iter().filter(|entry| !is_there(entry));
    missing.map(|entry| entry.name.to_owned()).collect()
}
