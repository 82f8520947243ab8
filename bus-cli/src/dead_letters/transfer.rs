//! Dead letters to a file and back, one JSON object a line.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use rumormill::delivery::{DeadLetter, EntryId, LetterIdentity, Partition};
use rumormill::driver::GroupName;
use rumormill::driver::admin::STEP_MAX;
use rumormill::envelope::PAYLOAD_BYTES_MAX;
use serde::Serialize;

use super::choice::{Choice, Letters, Selection, ranges};
use super::{letter, list};
use crate::args::{Format, twin};
use crate::failure::{Exit, Failure};
use crate::operate::{Store, several};
use crate::table::{self, Column, Table};

/// Most bytes of a line: a payload and what it was before it was edited, each of their bytes as
/// an escape of six, and some room for the rest.
const LINE_BYTES_MAX: u64 = 12 * PAYLOAD_BYTES_MAX as u64 + (2 << 20);
/// How often a step is tried again because others added letters meanwhile.
const TRIES_MAX: u32 = 1000;

/// Write dead letters to stdout, whole, one JSON object a line
///
/// Nothing is lost on the way to a file and back with `import`. They stay where they are.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_EXPORT", arg)), after_help = "\
Examples:
  bus-cli dead-letters export --group email > letters.ndjson
  bus-cli dead-letters export --group email --type 'orders.>' | jq -c .event")]
pub(super) struct ExportArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    pub(super) group: String,
    #[command(flatten)]
    pub(super) selection: Selection,
}

/// Bring exported dead letters back to their group
///
/// A letter that is there is left alone, so the same file may be imported again.
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| twin("DEAD_LETTERS_IMPORT", arg)), after_help = "\
Example:
  bus-cli dead-letters import --group email letters.ndjson")]
pub(super) struct ImportArgs {
    /// The group: the name of the service or subscription
    #[arg(long, required = true)]
    pub(super) group: String,
    /// What `export` wrote; - for stdin
    #[arg(value_name = "FILE|-")]
    pub(super) file: PathBuf,
    /// Read and check the letters, and add none
    #[arg(long, action = clap::ArgAction::SetTrue,
          value_parser = clap::builder::BoolishValueParser::new())]
    pub(super) dry_run: bool,
}

pub(super) async fn export(
    store: &Store<'_>,
    group: &GroupName,
    choice: &Choice,
) -> Result<Exit, Failure> {
    let (ranges, _) = ranges(store, group, choice).await?;
    list::write_each(Letters::within(store, group, choice, ranges), letter::line).await
}

/// What an import has to do, and what it did.
pub(super) struct Import<'a> {
    store: &'a Store<'a>,
    group: &'a GroupName,
    dry_run: bool,
    /// What is there, of the partitions that the group reads.
    places: BTreeMap<Partition, Place>,
    done: Done,
}

/// What is known of a partition.
#[derive(Default)]
struct Place {
    looked: bool,
    known: HashSet<LetterIdentity>,
    /// The last letter that was seen.
    last: EntryId,
    /// To be added.
    waiting: Vec<DeadLetter>,
}

#[derive(Clone, Copy, Default)]
struct Done {
    added: u64,
    present: u64,
}

#[derive(Serialize)]
struct Report<'a> {
    group: &'a str,
    added: u64,
    present: u64,
}

pub(super) async fn import(
    store: &Store<'_>,
    group: &GroupName,
    file: &std::path::Path,
    dry_run: bool,
    format: Format,
) -> Result<Exit, Failure> {
    let (_, report) = ranges(store, group, &Choice::default()).await?;
    let parts = report.partitions.into_iter();
    let places = parts.map(|part| (part.partition, Place::default())).collect();
    let mut import = Import { store, group, dry_run, places, done: Done::default() };
    let ended = import.run(file).await;
    import.report(format)?;
    match ended {
        Err(failure) if import.done.added > 0 && !dry_run => {
            failure.print(store.address, &mut io::stderr());
            Ok(Exit::Partly)
        }
        ended => ended.map(|()| Exit::Done),
    }
}

impl Import<'_> {
    async fn run(&mut self, file: &std::path::Path) -> Result<(), Failure> {
        let name = file.display().to_string();
        let cannot = |error: io::Error| {
            Failure::failed(format!("cannot read dead letters from {name}")).because(&error)
        };
        let mut reader: Box<dyn BufRead + Send> = match name.as_str() {
            "-" => Box::new(BufReader::new(io::stdin())),
            _ => Box::new(BufReader::new(File::open(file).map_err(cannot)?)),
        };
        let (mut line, mut number) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            number += 1;
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.map_err(cannot)? == 0 {
                break;
            }
            let bad = |why: &str| {
                Failure::failed(format!("line {number} of {name} is no dead letter: {why}"))
                    .with_help("mend it and import the file again: what is there is left alone")
            };
            let text = std::str::from_utf8(&line).map_err(|_| bad("it is no text"))?.trim();
            if !text.is_empty() {
                let (partition, letter) = letter::read(text).map_err(|why| bad(&why))?;
                self.take(&partition, letter).await.map_err(|error| match error {
                    Trouble::Elsewhere => {
                        bad(&format!("group {} does not read {partition}", self.group))
                    }
                    Trouble::Failed(failure) => failure,
                })?;
            }
        }
        let partitions: Vec<Partition> = self.places.keys().cloned().collect();
        for partition in partitions {
            self.flush(&partition).await?;
        }
        Ok(())
    }

    async fn take(&mut self, partition: &Partition, letter: DeadLetter) -> Result<(), Trouble> {
        let place = self.places.get_mut(partition).ok_or(Trouble::Elsewhere)?;
        if !place.looked {
            place.look(self.store, self.group, partition).await.map_err(Trouble::Failed)?;
        }
        if !place.known.insert(letter.identity()) {
            self.done.present += 1;
            return Ok(());
        }
        place.waiting.push(letter);
        if place.waiting.len() >= STEP_MAX {
            self.flush(partition).await.map_err(Trouble::Failed)?;
        }
        Ok(())
    }

    /// Adds what waits. Where others added something since the last look, looks again first.
    async fn flush(&mut self, partition: &Partition) -> Result<(), Failure> {
        let Some(place) = self.places.get_mut(partition) else { return Ok(()) };
        let fail = |error| Failure::library("cannot import dead letters", &error);
        for _ in 0..TRIES_MAX {
            if place.waiting.is_empty() {
                return Ok(());
            }
            let count = place.waiting.len() as u64;
            if self.dry_run {
                place.waiting.clear();
                self.done.added += count;
                return Ok(());
            }
            let admin = self.store.letters().map_err(fail)?;
            let last = place.last;
            let added = admin.restore(self.group, partition, &place.waiting, last).await;
            if let Some(last) = added.map_err(fail)? {
                place.last = last;
                place.waiting.clear();
                self.done.added += count;
                return Ok(());
            }
            let waiting = std::mem::take(&mut place.waiting);
            let own: HashSet<LetterIdentity> = waiting.iter().map(DeadLetter::identity).collect();
            place.known.retain(|known| !own.contains(known));
            place.look(self.store, self.group, partition).await?;
            let before = waiting.len();
            place.waiting = waiting;
            let known = &mut place.known;
            place.waiting.retain(|letter| known.insert(letter.identity()));
            self.done.present += (before - place.waiting.len()) as u64;
        }
        let text =
            format!("cannot import dead letters to {partition}: others add some all the time");
        Err(Failure::failed(text).with_help("stop what dead-letters there, and import again"))
    }

    fn report(&self, format: Format) -> Result<Exit, Failure> {
        let Done { added, present } = self.done;
        if format == Format::Pretty {
            let verb = if self.dry_run { "to be imported" } else { "imported" };
            let letters = several(added, "dead letter");
            return table::write(&format!("{letters} {verb}, {present} there already\n"));
        }
        let mut table = Table::new([Column::right("ADDED")]);
        table.row([added.to_string()]);
        table.print(format, &[Report { group: self.group.as_str(), added, present }])
    }
}

/// Why a letter was not taken.
enum Trouble {
    /// The group does not read its partition.
    Elsewhere,
    Failed(Failure),
}

impl Place {
    /// Learns what was added since the last look.
    async fn look(
        &mut self,
        store: &Store<'_>,
        group: &GroupName,
        partition: &Partition,
    ) -> Result<(), Failure> {
        let fail = |error| Failure::library("cannot read dead letters", &error);
        self.looked = true;
        loop {
            let admin = store.letters().map_err(fail)?;
            let page = admin.page(group, partition, self.last, STEP_MAX).await.map_err(fail)?;
            self.last = page.letters.last().map_or(self.last, |letter| letter.id);
            self.known.extend(page.letters.iter().map(DeadLetter::identity));
            if page.next.is_none() {
                return Ok(());
            }
        }
    }
}
