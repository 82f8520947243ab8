//! The dead letters of a group by what they died of.

use std::cmp::Reverse;
use std::collections::HashMap;

use rumormill::Timestamp;
use rumormill::delivery::{Cause, DeadLetter, Fingerprint, Partition};
use rumormill::driver::GroupName;
use serde::Serialize;

use super::choice::{Choice, Letters, Page, Range, ranges};
use super::letter::LetterId;
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::operate::{Store, ago, nothing, several};
use crate::output::{Output, is_closed_pipe};
use crate::table::{self, Column, Table};

/// Most causes that are told apart.
const CAUSES_MAX: usize = 1000;

pub(super) async fn run(
    store: &Store<'_>,
    group: &GroupName,
    choice: &Choice,
    format: Format,
) -> Result<Exit, Failure> {
    let (ranges, report) = ranges(store, group, choice).await?;
    let exit = show(store, group, choice, ranges, format).await?;
    let parked = report.partitions.iter().map(|part| part.parked).sum();
    if format == Format::Pretty && parked > 0 {
        let events = several(parked, "event");
        return table::write(&format!("{events} parked: they wait for a letter of their key\n"));
    }
    Ok(exit)
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
    if format == Format::Raw {
        return write_each(letters, |partition, letter| {
            LetterId { partition: partition.clone(), id: letter.id }.to_string()
        })
        .await;
    }
    let mut causes = Causes::default();
    while let Some(page) = letters.next().await? {
        causes.add(&page);
    }
    causes.print(format)
}

/// Writes a line for each letter, as they are read.
pub(super) async fn write_each(
    mut letters: Letters<'_>,
    line: impl Fn(&Partition, &DeadLetter) -> String,
) -> Result<Exit, Failure> {
    let mut output = Output::stdout(Some(Format::Json));
    while let Some(Page { partition, letters }) = letters.next().await? {
        let mut lines = letters.iter().map(|letter| line(&partition, letter));
        match lines.try_for_each(|line| output.json(&line)).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
            Err(error) => return Err(Failure::failed("cannot write to stdout").because(&error)),
        }
    }
    Ok(Exit::Done)
}

/// What died of the same.
#[derive(Default)]
struct Causes {
    causes: HashMap<Fingerprint, Summary>,
    /// Letters of further causes.
    others: u64,
}

/// What a program reads of a cause.
#[derive(Serialize)]
struct Summary {
    fingerprint: Fingerprint,
    count: u64,
    cause: Cause,
    #[serde(rename = "type")]
    event_type: Option<String>,
    handler: String,
    /// When the first and the last of them were given up.
    first: Timestamp,
    last: Timestamp,
    /// The id of the last one, and what it says.
    example: String,
    errors: Vec<String>,
}

impl Summary {
    fn new(fingerprint: Fingerprint, partition: &Partition, letter: &DeadLetter) -> Self {
        let event_type = letter.record.as_ref().map(|event| event.event_type().to_string());
        Self {
            fingerprint,
            count: 0,
            cause: letter.failure.cause,
            event_type: event_type.ok(),
            handler: letter.failure.site.handler.clone(),
            first: letter.given_up,
            last: letter.given_up,
            example: LetterId { partition: partition.clone(), id: letter.id }.to_string(),
            errors: letter.failure.errors.clone(),
        }
    }

    fn add(&mut self, partition: &Partition, letter: &DeadLetter) {
        self.count += 1;
        self.first = self.first.min(letter.given_up);
        if letter.given_up > self.last {
            self.last = letter.given_up;
            self.example = LetterId { partition: partition.clone(), id: letter.id }.to_string();
            self.errors.clone_from(&letter.failure.errors);
        }
    }
}

/// The letters of the causes that are not told apart.
#[derive(Serialize)]
struct Others {
    fingerprint: Option<Fingerprint>,
    count: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Row {
    One(Box<Summary>),
    Others(Others),
}

impl Causes {
    fn add(&mut self, page: &Page) {
        for letter in &page.letters {
            let fingerprint = letter.fingerprint();
            if self.causes.len() >= CAUSES_MAX && !self.causes.contains_key(&fingerprint) {
                self.others += 1;
                continue;
            }
            let fresh = || Summary::new(fingerprint, &page.partition, letter);
            let summary = self.causes.entry(fingerprint).or_insert_with(fresh);
            summary.add(&page.partition, letter);
        }
    }

    /// Most first.
    fn print(self, format: Format) -> Result<Exit, Failure> {
        let mut causes: Vec<Summary> = self.causes.into_values().collect();
        causes.sort_by_key(|cause| (Reverse(cause.count), cause.fingerprint));
        let mut table = Table::new([
            Column::left("FINGERPRINT"),
            Column::right("COUNT"),
            Column::left("CAUSE"),
            Column::left("TYPE"),
            Column::left("FIRST"),
            Column::left("LAST"),
            Column::left("ERROR OF THE LAST"),
        ])
        .or_say("no dead letter");
        for cause in &causes {
            table.row([
                cause.fingerprint.to_string(),
                cause.count.to_string(),
                cause.cause.to_string(),
                cause.event_type.clone().unwrap_or_else(nothing),
                ago(Some(cause.first)),
                ago(Some(cause.last)),
                cause.errors.first().cloned().unwrap_or_default(),
            ]);
        }
        let mut rows: Vec<Row> =
            causes.into_iter().map(|cause| Row::One(Box::new(cause))).collect();
        if self.others > 0 {
            let cells = ["others".to_owned(), self.others.to_string()];
            table.row(cells.into_iter().chain(std::iter::repeat_n(nothing(), 5)));
            rows.push(Row::Others(Others { fingerprint: None, count: self.others }));
        }
        table.print(format, &rows)
    }
}
