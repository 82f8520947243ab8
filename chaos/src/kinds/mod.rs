//! The kinds of faults: each a row of the fault matrix, with how it is injected, how it is healed,
//! and how one sees that it had an effect.

pub(crate) mod clock;
mod data;
mod disk;
mod handlers;
mod network;
mod processes;
mod refusals;
mod replicas;
mod servers;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use fastrand::Rng;

use crate::Result;
use crate::history::{Costs, Evidence};
use crate::site::Site;

/// What is broken; faults are drawn by class first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    ReplyLost,
    Server,
    Network,
    Worker,
    Configuration,
    Admin,
    Power,
}

impl Class {
    /// Of a hundred faults.
    pub(crate) fn weight(self) -> u32 {
        match self {
            Self::ReplyLost | Self::Server | Self::Network => 20,
            Self::Worker | Self::Configuration => 15,
            Self::Admin | Self::Power => 5,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ReplyLost => "reply lost",
            Self::Server => "server",
            Self::Network => "network",
            Self::Worker => "process",
            Self::Configuration => "configuration",
            Self::Admin => "admin",
            Self::Power => "power and disk",
        })
    }
}

/// What is said of a kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) name: &'static str,
    /// Its row in the fault matrix.
    pub(crate) row: u8,
    pub(crate) class: Class,
    pub(crate) evidence: Evidence,
    pub(crate) costs: Costs,
    /// How long it is held, in milliseconds.
    pub(crate) lasts: (u64, u64),
}

impl About {
    /// A kind that costs nothing and counts what it hit.
    pub(crate) const fn new(name: &'static str, row: u8, class: Class, lasts: Range<u64>) -> Self {
        let (evidence, costs) = (Evidence::Counted, Costs::Nothing);
        Self { name, row, class, evidence, costs, lasts: (lasts.start, lasts.end) }
    }

    pub(crate) const fn stalling(self) -> Self {
        Self { evidence: Evidence::Stall, ..self }
    }

    pub(crate) const fn costing(self, costs: Costs) -> Self {
        Self { costs, ..self }
    }
}

/// A fault: made anew for each injection, so it may remember what it did.
#[async_trait]
pub(crate) trait Kind: Send {
    fn about(&self) -> About;

    /// Why it cannot be injected here, where it cannot.
    fn unavailable(&self, _: &Site) -> Option<String> {
        None
    }

    /// What it may cost here.
    fn costs(&self, _: &Site) -> Costs {
        self.about().costs
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()>;

    /// Mends it; tells how much of it was seen.
    async fn heal(&mut self, site: &mut Site) -> Result<u64>;
}

/// All kinds.
pub(crate) fn all() -> Vec<Box<dyn Kind>> {
    let mut kinds = Vec::new();
    kinds.extend(network::lost_replies());
    kinds.extend(servers::kinds());
    kinds.extend(clock::kinds());
    kinds.extend(network::kinds());
    kinds.extend(processes::kinds());
    kinds.extend(handlers::kinds());
    kinds.extend(refusals::kinds());
    kinds.extend(data::kinds());
    kinds.extend(disk::kinds());
    kinds.extend(replicas::kinds());
    kinds
}

/// A fresh one by its name.
pub(crate) fn named(name: &str) -> Option<Box<dyn Kind>> {
    all().into_iter().find(|kind| kind.about().name == name)
}

/// The list, a line each.
pub(crate) fn list() -> String {
    let line = |kind: Box<dyn Kind>| {
        let About { name, row, class, costs, .. } = kind.about();
        let costs = match costs {
            Costs::Nothing => "",
            Costs::Recent => "costs the last seconds",
            Costs::Everything => "costs everything before it",
        };
        format!("{name:26} row {row:<3} {class:16} {costs}\n")
    };
    all().into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn kinds_have_names_of_their_own_and_rows_of_the_matrix() {
        let kinds = all();
        let names: HashSet<&str> = kinds.iter().map(|kind| kind.about().name).collect();
        assert_eq!(names.len(), kinds.len());
        assert!(kinds.len() >= 30, "{} kinds", kinds.len());
        for about in kinds.iter().map(|kind| kind.about()) {
            assert!((1..=70).contains(&about.row), "{about:?}");
            assert!(about.lasts.0 <= about.lasts.1, "{about:?}");
        }
    }
}
