//! C13: memory, open files and tasks stay within what is needed, and do not grow with time.

use std::time::Duration;

use super::book::Process;
use super::{Book, Found};
use crate::time::nanos;

/// More than a process with two buses and three groups has any need of.
const FILES_MAX: u64 = 256;
const RSS_KIB_MAX: u64 = 1 << 20;
/// A publisher may have as many publishes under way, each of which is one.
const TASKS_MAX: u64 = 10_000;
/// What a process takes in the beginning says nothing of what it takes with time.
const WARM: u64 = nanos(Duration::from_secs(10));
/// Fewer samples have no trend.
const SAMPLES_MIN: usize = 12;

/// When, and how much.
pub(crate) type Level = (u64, u64);

/// Something a process uses.
struct Resource {
    name: &'static str,
    of: fn(&Process) -> &[Level],
    most: u64,
    /// What it may grow in a minute. The allocator of a process that takes nothing more and more
    /// grows it by up to a third of this in its first minute.
    growth_max: f64,
}

const RESOURCES: [Resource; 3] = [
    Resource {
        name: "KiB of memory",
        of: |process| &process.rss_kib,
        most: RSS_KIB_MAX,
        growth_max: (16 << 10) as f64,
    },
    Resource { name: "files", of: |process| &process.files, most: FILES_MAX, growth_max: 30.0 },
    Resource { name: "tasks", of: |process| &process.tasks, most: TASKS_MAX, growth_max: 300.0 },
];

/// C13: neither too much at any time, nor more and more of it.
pub(super) fn greedy(book: &Book) -> Found {
    let mut found = Found::new("C13", "takes too much, or more and more");
    for process in &book.processes {
        for resource in &RESOURCES {
            let levels = (resource.of)(process);
            let most = levels.iter().map(|(_, level)| *level).max().unwrap_or(0);
            if most > resource.most {
                found.add(|| format!("{}: {most} {}", process.name, resource.name));
            }
            if let Some(trend) = growth(levels)
                && trend.low > resource.growth_max
            {
                found.add(|| format!("{}: {trend} {} a minute", process.name, resource.name));
            }
        }
    }
    found
}

/// How it grows in a minute, where the process ran long enough.
pub(crate) fn growth(levels: &[Level]) -> Option<Trend> {
    let warm = levels.first()?.0 + WARM;
    let later = levels.iter().filter(|(t, _)| *t >= warm);
    let points: Vec<(f64, f64)> =
        later.map(|(t, level)| ((t - warm) as f64 / 60e9, *level as f64)).collect();
    if points.len() < SAMPLES_MIN { None } else { trend(&points) }
}

/// A slope by least squares, and the interval that holds it with 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    pub(crate) slope: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl std::fmt::Display for Trend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { slope, low, high } = self;
        write!(f, "{slope:.0} ({low:.0} to {high:.0}) more")
    }
}

/// Of points, as many as leave two degrees of freedom, that are not all at one time.
fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| {
        points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>()
    };
    let spread = sum(&|x, _| x * x);
    if points.len() < 3 || spread <= 0.0 {
        return None;
    }
    let slope = sum(&|x, y| x * y) / spread;
    let rest = sum(&|x, y| (y - slope * x).powi(2));
    let freedom = count - 2.0;
    let margin = quantile(freedom) * (rest / freedom / spread).sqrt();
    Some(Trend { slope, low: slope - margin, high: slope + margin })
}

/// The quantile 0.975 of Student's t, by its expansion around the normal distribution's: within a
/// thousandth from eight degrees of freedom on, and too small for fewer than three.
fn quantile(freedom: f64) -> f64 {
    const Z: f64 = 1.959_964;
    let odd = |powers: [f64; 4]| {
        powers[0] * Z + powers[1] * Z.powi(3) + powers[2] * Z.powi(5) + powers[3] * Z.powi(7)
    };
    Z + odd([1.0, 1.0, 0.0, 0.0]) / (4.0 * freedom)
        + odd([3.0, 16.0, 5.0, 0.0]) / (96.0 * freedom.powi(2))
        + odd([-15.0, 17.0, 19.0, 3.0]) / (384.0 * freedom.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn about(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= wanted.abs() / 1_000.0
    }

    /// A sample every two seconds.
    fn samples(count: u64, level: impl Fn(u64) -> u64) -> Vec<Level> {
        (0..count).map(|number| (number * 2 * S, level(number))).collect()
    }

    #[test]
    fn the_quantile_is_that_of_the_tables() {
        for (freedom, wanted) in [(8.0, 2.3060), (10.0, 2.2281), (20.0, 2.0860), (60.0, 2.0003)] {
            assert!(about(quantile(freedom), wanted), "{freedom}: {}", quantile(freedom));
        }
    }

    #[test]
    fn a_slope_and_its_interval_are_those_of_the_textbook() {
        // Slope 0.6, residuals of 2.4 with three degrees of freedom: its error is 0.2828.
        let points = [(1.0, 2.0), (2.0, 4.0), (3.0, 5.0), (4.0, 4.0), (5.0, 5.0)];
        let trend = trend(&points).expect("five points");
        assert!(about(trend.slope, 0.6), "{trend:?}");
        let margin = quantile(3.0) * 0.282_842;
        assert!(about(trend.low, 0.6 - margin) && about(trend.high, 0.6 + margin), "{trend:?}");
    }

    #[test]
    fn a_line_has_no_interval_and_too_little_has_no_trend() {
        let line: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        let straight = trend(&line).expect("nine points");
        assert!(about(straight.low, 3.0) && about(straight.high, 3.0), "{straight:?}");
        assert_eq!(trend(&[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(trend(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(growth(&samples(16, |number| number)), None, "eleven of them are warm");
    }

    #[test]
    fn a_leak_is_told_from_noise_and_from_a_single_step() {
        let max = RESOURCES[0].growth_max;
        let low = |samples: &[Level]| growth(samples).expect("enough of them").low;
        // 1 MiB every two seconds, with noise of as much.
        let leak = samples(30, |number| 20_000 + number * 1_024 + number * 7_919 % 1_024);
        assert!(low(&leak) > max, "{}", low(&leak));
        let noise = samples(30, |number| 20_000 + number * 7_919 % 8_192);
        assert!(low(&noise) < 0.0, "{}", low(&noise));
        let step = samples(30, |number| if number < 18 { 20_000 } else { 26_000 });
        assert!(low(&step) < max, "{}", low(&step));
        let warming = samples(30, |number| 20_000 + number.min(5) * 10_240);
        assert!(about(low(&warming) + 1.0, 1.0), "{}", low(&warming));
    }
}
