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

/// Every check that a diagnosis of a Redis makes, in its order.
pub fn checks() -> Vec<&'static Check> {
    let server = server::rules().map(|rule| &rule.check);
    server.chain(bus::RULES.iter().map(|rule| &rule.check)).collect()
}

/// Every check of a list. Without evidence nothing can be known.
fn examine<'a, E: 'static>(
    rules: impl Iterator<Item = &'static Rule<E>> + 'a,
    evidence: &'a Result<E, Error>,
) -> impl Iterator<Item = Checked> + 'a {
    rules.map(move |rule| {
        let verdict = match evidence {
            Ok(evidence) => (rule.look)(evidence),
            Err(error) => Verdict::Unknown(error.to_string()),
        };
        Checked { check: &rule.check, verdict }
    })
}

impl Shared {
    /// Gathers the evidence, and asks every check about it.
    pub(super) async fn look_from_all_sides(&self) -> Result<Diagnosis, Error> {
        let server = Ok(server::Evidence::gather(self).await?);
        // What may not be read of the bus hides nothing of the server.
        let bus = bus::Evidence::gather(self).await;
        let of_server = examine(server::rules(), &server);
        let checks = of_server.chain(examine(bus::RULES.iter(), &bus)).collect();
        Ok(Diagnosis { store: server?.summary(), checks })
    }
}
