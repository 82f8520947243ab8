//! Numbers with names, and how they are written.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family as Series;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::failure::Failure;

/// What comes before every name.
const PREFIX: &str = "rumormill";

/// Names and values.
type Labels = Vec<(String, String)>;

/// Numbers of one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Family {
    /// Its name, without the prefix; that of a total without `_total`.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// It only grows.
    pub(super) is_total: bool,
}

impl Family {
    pub(super) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, is_total: false }
    }

    pub(super) const fn total(name: &'static str, help: &'static str) -> Self {
        Self { name, help, is_total: true }
    }

    /// A number of this family.
    pub(super) fn of<'a>(
        &'static self,
        labels: impl IntoIterator<Item = (&'a str, String)>,
        value: f64,
    ) -> Sample {
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let total = if self.is_total { "_total" } else { "" };
        Sample { family: self, name: format!("{PREFIX}_{}{total}", self.name), labels, value }
    }
}

/// A number.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    #[serde(skip)]
    family: &'static Family,
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The text of OpenMetrics 1.0: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
pub(super) fn text(samples: &[Sample]) -> Result<String, Failure> {
    let mut registry = Registry::with_prefix(PREFIX);
    let mut families: Vec<&'static Family> = Vec::new();
    for sample in samples {
        if !families.contains(&sample.family) {
            families.push(sample.family);
        }
    }
    for family in families {
        let own = samples.iter().filter(|sample| sample.family == family);
        register(&mut registry, family, own);
    }
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => Ok(text),
        Err(error) => Err(Failure::failed("cannot write metrics").because(&error)),
    }
}

fn register<'a>(
    registry: &mut Registry,
    family: &'static Family,
    samples: impl Iterator<Item = &'a Sample>,
) {
    let Family { name, help, is_total } = *family;
    // The registry ends the text with a full stop.
    if is_total {
        let series = Series::<Labels, Counter<f64, AtomicU64>>::default();
        for sample in samples {
            series.get_or_create(&labels(sample)).inc_by(sample.value);
        }
        registry.register(name, help, series);
    } else {
        let series = Series::<Labels, Gauge<f64, AtomicU64>>::default();
        for sample in samples {
            series.get_or_create(&labels(sample)).set(sample.value);
        }
        registry.register(name, help, series);
    }
}

fn labels(sample: &Sample) -> Labels {
    sample.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_open_metrics() {
        static DEPTH: Family = Family::gauge("depth", "How deep it is");
        static GONE: Family = Family::total("gone", "How many went");
        let samples = [
            DEPTH.of([("group", "a\"b\\c\nd".to_owned())], 2.5),
            GONE.of([], 7.0),
            DEPTH.of([("group", "e".to_owned())], 0.0),
        ];
        let text = text(&samples).expect("it can be written");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..2],
            ["# HELP rumormill_depth How deep it is.", "# TYPE rumormill_depth gauge"]
        );
        assert!(lines.contains(&r#"rumormill_depth{group="a\"b\\c\nd"} 2.5"#), "{text}");
        assert!(lines.contains(&r#"rumormill_depth{group="e"} 0.0"#), "{text}");
        assert!(lines.contains(&"# TYPE rumormill_gone counter"), "{text}");
        assert!(lines.contains(&"rumormill_gone_total{} 7.0"), "{text}");
        assert_eq!(lines.last(), Some(&"# EOF"));
    }
}
