//! The dead letters of a group: by cause and type for people, one a line for programs.

use std::collections::BTreeMap;

use rumormill::Timestamp;
use rumormill::driver::GroupName;

use super::choice::{Choice, Letters, Page, Range, ranges};
use super::letter::{LetterId, given_up, line};
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::operate::{Store, ago, nothing};
use crate::output::{Output, is_closed_pipe};
use crate::table::{Column, Table};

/// Most rows of the table; the causes are few, the types need not be.
const ROWS_MAX: usize = 1000;

pub(super) async fn run(
    store: &Store<'_>,
    group: &GroupName,
    choice: &Choice,
    format: Format,
) -> Result<Exit, Failure> {
    let (ranges, _) = ranges(store, group, choice).await?;
    show(store, group, choice, ranges, format).await
}

/// Writes what is chosen within `ranges`.
pub(super) async fn show(
    store: &Store<'_>,
    group: &GroupName,
    choice: &Choice,
    ranges: Vec<Range>,
    format: Format,
) -> Result<Exit, Failure> {
    let mut letters = Letters::within(store, group, choice, ranges);
    if format == Format::Pretty {
        let mut classes = Classes::default();
        while let Some(page) = letters.next().await? {
            classes.add(&page);
        }
        return classes.table().print(format, &[] as &[()]);
    }
    let mut output = Output::stdout(Some(format));
    while let Some(Page { partition, letters }) = letters.next().await? {
        let written = letters.iter().try_for_each(|letter| match format {
            Format::Json => output.json(&line(&partition, letter)),
            _ => {
                let id = LetterId { partition: partition.clone(), id: letter.id };
                output.text_as_is(&format!("{id}\n"))
            }
        });
        match written.and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
            Err(error) => {
                return Err(Failure::failed("cannot write to stdout").because(&error));
            }
        }
    }
    Ok(Exit::Done)
}

/// What died of the same, by cause and type.
#[derive(Default)]
pub(super) struct Classes {
    classes: BTreeMap<(String, String), Class>,
    /// Letters that have no row of their own.
    others: u64,
}

struct Class {
    count: u64,
    first: Timestamp,
    last: Timestamp,
    /// What the last of them said.
    error: String,
}

impl Classes {
    pub(super) fn add(&mut self, page: &Page) {
        for letter in &page.letters {
            let event_type = letter.record.as_ref().map(|event| event.event_type().to_string());
            let key = (letter.failure.cause.to_string(), event_type.unwrap_or_else(|_| nothing()));
            if self.classes.len() >= ROWS_MAX && !self.classes.contains_key(&key) {
                self.others += 1;
                continue;
            }
            let time = given_up(letter);
            let class = self.classes.entry(key).or_insert_with(|| Class {
                count: 0,
                first: time,
                last: Timestamp::from_millis(0),
                error: String::new(),
            });
            class.count += 1;
            class.first = class.first.min(time);
            if time >= class.last {
                class.last = time;
                class.error = letter.failure.errors.first().cloned().unwrap_or_default();
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            Column::left("CAUSE"),
            Column::left("TYPE"),
            Column::right("COUNT"),
            Column::left("FIRST"),
            Column::left("LAST"),
            Column::left("LAST ERROR"),
        ])
        .or_say("no dead letter");
        for ((cause, event_type), class) in &self.classes {
            table.row([
                cause.clone(),
                event_type.clone(),
                class.count.to_string(),
                ago(Some(class.first)),
                ago(Some(class.last)),
                class.error.clone(),
            ]);
        }
        if self.others > 0 {
            let [count, none] = [self.others.to_string(), nothing()];
            let cells = ["others".to_owned(), none.clone(), count];
            table.row(cells.into_iter().chain(std::iter::repeat_n(none, 3)));
        }
        table
    }
}
