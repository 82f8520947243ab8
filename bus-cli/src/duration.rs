//! Durations as people type them: `500ms`, `10s`, `5m`, `2h`, `7d`.

use std::time::Duration;

use crate::failure::Failure;

/// About 30 years: further is a slip of the finger.
const DAYS_MAX: u64 = 10_000;
const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Reads the value of `flag`.
pub(crate) fn parse(flag: &str, text: &str) -> Result<Duration, Failure> {
    let refuse = |why: &str| {
        Failure::usage(format!("{flag}: duration {text:?} {why}"))
            .with_help("write a whole number and one unit: 500ms, 10s, 5m, 2h or 7d")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => MILLIS_PER_DAY,
        "" if !number.is_empty() => return Err(refuse("has no unit")),
        _ => return Err(refuse("is not valid")),
    };
    if number.is_empty() {
        return Err(refuse("has no number"));
    }
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_millis));
    match millis.filter(|millis| *millis <= DAYS_MAX * MILLIS_PER_DAY) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err(refuse("is longer than 10000d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        let cases =
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("0s", 0)];
        for (text, millis) in cases {
            assert_eq!(parse("--since", text).expect(text), Duration::from_millis(millis));
        }
        assert_eq!(parse("--since", "7d").expect("days"), Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "5", "s", "-5s", "1.5s", "5 s", "5S", "1h30m", "10001d", "99999999999999h"]
        {
            assert!(parse("--since", bad).is_err(), "{bad}");
        }
    }
}
