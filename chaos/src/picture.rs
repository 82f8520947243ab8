//! A picture of a round: faults, publishes, deliveries and gaps over time, on a page that needs
//! nothing else.

use std::fmt::Write;

use crate::check::{Book, Fault, Moment};
use crate::report::{Report, ranks};

const WIDTH: f64 = 1_200.0;
/// Room for what stands at the left of a row.
const LEFT: f64 = 90.0;
const ROW: f64 = 15.0;
const CHART: f64 = 80.0;
/// Columns of a chart.
const BUCKETS: usize = 370;
/// Nothing for so long is a gap.
const GAP: u64 = 500_000_000;

const STYLE: &str = "\
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1248px;padding:0 24px;\
color:#1c2330;background:#fff}h1{font-size:20px;margin:0 0 4px}h2{font-size:15px;margin:24px 0 6px}\
p{margin:2px 0}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
th,td{padding:2px 10px 2px 0;text-align:right;border-bottom:1px solid #e4e8ef;white-space:nowrap}\
th{font-weight:600;color:#5a6578}th:first-child,td:first-child{text-align:left}\
.kept{color:#126b3f}.broken{color:#b3261e}pre{white-space:pre-wrap;margin:0}\
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:#5a6578}";

/// The page.
pub(crate) fn page(book: &Book, report: &Report) -> String {
    let class = if report.is_kept() { "kept" } else { "broken" };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>chaos: seed {0}</title>\
         <style>{STYLE}</style>\n<h1 class=\"{class}\">{1}</h1>\n<p>{2}; {3} s; seed {0}</p>\n",
        report.seeds.first().copied().unwrap_or_default(),
        escape(&report.verdict()),
        escape(&report.server),
        report.seconds,
    );
    page += &drawing(book);
    page += &violations(report);
    page += &table(report);
    page += "</html>\n";
    page
}

/// Where a moment is.
struct Scale {
    from: u64,
    to: u64,
}

impl Scale {
    fn x(&self, t: u64) -> f64 {
        let all = self.to.saturating_sub(self.from).max(1) as f64;
        let at = t.clamp(self.from, self.to).saturating_sub(self.from) as f64;
        LEFT + (WIDTH - LEFT - 10.0) * at / all
    }
}

fn drawing(book: &Book) -> String {
    let scale = Scale { from: book.from, to: book.to };
    let rows = rows(&book.faults, &scale);
    let below = 20.0 + ROW * rows.iter().max().map_or(1.0, |row| (row + 1) as f64);
    let height = below + 2.0 * (CHART + 28.0) + 24.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"Faults, publishes and deliveries over time\">\n"
    );
    axis(&mut svg, &scale, height);
    label(&mut svg, 32.0, "faults");
    for (fault, row) in book.faults.iter().zip(rows) {
        bar(&mut svg, &scale, fault, 22.0 + ROW * row as f64, book.counts(fault), height);
    }
    chart(&mut svg, &scale, "acknowledged", &book.acknowledged, below + 14.0, "#2563a8");
    chart(&mut svg, &scale, "delivered", &book.delivered, below + CHART + 42.0, "#1f8a5b");
    svg += "</svg>\n";
    svg
}

/// A row for each fault, so that neither bars nor their names lie on one another.
fn rows(faults: &[Fault], scale: &Scale) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let place = |fault: &Fault| {
        let (from, to) = (scale.x(fault.from), scale.x(fault.to));
        let needs = to.max(from + 2.0) + 10.0 + 6.3 * fault.name.len() as f64;
        let row = ends.iter().position(|end| *end <= from).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(needs);
        } else {
            ends[row] = needs;
        }
        row
    };
    faults.iter().map(place).collect()
}

fn label(svg: &mut String, y: f64, text: &str) {
    let _infallible = writeln!(svg, "<text x=\"0\" y=\"{y:.1}\">{text}</text>");
}

/// A line every few seconds.
fn axis(svg: &mut String, scale: &Scale, height: f64) {
    let seconds = (scale.to.saturating_sub(scale.from)) / 1_000_000_000;
    let step = [1, 2, 5, 10, 20, 60, 300].into_iter().find(|step| seconds / step <= 20);
    for second in (0..=seconds).step_by(usize::try_from(step.unwrap_or(600)).unwrap_or(600)) {
        let x = scale.x(scale.from + second * 1_000_000_000);
        let _infallible = writeln!(
            svg,
            "<path d=\"M{x:.1} 14V{:.1}\" stroke=\"#e9edf3\"/><text x=\"{x:.1}\" y=\"10\" \
             text-anchor=\"middle\">{second} s</text>",
            height - 12.0,
        );
    }
}

/// A fault, and its shadow over the charts; pale where it had no effect.
fn bar(svg: &mut String, scale: &Scale, fault: &Fault, y: f64, counted: bool, height: f64) {
    let (from, to) = (scale.x(fault.from), scale.x(fault.to));
    let width = (to - from).max(2.0);
    let fill = if counted { "#d9822b" } else { "#c9cfd9" };
    let name = escape(&fault.name);
    let _infallible = writeln!(
        svg,
        "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" \
         fill=\"#d9822b\" opacity=\"0.08\"/><rect x=\"{from:.1}\" y=\"{y:.1}\" \
         width=\"{width:.1}\" height=\"11\" rx=\"2\" fill=\"{fill}\"><title>{name}: {:.2} s, seen \
         {}</title></rect><text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
        height - y - 12.0,
        (fault.to.saturating_sub(fault.from)) as f64 / 1e9,
        fault.seen,
        from + width + 3.0,
        y + 9.5,
    );
}

/// How many in each piece of time; red where there was nothing for long.
fn chart(svg: &mut String, scale: &Scale, name: &str, moments: &[Moment], y: f64, fill: &str) {
    let (Some((first, _)), Some((last, _))) = (moments.first(), moments.last()) else { return };
    let span = (scale.to.saturating_sub(scale.from)).max(1);
    let mut counts = vec![0_u32; BUCKETS];
    for (t, _) in moments {
        let at = (t - scale.from) as u128 * BUCKETS as u128 / u128::from(span);
        counts[usize::try_from(at).unwrap_or(0).min(BUCKETS - 1)] += 1;
    }
    // What comes all at once after a stall may stand out of the picture.
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    let most = sorted[BUCKETS * 97 / 100].max(1);
    label(svg, y + CHART / 2.0, name);
    let rate = f64::from(most) * BUCKETS as f64 / (span as f64 / 1e9);
    label(svg, y + 10.0, &format!("{rate:.0}/s"));
    let wide = (WIDTH - LEFT - 10.0) / BUCKETS as f64;
    let mut path = format!("M{LEFT:.1} {:.1}", y + CHART);
    for (bucket, count) in counts.iter().enumerate() {
        let top = y + CHART * (1.0 - (f64::from(*count) / f64::from(most)).min(1.0));
        let _infallible = write!(path, "L{:.1} {top:.1}h{wide:.2}", LEFT + wide * bucket as f64);
    }
    for pair in moments.windows(2).filter(|pair| pair[1].0 - pair[0].0 >= GAP) {
        let (from, to) = (scale.x(pair[0].0), scale.x(pair[1].0));
        let _infallible = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{CHART}\" \
             fill=\"#d64545\" opacity=\"0.22\"><title>nothing for {:.2} s</title></rect>",
            to - from,
            (pair[1].0 - pair[0].0) as f64 / 1e9,
        );
    }
    let _infallible = writeln!(
        svg,
        "<path d=\"{path}V{0:.1}Z\" fill=\"{fill}\" opacity=\"0.85\"><title>{name} from {1:.1} s \
         to {2:.1} s</title></path><path d=\"M{LEFT} {0:.1}H{3:.1}\" stroke=\"#9aa5b5\"/>",
        y + CHART,
        (first - scale.from) as f64 / 1e9,
        (last - scale.from) as f64 / 1e9,
        WIDTH - 10.0,
    );
}

fn violations(report: &Report) -> String {
    let mut text = String::new();
    for violation in &report.violations {
        let _infallible = writeln!(
            text,
            "{}: {}: {}\n    {}",
            violation.checker,
            violation.says,
            violation.count,
            violation.examples.join("\n    ")
        );
    }
    if text.is_empty() {
        return String::new();
    }
    format!("<h2 class=\"broken\">Broken</h2>\n<pre>{}</pre>\n", escape(&text))
}

fn table(report: &Report) -> String {
    let mut rows = String::new();
    for (name, kind) in &report.kinds {
        let _infallible = writeln!(
            rows,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}",
            escape(name),
            kind.injected,
            kind.counted,
            ranks(&kind.publish_ms),
            ranks(&kind.delivery_ms),
        );
    }
    format!(
        "<h2>Faults</h2>\n<table><tr><th>fault<th>injected<th>counted<th>publish recovers (s)\
         <th>deliver recovers (s)\n{rows}</table>\n<p>Median, 99th percentile and longest, from \
         the heal to the first success of an event that was published after it. Counted is what \
         the histories show an effect of.</p>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
