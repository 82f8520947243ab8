//! The page: what stands between the markers of a section is replaced.

use std::fmt::Write;
use std::path::Path;

use crate::Error;
use crate::peers::Needs;
use crate::results::Measured;
use crate::server;

/// What is worth knowing of a section's run: rounds that do not count, peers that are not there.
pub(crate) fn footnotes(measured: &Measured) -> String {
    let mut text = String::new();
    let rounds = measured.series.iter().map(|series| series.rounds.len()).max().unwrap_or(0);
    let medians = if rounds > 0 {
        format!("Medians of {rounds} interleaved rounds")
    } else {
        "Measured".to_owned()
    };
    let Measured { command, took_seconds, .. } = measured;
    let _ = writeln!(text, "\n{medians}, by `{command}`; {took_seconds} s in all.\n");
    for series in measured.series.iter().filter(|series| !series.void.is_empty()) {
        let _ = writeln!(
            text,
            "- {} of the rounds of {} do not count: {}.",
            series.void.len(),
            series.case.title(),
            series.void.first().map_or("", String::as_str).replace(['\n', '|'], " "),
        );
    }
    let again = measured.series.iter().flat_map(|series| &series.rounds);
    let again: u64 = again.map(|round| round.again).sum();
    if again > 0 {
        let _ = writeln!(text, "- {again} deliveries came once more; each event counts once.");
    }
    if !measured.skipped.is_empty() {
        let _ = writeln!(
            text,
            "- Skipped, as their server was not found: {}.",
            measured.skipped.join(", ")
        );
    }
    text
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    row("processor", &format!("{}, {} cores", processor(), cores()));
    row("memory", &format!("{:.0} GiB", memory_kib() / 1024.0 / 1024.0));
    row("system", &kernel());
    for (name, needs) in
        [("Redis", Needs::Redis), ("NATS", Needs::NatsFile), ("RabbitMQ", Needs::Rabbit)]
    {
        row(name, &server::version(needs).unwrap_or_else(|| "not found".to_owned()));
    }
    row("rumormill", concat!(env!("CARGO_PKG_VERSION"), ", an optimised build"));
    text
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

fn memory_kib() -> f64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(f64::NAN)
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.trim())
}

/// Replaces what stands between the markers of a name.
pub(crate) fn replace(page: &Path, name: &str, with: &str) -> Result<(), Error> {
    let text = std::fs::read_to_string(page)?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let whole = || format!("{} has no markers {}", page.display(), begin.trim());
    let (head, rest) = text.split_once(&begin).ok_or_else(whole)?;
    let (_, tail) = rest.split_once(&end).ok_or_else(whole)?;
    Ok(std::fs::write(page, format!("{head}{begin}{}\n{end}{tail}", with.trim_end()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "head\n<!-- a -->\nold\n<!-- /a -->\n<!-- b -->\nb\n<!-- /b -->\n";
        std::fs::write(file.path(), text).expect("written");
        replace(file.path(), "a", "new\n\n").expect("replaced");
        let now = std::fs::read_to_string(file.path()).expect("read");
        assert_eq!(now, text.replace("old", "new"));
        assert!(replace(file.path(), "c", "").is_err());
    }
}
