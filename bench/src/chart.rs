//! A curve: its table, and its plot as an SVG.

use std::fmt::Write;

use crate::case::Series;
use crate::results::Measured;
use crate::stats::{round_number, short};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// A row of the legend.
const ROW: f64 = 18.0;
/// Told apart by those who see few colours as well.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#a0522d"];

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
    /// One after another, at the same distance.
    Ranks,
}

/// A figure that is drawn.
pub(crate) struct Draw {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Series) -> f64,
}

pub(crate) struct Chart {
    pub(crate) title: &'static str,
    /// What is measured, in a sentence or two.
    pub(crate) text: &'static str,
    pub(crate) x: (&'static str, Scale),
    pub(crate) y: (&'static str, Scale),
    pub(crate) draws: &'static [Draw],
}

/// A line of the plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Chart {
    /// The heading, the plot and its table.
    pub(crate) fn markdown(&self, name: &str, measured: &Measured) -> String {
        let lines = self.lines(&measured.series);
        let mut text = format!(
            "#### {}\n\n{}\n\n![{}](benchmarks/{name}.svg)\n\n",
            self.title, self.text, self.title
        );
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        let _ = writeln!(text, "| {} | {} |", self.x.0, names.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(names.len() + 1));
        for x in xs(&lines) {
            let cell = |line: &Line| {
                let point = line.points.iter().find(|(own, _)| same(*own, x));
                short(point.map_or(f64::NAN, |(_, y)| *y))
            };
            let cells: Vec<String> = lines.iter().map(cell).collect();
            let _ = writeln!(text, "| {} | {} |", round_number(x), cells.join(" | "));
        }
        text
    }

    fn lines(&self, all: &[Series]) -> Vec<Line> {
        let mut names: Vec<&str> = Vec::new();
        for series in all.iter().filter(|series| !series.rounds.is_empty()) {
            if !names.contains(&series.case.line.as_str()) {
                names.push(&series.case.line);
            }
        }
        let mut lines = Vec::new();
        for name in names {
            for draw in self.draws {
                let own = all
                    .iter()
                    .filter(|series| series.case.line == name && !series.rounds.is_empty());
                let mut points: Vec<(f64, f64)> =
                    own.map(|series| (series.case.x, (draw.of)(series))).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                let text = [name, draw.name].map(str::trim).join(" ");
                lines.push(Line { name: text.trim().to_owned(), points });
            }
        }
        lines
    }

    /// The plot.
    pub(crate) fn svg(&self, measured: &Measured) -> String {
        let lines = self.lines(&measured.series);
        let across = Axis::new(self.x.1, xs(&lines), LEFT, WIDTH - RIGHT);
        let ys = lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)).collect();
        let up = Axis::new(self.y.1, ys, HEIGHT - BOTTOM, TOP);
        let height = HEIGHT + ROW * lines.len().div_ceil(2) as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" font-family=\"system-ui,sans-serif\" font-size=\"11\" fill=\"#5a6578\">\n\
             <title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n",
            escape(self.title)
        );
        self.axes(&mut svg, &across, &up);
        for (at, line) in lines.iter().enumerate() {
            draw(&mut svg, line, at, &across, &up);
        }
        svg += "</svg>\n";
        svg
    }

    fn axes(&self, svg: &mut String, across: &Axis, up: &Axis) {
        let bottom = HEIGHT - BOTTOM;
        for tick in up.ticks() {
            let y = up.at(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#e4e8ef\"/><text x=\"{:.1}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                round_number(tick)
            );
        }
        for tick in across.ticks() {
            let x = across.at(tick);
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {TOP}V{bottom:.1}\" stroke=\"#f0f2f6\"/><text x=\"{x:.1}\" \
                 y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 14.0,
                round_number(tick)
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom:.1}H{:.1}\" stroke=\"#9aa5b5\" fill=\"none\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text transform=\
             \"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            bottom + 32.0,
            escape(self.x.0),
            f64::midpoint(TOP, bottom),
            escape(self.y.0),
        );
    }
}

fn draw(svg: &mut String, line: &Line, at: usize, across: &Axis, up: &Axis) {
    let colour = COLOURS[at % COLOURS.len()];
    let mut path = String::new();
    for (number, (x, y)) in line.points.iter().enumerate() {
        let (x, y) = (across.at(*x), up.at(*y));
        let command = if number == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x:.1} {y:.1}");
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    let (column, row) = ((at % 2) as f64, (at / 2) as f64);
    let (x, y) = (LEFT + column * (WIDTH - LEFT) / 2.0, HEIGHT + row * ROW);
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/><path \
         d=\"M{x:.1} {y:.1}h16\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{:.1}\" \
         y=\"{:.1}\">{}</text>",
        x + 22.0,
        y + 4.0,
        escape(&line.name)
    );
}

/// From values to places.
struct Axis {
    scale: Scale,
    values: Vec<f64>,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(scale: Scale, mut values: Vec<f64>, from: f64, to: f64) -> Self {
        values.retain(|value| value.is_finite() && (scale != Scale::Logarithmic || *value > 0.0));
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| same(*a, *b));
        let (least, most) =
            (values.first().copied().unwrap_or(1.0), values.last().copied().unwrap_or(1.0));
        let (low, high) = match scale {
            Scale::Ranks => (0.0, (values.len().max(2) - 1) as f64),
            Scale::Linear => (0.0, (most * 1.05).max(f64::MIN_POSITIVE)),
            Scale::Logarithmic => (least.log10().floor(), most.log10().ceil()),
        };
        let high = if high - low < 1e-9 { low + 1.0 } else { high };
        Self { scale, values, low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let on = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-12).log10(),
            Scale::Ranks => {
                self.values.iter().position(|own| same(*own, value)).unwrap_or(0) as f64
            }
        };
        self.from
            + (self.to - self.from) * ((on - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Ranks => self.values.clone(),
            Scale::Logarithmic => {
                (self.low as i32..=self.high as i32).map(|power| 10_f64.powi(power)).collect()
            }
            Scale::Linear => {
                let step = step(self.high / 5.0);
                (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.high).collect()
            }
        }
    }
}

/// The next of 1, 2, 5, 10, ...
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= least).unwrap_or(1.0)
}

fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= a.abs().max(b.abs()) * 1e-9
}

fn xs(lines: &[Line]) -> Vec<f64> {
    let mut xs: Vec<f64> =
        lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x)).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup_by(|a, b| same(*a, *b));
    xs
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_begins_and_ends_where_it_should() {
        let axis = Axis::new(Scale::Logarithmic, vec![10.0, 1000.0], 0.0, 100.0);
        assert_eq!([10.0, 100.0, 1000.0].map(|v| axis.at(v).round()), [0.0, 50.0, 100.0]);
        assert_eq!(axis.ticks().len(), 3);
        let ranks = Axis::new(Scale::Ranks, vec![5.0, 0.0, 1.0], 0.0, 100.0);
        assert_eq!([0.0, 1.0, 5.0].map(|v| ranks.at(v).round()), [0.0, 50.0, 100.0]);
    }

    #[test]
    fn the_steps_of_an_axis_are_round() {
        assert_eq!([0.7, 3.0, 18.0].map(step), [1.0, 5.0, 20.0]);
    }
}
