//! Medians, spread and ratios.

use std::fmt::Write;

use crate::compare::{Round, Series};

/// Who is compared with.
const BASELINES: [&str; 2] = ["sea-streamer", "nats-file"];

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => (values[length / 2 - 1] + values[length / 2]) / 2.0,
    }
}

impl Series {
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// Half of the distance between the extremes, of the median.
    fn spread(&self) -> f64 {
        let rates = self.rounds.iter().map(|round| round.events_per_second);
        let (low, high) =
            rates.fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(rate), high.max(rate)));
        (high - low) / 2.0 / self.median(|round| round.events_per_second)
    }
}

/// A table of Markdown, a row for each job with each peer.
pub(crate) fn table(all: &[Series]) -> String {
    let mut text = String::from(
        "| payload | groups | window or rate | peer | events/s | ceiling | sea-streamer | nats-file | \
         server us | publisher us | consumer us | p50 us | p99 us | rounds |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut rows: Vec<&Series> = all.iter().collect();
    rows.sort_by_key(|series| {
        let job = &series.job;
        (job.rate, job.payload, job.groups, job.window)
    });
    for series in rows {
        let job = &series.job;
        let rate = series.median(|round| round.events_per_second);
        let against = |name: &str| {
            let same = all.iter().find(|other| {
                let theirs = &other.job;
                other.peer.name == name
                    && (theirs.payload, theirs.groups, theirs.window, theirs.rate)
                        == (job.payload, job.groups, job.window, job.rate)
            });
            same.map_or_else(
                || "-".to_owned(),
                |other| format!("{:.2} x", rate / other.median(|round| round.events_per_second)),
            )
        };
        let ceiling =
            if series.peer.name.ends_with("entry") { "ceiling-entry" } else { "ceiling-batch" };
        let speed = if job.rate == 0 { job.window.to_string() } else { format!("{}/s", job.rate) };
        let quantile = |at: usize| series.median(|round| round.latency_us[at] as f64);
        let _ = writeln!(
            text,
            "| {} | {} | {speed} | {} | {:.0} (±{:.0} %) | {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {} |",
            job.payload,
            job.groups,
            series.peer.name,
            rate,
            series.spread() * 100.0,
            against(ceiling),
            against(BASELINES[0]),
            against(BASELINES[1]),
            series.median(|round| round.server_us),
            series.median(|round| round.publisher_us),
            series.median(|round| round.consumer_us),
            quantile(0),
            quantile(2),
            series.rounds.len(),
        );
    }
    text
}
