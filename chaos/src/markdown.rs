//! Runs as lines and a table, for a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::kinds;
use crate::report::{KindReport, Report, ranks};

/// A line per mode, then every kind of fault over all of them.
pub(crate) fn page<'a>(sums: impl Iterator<Item = &'a Report>) -> String {
    let (mut page, mut all) = (String::new(), BTreeMap::<&str, KindReport>::new());
    for sum in sums {
        page += &line(sum);
        for (name, kind) in &sum.kinds {
            let own = all.entry(name).or_default();
            own.injected += kind.injected;
            own.counted += kind.counted;
            own.publish_ms.extend(&kind.publish_ms);
            own.delivery_ms.extend(&kind.delivery_ms);
        }
    }
    page +=
        "\n| fault | row | injected | counted | publish recovers (s) | deliver recovers (s) |\n";
    page += "|---|---|---|---|---|---|\n";
    for (name, kind) in all {
        let row = kinds::named(name).map_or(0, |kind| kind.about().row);
        let _infallible = writeln!(
            page,
            "| {name} | {row} | {} | {} | {} | {} |",
            kind.injected,
            kind.counted,
            ranks(&kind.publish_ms),
            ranks(&kind.delivery_ms),
        );
    }
    page.trim_end().to_owned()
}

fn line(sum: &Report) -> String {
    format!(
        "- **{}** ({}): {} faults of {} kinds in {} min; {} events acknowledged, {} not stored, \
         {} unknown; {} lost, {} twice in the log, {} \"not stored\" and there, {} effects twice \
         of the idempotent group, {} left; {} lost by the server as it says.\n",
        sum.mode.name(),
        sum.server,
        sum.counted(),
        sum.kinds_counted(),
        sum.seconds / 60,
        sum.acknowledged,
        sum.not_stored,
        sum.unknown,
        sum.broken("C1"),
        sum.broken("C2"),
        sum.broken("C15"),
        sum.broken("C5"),
        sum.broken("C12"),
        sum.lost_by_server - sum.broken("C1").min(sum.lost_by_server),
    )
}
