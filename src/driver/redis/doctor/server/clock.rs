//! The server's clock beside this machine's.

use super::{Evidence, Looked, nothing, one, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// Clocks that are kept in step differ by less.
const APART_NOTE_MS: u64 = 1_000;
/// Beyond this, what goes by both clocks goes wrong.
const APART_RISK_MS: u64 = 5_000;

pub(super) const RULES: &[Rule<Evidence>] = &[Rule {
    check: Check {
        id: "clock.apart",
        about: "how far the server's clock is from this machine's",
        meaning: "delays, leases and retention go by the server's clock; the time of an event and \
                  the moment when it expires by its publisher's. Events expire unseen, or late, by \
                  as much as the clocks are apart",
        cost: "a server's clock that was set by an hour had every pending entry taken over at once \
               elsewhere, and ids that stay in the future until it has caught up",
    },
    look: |evidence| verdict(apart(evidence)),
}];

fn apart(evidence: &Evidence) -> Looked {
    let (before, after) = evidence.clocks.own;
    let middle = before + after.saturating_sub(before) / 2;
    let server = evidence.clocks.server;
    // The server may have looked at its clock at any moment of the asking.
    let doubt = after.saturating_sub(before) / 2;
    let apart = server.abs_diff(middle).saturating_sub(doubt);
    if apart <= APART_NOTE_MS {
        return nothing();
    }
    let way = if server > middle { "ahead of" } else { "behind" };
    let text =
        format!("the server's clock is {}.{:03} s {way} this one", apart / 1000, apart % 1000);
    let severity = if apart > APART_RISK_MS { Severity::Risk } else { Severity::Note };
    let mend = "timedatectl set-ntp true, on the one that is wrong; slew, do not step";
    one(severity, "TIME", text, mend)
}
