//! The effective settings, and where each comes from.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};
use serde::Serialize;

use super::{File, default, key, places};
use crate::address::Address;
use crate::args::Args;
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::table::{Column, Table};

/// One setting.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    /// As in the configuration file: `tail.since`.
    setting: String,
    /// What would be typed; nothing where it is not set.
    value: Option<String>,
    /// `flag`, `environment NAME`, `FILE:LINE` or `default`.
    from: String,
}

/// Every setting of every command.
pub(super) fn settings(file: Option<&File>, matches: &ArgMatches) -> Vec<Setting> {
    let root = Args::command();
    let mut all = Vec::new();
    for place in places(&root) {
        for arg in place.command.get_arguments() {
            let Some(key) = key(arg) else { continue };
            let (value, from) = effective(arg, &place.tables, &key, file, matches);
            let value = value.map(|value| shown(&key, value));
            let setting = [place.tables.as_slice(), &[key]].concat().join(".");
            all.push(Setting { setting, value, from });
        }
    }
    all
}

/// A value and its source. What was typed can only be a flag of all commands, since this command
/// has none of its own.
fn effective(
    arg: &Arg,
    tables: &[String],
    key: &str,
    file: Option<&File>,
    matches: &ArgMatches,
) -> (Option<String>, String) {
    let id = arg.get_id().as_str();
    if arg.is_global_set() && deepest(matches).value_source(id) == Some(ValueSource::CommandLine) {
        let typed = deepest(matches).get_raw(id).and_then(|mut values| values.next());
        return (typed.map(|text| text.to_string_lossy().into_owned()), "flag".to_owned());
    }
    let name = arg.get_env().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(value) = std::env::var_os(name).filter(|_| !name.is_empty()) {
        return (Some(value.to_string_lossy().into_owned()), format!("environment {name}"));
    }
    let written = file.and_then(|file| file.texts(tables, key).zip(file.place(tables, key)));
    if let Some((texts, place)) = written {
        return (Some(texts.join(", ")), place);
    }
    (default(arg), "default".to_owned())
}

fn deepest(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| deepest(inner))
}

/// Without secrets: the address is the only setting that may hold one.
fn shown(key: &str, value: String) -> String {
    if key == "url" { Address::new(value).to_string() } else { value }
}

pub(super) fn run(settings: &[Setting], format: Format) -> Result<Exit, Failure> {
    let columns = [Column::left("SETTING"), Column::left("VALUE"), Column::left("FROM")];
    let mut table = Table::new(columns);
    for Setting { setting, value, from } in settings {
        let value = value.clone().unwrap_or_else(|| "-".to_owned());
        table.row([setting.clone(), value, from.clone()]);
    }
    table.print(format, settings)
}
