//! A measurement for people: what it found, in lines, and the latencies as a picture.

use anstyle::{AnsiColor, Style};

use super::limit::Limit;
use super::report::{Bucket, Latency, Report};
use crate::address::Address;
use crate::failure::wrapped;
use crate::operate::{bytes, several};
use crate::table::Screen;

/// The longest bar, where the screen is wide enough.
const BAR: usize = 50;
/// What stands before a bar.
const LABEL: usize = 24;

pub(super) fn render(report: &Report, address: &Address, screen: Screen) -> String {
    let styled = |style: Style| if screen.coloured { style } else { Style::new() };
    let strong = styled(Style::new().bold());
    let bar = styled(AnsiColor::Cyan.on_default());
    let mut text = format!(
        "{strong}{} events/s{strong:#}  published, handled and acknowledged on {address}\n",
        grouped(report.events_per_second)
    );
    let mut line = |name: &str, rest: String| {
        text += &wrapped(&format!("  {name:<12}"), &rest, screen.columns);
    };
    line("each", each(report));
    line("limit", format!("{}: {}", name(report.limit), report.limit_meaning));
    if let Some(server) = &report.server {
        let (busy, each) = (percent(server.busy), server.us_per_event);
        line(
            "server",
            format!("its command thread is busy {busy} of the time, {each:.2} us an event"),
        );
    }
    if let Some(client) = &report.client {
        let (busy, each) = (percent(client.busy), client.us_per_event);
        line(
            "client",
            format!("its busiest thread is busy {busy} of the time, {each:.2} us an event"),
        );
    }
    if let Some(trip) = &report.round_trip {
        let (p50, p99) = (time(trip.p50_us), time(trip.p99_us));
        line("round trip", format!("half within {p50}, 99 % within {p99}"));
    }
    if report.kept_waiting > 0.1 {
        let waiting = percent(report.kept_waiting);
        line("cores", format!("this program was ready and had none {waiting} of the time"));
    }
    if report.groups_behind > 0.1 {
        let behind = percent(report.groups_behind);
        line("groups", format!("publishing waited for them {behind} of the time"));
    }
    text.push('\n');
    text += &latency(&report.latency, strong, screen);
    text += &picture(&report.latency.histogram, bar, screen);
    text
}

fn each(report: &Report) -> String {
    let groups = several(report.groups.into(), "group");
    let lanes = several(report.lanes as u64, "lane");
    let payload = bytes(report.payload_bytes as u64);
    format!("{payload}, a window of {}, {groups} of {lanes}", report.window)
}

fn name(limit: Limit) -> &'static str {
    match limit {
        Limit::Server => "server",
        Limit::Client => "client",
        Limit::Machine => "machine",
        Limit::Network => "network",
        Limit::Unknown => "unknown",
    }
}

fn latency(latency: &Latency, strong: Style, screen: Screen) -> String {
    let rate = grouped(latency.rate.into());
    let mut text = format!("{strong}{}{strong:#}", time(latency.p50_us));
    text += &format!("  from due to handled, at {rate} events/s: half of them within it\n");
    let quantiles = [
        ("90 %", latency.p90_us),
        ("99 %", latency.p99_us),
        ("99.9 %", latency.p999_us),
        ("longest", latency.max_us),
    ];
    let told = quantiles.map(|(name, us)| format!("{name} {}", time(us)));
    text += &wrapped("  ", &told.join(", "), screen.columns);
    if !latency.kept_up {
        let text_of = "the rate was not kept up: these are the latencies of a queue that grows; \
                       try a lower --rate";
        text += &wrapped("  ", text_of, screen.columns);
    }
    text
}

fn picture(buckets: &[Bucket], style: Style, screen: Screen) -> String {
    let all: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or_default().max(1);
    let columns = screen.columns.map_or(BAR, |columns| columns.saturating_sub(LABEL).min(BAR));
    let mut text = String::new();
    for Bucket { up_to_us, count } in buckets {
        let share = *count as f64 / all.max(1) as f64;
        let length = (*count as f64 / most as f64 * columns as f64).ceil() as usize;
        let (label, bar) = (format!("<= {}", time(*up_to_us as f64)), "#".repeat(length));
        let line = format!("  {label:>12} {:>6}  {style}{bar}{style:#}", percent(share));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Microseconds with the unit that keeps the number short.
fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1000.0),
        us => format!("{:.1} s", us / 1_000_000.0),
    }
}

/// `1_234_567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let shown = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        let shown = [87.4, 1_500.0, 2_000_000.0].map(time);
        assert_eq!(shown, ["87 us", "1.5 ms", "2.0 s"]);
    }

    #[test]
    fn the_picture_fits_and_shows_what_is_rare() {
        let buckets = [Bucket { up_to_us: 128, count: 999 }, Bucket { up_to_us: 256, count: 1 }];
        let screen = Screen { columns: Some(44), coloured: false };
        let text = picture(&buckets, Style::new(), screen);
        let expected = "     <= 128 us 99.9 %  ####################\n     <= 256 us  0.1 %  #\n";
        assert_eq!(text, expected);
    }
}
