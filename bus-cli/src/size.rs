//! Sizes as people type them: `4096`, `64KiB`, `256MiB`, `1GiB`.

use crate::failure::Failure;

/// Reads the value of `flag`: bytes, 1 at least.
pub(crate) fn parse(flag: &str, text: &str) -> Result<u64, Failure> {
    let refuse = |why: &str| {
        Failure::usage(format!("{flag}: size {text:?} {why}"))
            .with_help("write a whole number of bytes, or one with a unit: 64KiB, 256MiB or 1GiB")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(refuse("is not valid")),
    };
    if number.is_empty() {
        return Err(refuse("has no number"));
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(0) => Err(refuse("is nothing")),
        Some(bytes) => Ok(bytes),
        None => Err(refuse("is too large")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        let cases =
            [("7", 7), ("7B", 7), ("64KiB", 1 << 16), ("256MiB", 1 << 28), ("1GiB", 1 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse("--keep-bytes", text).expect(text), bytes);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "0", "0GiB", "MiB", "-5", "1.5GiB", "1 GiB", "1GB", "1g", "99999999999TiB"]
        {
            assert!(parse("--keep-bytes", bad).is_err(), "{bad}");
        }
    }
}
