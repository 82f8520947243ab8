//! What there is to find on a server: a check is a pure function of evidence that was gathered
//! before.
//!
//! `server` looks at the server and what this user may do on it, `bus` at what lies under our
//! namespace.

mod bus;
mod server;

use super::Shared;
use crate::driver::admin::{Check, Checked, Diagnosis, Verdict};
use crate::error::Error;

/// A check of one kind of evidence.
struct Rule<E: 'static> {
    check: Check,
    look: fn(&E) -> Verdict,
}

/// Every check of a list.
fn examine<E>(rules: &'static [Rule<E>], evidence: &E) -> impl Iterator<Item = Checked> {
    rules.iter().map(|rule| Checked { check: &rule.check, verdict: (rule.look)(evidence) })
}

impl Shared {
    /// Gathers the evidence, and asks every check about it.
    pub(super) async fn look_from_all_sides(&self) -> Result<Diagnosis, Error> {
        let server = server::Evidence::gather(self).await?;
        let bus = bus::Evidence::gather(self).await?;
        let checks = examine(server::RULES, &server).chain(examine(bus::RULES, &bus)).collect();
        Ok(Diagnosis { store: server.summary(), checks })
    }
}
