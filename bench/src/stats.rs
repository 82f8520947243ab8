//! Medians and spread.

/// The middle of the values, and not a number where there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// Half of the distance between the extremes, as a part of the median.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    (high - low) / 2.0 / median(values)
}

/// A number in three digits or so: `2.15 M`, `216 k`, `47.3`, `0.18`.
pub(crate) fn short(value: f64) -> String {
    let scaled = |divisor: f64, unit: &str| {
        let value = value / divisor;
        let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        format!("{value:.decimals$}{unit}")
    };
    match value {
        value if value.is_nan() => "-".to_owned(),
        value if value >= 999_500.0 => scaled(1e6, " M"),
        value if value >= 9_995.0 => scaled(1e3, " k"),
        value if value >= 999.5 => format!("{value:.0}"),
        _ => scaled(1.0, ""),
    }
}

/// A number that was chosen: `10`, `1.5 k`, `1 M`.
pub(crate) fn round_number(value: f64) -> String {
    let [thousands, millions] = [value / 1e3, value / 1e6];
    match value {
        value if value >= 1e6 => format!("{} M", (millions * 100.0).round() / 100.0),
        value if value >= 1e4 => format!("{} k", (thousands * 10.0).round() / 10.0),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [2_150_000.0, 216_400.0, 47.31, 0.184, 5_000.0, 999_600.0].map(short);
        assert_eq!(shown, ["2.15 M", "216 k", "47.3", "0.18", "5000", "1.00 M"]);
    }

    #[test]
    fn round_numbers_stay_round() {
        let shown = [0.0, 1024.0, 10_000.0, 10_240.0, 5e6, 1_048_576.0].map(round_number);
        assert_eq!(shown, ["0", "1024", "10 k", "10.2 k", "5 M", "1.05 M"]);
    }

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_around_it() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!((spread([90.0, 100.0, 110.0]) - 0.1).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }
}
