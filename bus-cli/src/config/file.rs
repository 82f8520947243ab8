//! The configuration file: read, checked against the command line that there is, and put below
//! flags and environment.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Command};
use toml::de::{DeTable, DeValue};

use super::{flag, key, table_name, takes_value};
use crate::failure::Failure;

/// Less alike than this, a name is no slip of the finger.
const LIKENESS_MIN: f64 = 0.6;
/// Most bytes of a file: far more than all settings take, and no device that never ends.
const BYTES_MAX: u64 = 1 << 20;

/// The values of a configuration file.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// By the table's path and the key.
    values: BTreeMap<(Vec<String>, String), Value>,
}

/// A value as it would be typed.
#[derive(Debug)]
struct Value {
    texts: Vec<String>,
    line: usize,
}

impl File {
    /// Reads the file at `path`, whose keys are those of `root`.
    pub(crate) fn read(path: &Path, root: &Command) -> Result<Self, Failure> {
        let cannot =
            || Failure::failed(format!("cannot read the configuration {}", path.display()));
        let help = "name another file with --config or BUS_CONFIG";
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| cannot().because(&error).with_help(help))?;
        if text.len() as u64 > BYTES_MAX {
            let cause = format!("it has more than {BYTES_MAX} bytes");
            return Err(cannot().with_cause(cause).with_help(help));
        }
        Self::parse(path, &text, root)
    }

    /// Reads the text of a file.
    pub(crate) fn parse(path: &Path, text: &str, root: &Command) -> Result<Self, Failure> {
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            Failure::usage(format!("{}:{line}: {}", path.display(), error.message()))
        })?;
        let mut reading = Reading { path, text, values: BTreeMap::new() };
        reading.table(table.get_ref(), root, &[])?;
        Ok(Self { path: path.to_owned(), values: reading.values })
    }

    /// Where a setting is written; nothing where it is not.
    pub(super) fn place(&self, tables: &[String], key: &str) -> Option<String> {
        self.get(tables, key).map(|value| self.at(value))
    }

    /// What is written for a setting.
    pub(super) fn texts(&self, tables: &[String], key: &str) -> Option<&[String]> {
        self.get(tables, key).map(|value| value.texts.as_slice())
    }

    fn get(&self, tables: &[String], key: &str) -> Option<&Value> {
        self.values.get(&(tables.to_vec(), key.to_owned()))
    }

    fn at(&self, value: &Value) -> String {
        format!("{}:{}", self.path.display(), value.line)
    }

    /// Puts the values in place of the defaults of `root`: below flags and environment.
    pub(crate) fn apply(&self, root: Command) -> Command {
        self.apply_to(root, &[])
    }

    fn apply_to(&self, command: Command, tables: &[String]) -> Command {
        let command = command.mut_args(|arg| {
            match key(&arg).and_then(|key| self.texts(tables, &key).map(<[String]>::to_vec)) {
                Some(texts) => {
                    let arg = arg.default_values(texts).required(false);
                    // A default is shown in help texts, where a secret does not belong.
                    if takes_value(&arg) { arg.hide_default_value(true) } else { arg }
                }
                None => arg,
            }
        });
        command.mut_subcommands(|child| {
            let tables: Vec<_> = tables.iter().cloned().chain([table_name(&child)]).collect();
            self.apply_to(child, &tables)
        })
    }

    /// The failure for a value of this file that clap refused; nothing where the command line or
    /// the environment held it.
    pub(crate) fn refused(&self, error: &clap::Error, scan: &ArgMatches) -> Option<Failure> {
        let context = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let typed = context(ContextKind::InvalidArg)?.split([' ', '=']).next()?;
        let refused = context(ContextKind::InvalidValue)?;
        let (key, value) = self.of_call(scan).into_iter().find(|(key, value)| {
            is_flag(typed, key) && value.texts.iter().any(|text| text == refused)
        })?;
        let why = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(known)) => format!("possible values: {}", known.join(", ")),
            _ => std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
        };
        let text = format!("{}: {refused:?} is no value of `{key}`: {why}", self.at(value));
        Some(Failure::usage(text))
    }

    /// Adds where a value was written to a failure that names its flag.
    pub(crate) fn explain(&self, failure: Failure, scan: &ArgMatches) -> Failure {
        let named =
            |key: &str| failure.text().split([' ', ':', ',']).any(|word| is_flag(word, key));
        match self.of_call(scan).into_iter().find(|(key, _)| named(key)) {
            Some((key, value)) => {
                let note = format!("`{key}` is set in {}", self.at(value));
                failure.with_cause(note)
            }
            None => failure,
        }
    }

    /// The values that this call is concerned with.
    fn of_call(&self, scan: &ArgMatches) -> Vec<(&str, &Value)> {
        let mut called = Vec::new();
        let mut matches = scan;
        while let Some((name, inner)) = matches.subcommand() {
            called.push(name.replace('-', "_"));
            matches = inner;
        }
        let own =
            self.values.iter().filter(|((tables, _), _)| tables.is_empty() || *tables == called);
        own.map(|((_, key), value)| (key.as_str(), value)).collect()
    }
}

/// Whether `typed`, as in `--from-id` or `-n`, is the flag of `key`.
fn is_flag(typed: &str, key: &str) -> bool {
    typed.starts_with('-') && typed.trim_start_matches('-').replace('-', "_") == key
}

struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    values: BTreeMap<(Vec<String>, String), Value>,
}

impl Reading<'_> {
    fn table(
        &mut self,
        table: &DeTable<'_>,
        command: &Command,
        tables: &[String],
    ) -> Result<(), Failure> {
        for (name, value) in table {
            let line = line_at(self.text, name.span().start);
            let name = name.get_ref().as_ref();
            let child = command.get_subcommands().find(|child| table_name(child) == name);
            match (value.get_ref(), child) {
                (DeValue::Table(inner), Some(child)) => {
                    let tables: Vec<_> = tables.iter().cloned().chain([name.to_owned()]).collect();
                    self.table(inner, child, &tables)?;
                }
                (value, _) => self.value(name, value, line, command, tables)?,
            }
        }
        Ok(())
    }

    fn value(
        &mut self,
        name: &str,
        value: &DeValue<'_>,
        line: usize,
        command: &Command,
        tables: &[String],
    ) -> Result<(), Failure> {
        let at = format!("{}:{line}", self.path.display());
        let known = command.get_arguments().find(|arg| key(arg).as_deref() == Some(name));
        let Some(arg) = known else {
            return Err(unknown(&at, name, value, command, tables));
        };
        let texts = texts(value).ok_or_else(|| {
            let flag = flag(arg);
            Failure::usage(format!("{at}: `{name}` is no {}", value.type_str()))
                .with_help(format!("write what would be typed after {flag}, in quotes"))
        })?;
        let one = !matches!(arg.get_action(), clap::ArgAction::Append);
        if one && texts.len() != 1 {
            return Err(Failure::usage(format!("{at}: `{name}` takes one value, not a list")));
        }
        self.values.insert((tables.to_vec(), name.to_owned()), Value { texts, line });
        Ok(())
    }
}

/// A value as it would be typed; nothing for what cannot be.
fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| match item.get_ref() {
                DeValue::Array(_) => None,
                item => texts(item),
            });
            return items.collect::<Option<Vec<_>>>().map(|items| items.concat());
        }
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    };
    Some(vec![text])
}

fn unknown(
    at: &str,
    name: &str,
    value: &DeValue<'_>,
    command: &Command,
    tables: &[String],
) -> Failure {
    let is_table = matches!(value, DeValue::Table(_));
    let keys = command.get_arguments().filter_map(key);
    let children = command.get_subcommands().filter(|child| child.get_name() != "help");
    let known: Vec<String> =
        if is_table { children.map(table_name).collect() } else { keys.collect() };
    let what = if is_table { "table" } else { "key" };
    let place = match tables {
        [] => String::new(),
        tables => format!(" in [{}]", tables.join(".")),
    };
    let failure = Failure::usage(format!("{at}: {what} `{name}` is not known{place}"));
    match nearest(name, &known) {
        Some(near) => failure.with_help(format!("did you mean `{near}`?")),
        None if known.is_empty() => failure.with_help("there is none; remove it".to_owned()),
        None => failure.with_help(format!("known: {}", known.join(", "))),
    }
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let likeness = |known: &String| strsim::jaro_winkler(name, known);
    let near = known.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(near) >= LIKENESS_MIN).then_some(near.as_str())
}

/// The number of the line that holds the byte at `offset`.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
