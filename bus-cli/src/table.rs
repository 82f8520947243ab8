//! Tables that fit the terminal; the same rows as JSON objects or as bare names.

use std::io::{self, IsTerminal, Write};

use anstyle::Style;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::args::Format;
use crate::escape::{escape, escape_all_but};
use crate::failure::{Exit, Failure};
use crate::output::is_closed_pipe;

/// Blanks between two columns.
const GAP: usize = 2;
/// No column of a table that does not fit becomes narrower than this.
const COLUMN_MIN: usize = 6;

/// The head of a column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// Its end says more than its beginning.
    Path,
}

impl Column {
    /// Text.
    pub(crate) const fn left(title: &'static str) -> Self {
        Self { title, kind: Kind::Text }
    }

    /// Numbers.
    pub(crate) const fn right(title: &'static str) -> Self {
        Self { title, kind: Kind::Number }
    }

    /// A place in a file: the first to give way, and from its beginning.
    pub(crate) const fn path(title: &'static str) -> Self {
        Self { title, kind: Kind::Path }
    }
}

/// Rows under titles.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Said where there is no row.
    empty: &'static str,
}

impl Table {
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new(), empty: "nothing there" }
    }

    /// What people are told where there is no row.
    #[must_use]
    pub(crate) fn or_say(mut self, empty: &'static str) -> Self {
        self.empty = empty;
        self
    }

    /// Adds a row, one cell for each column. What could harm a terminal is escaped.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<_> = cells.into_iter().map(|cell| escape(&cell).into_owned()).collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Writes the rows to stdout: the table, `objects` as one JSON object a line, or the first
    /// column alone.
    pub(crate) fn print(
        &self,
        format: Format,
        objects: &[impl Serialize],
    ) -> Result<Exit, Failure> {
        match format {
            Format::Pretty => write(&self.render(Screen::stdout())),
            Format::Json if io::stdout().is_terminal() => {
                // Within JSON strings an escape means the same.
                write(&escape_all_but(&json_lines(objects)?, &['\n']))
            }
            Format::Json => write(&json_lines(objects)?),
            Format::Raw => {
                let names = self.rows.iter().filter_map(|row| row.first());
                write(&names.map(|name| format!("{name}\n")).collect::<String>())
            }
        }
    }

    /// The table as text for a screen.
    pub(crate) fn render(&self, screen: Screen) -> String {
        if self.rows.is_empty() {
            return format!("{}\n", self.empty);
        }
        let widths = self.widths(screen.columns);
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let head = self.line(&titles, &widths);
        let style = if screen.coloured { Style::new().bold() } else { Style::new() };
        let mut text = format!("{style}{head}{style:#}\n");
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text += &self.line(&cells, &widths);
            text.push('\n');
        }
        text
    }

    /// What each column needs; where that is too much, paths give way, then the widest. The names
    /// in the first column tell the rows apart: they stay whole as long as they can.
    fn widths(&self, screen: Option<usize>) -> Vec<usize> {
        let column = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].width());
            cells.chain([self.columns[at].title.width()]).max().unwrap_or_default()
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(column).collect();
        let Some(screen) = screen else { return widths };
        let gaps = GAP * self.columns.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > screen {
            let (first, others) = widths.split_at_mut(1);
            let wide = others.iter_mut().zip(&self.columns[1..]);
            let widest = wide
                .filter(|(width, _)| **width > COLUMN_MIN)
                .max_by_key(|(width, column)| (column.kind == Kind::Path, **width))
                .map(|(width, _)| width)
                .or_else(|| first.iter_mut().find(|width| **width > COLUMN_MIN));
            match widest {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        widths
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let cell =
                if column.kind == Kind::Path { cut_head(cell, *width) } else { cut(cell, *width) };
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) =
                if column.kind == Kind::Number { (&*blanks, "") } else { ("", &*blanks) };
            line += before;
            line += &cell;
            line += after;
            line += &" ".repeat(GAP);
        }
        line.trim_end().to_owned()
    }
}

/// The head of `text` that fits, with `…` where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut cut, mut used) = (String::new(), 1);
    for letter in text.chars() {
        used += letter.width().unwrap_or_default();
        if used > width {
            break;
        }
        cut.push(letter);
    }
    cut + "…"
}

/// The end of `text` that fits, with `…` before it.
fn cut_head(text: &str, width: usize) -> String {
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    backwards(&cut(&backwards(text), width))
}

/// What is written to.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    /// Nothing where no terminal limits it.
    pub(crate) columns: Option<usize>,
    pub(crate) coloured: bool,
}

impl Screen {
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        // `NO_COLOR` and its like.
        let never = anstream::AutoStream::choice(&stdout) == anstream::ColorChoice::Never;
        let terminal = stdout.is_terminal();
        let size = terminal_size::terminal_size().filter(|_| terminal);
        let columns = size.map(|(width, _)| usize::from(width.0));
        Self { columns, coloured: terminal && !never }
    }
}

/// One JSON object a line.
pub(crate) fn json_lines(objects: &[impl Serialize]) -> Result<String, Failure> {
    let mut text = String::new();
    for object in objects {
        text += &serde_json::to_string(object)
            .map_err(|error| Failure::failed("cannot write JSON").because(&error))?;
        text.push('\n');
    }
    Ok(text)
}

/// Writes to stdout. A reader that went away has what it wanted.
pub(crate) fn write(text: &str) -> Result<Exit, Failure> {
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if !is_closed_pipe(&error) => {
            Err(Failure::failed("cannot write to stdout").because(&error))
        }
        Ok(()) | Err(_) => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table =
            Table::new([Column::left("GROUP"), Column::right("DUE"), Column::left("ID")]);
        table.row(["email".into(), "7".into(), "a long one, longer than others".into()]);
        table.row(["ä\u{1b}".into(), "1200".into(), "日本語".into()]);
        table
    }

    fn rendered(columns: Option<usize>) -> String {
        table().render(Screen { columns, coloured: false })
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let expected = "\
            GROUP     DUE  ID\n\
            email       7  a long one, longer than others\n\
            ä\\u001b  1200  日本語\n";
        assert_eq!(rendered(None), expected);
        assert_eq!(rendered(Some(80)), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest() {
        let text = rendered(Some(30));
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
        assert!(text.contains("a long one, lo…\n"), "{text}");
        assert!(text.contains("email "), "{text}");
        let mut table = Table::new([Column::left("PARTITION"), Column::left("WHY")]);
        table.row(["user_service:0".into(), "of a long time".into()]);
        let text = table.render(Screen { columns: Some(24), coloured: false });
        assert!(text.contains("\nuser_service:0  of a lo…\n"), "{text}");
        let text = table.render(Screen { columns: Some(16), coloured: false });
        assert!(text.contains("\nuser_se…  of a …\n"), "{text}");
    }

    #[test]
    fn a_path_gives_way_first_and_keeps_its_end() {
        let mut table = Table::new([Column::left("ROUTE"), Column::path("LINKED")]);
        table.row(["user_service.user.created".into(), "crates/email/src/lib.rs:43".into()]);
        let text = table.render(Screen { columns: Some(40), coloured: false });
        assert!(text.ends_with("user_service.user.created  …rc/lib.rs:43\n"), "{text}");
    }

    #[test]
    fn only_a_terminal_sees_colours_and_no_row_is_said() {
        let text = table().render(Screen { columns: None, coloured: true });
        assert!(text.starts_with("\u{1b}[1mGROUP"), "{text:?}");
        let none = Table::new([Column::left("A")]).or_say("no group");
        assert_eq!(none.render(Screen { columns: None, coloured: false }), "no group\n");
    }
}
