//! The page that documents every setting, `docs/config.md`, made from the command line's own
//! description.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::{default, flag, key, places, takes_value};
use crate::args::Args;

const HEAD: &str = "\
# Settings of `bus-cli`

Made by `bus-cli config reference`; do not edit.

A setting comes from, in this order: the flag; the environment variable; the configuration file
(`--config FILE` or `BUS_CONFIG`); the default. `bus-cli config show` tells for each which one it
was. The file is TOML. Its keys are the names of the flags with `_` for `-`; what belongs to one
command stands in the command's table. A key that is not known is an error.

```toml
url = \"redis://127.0.0.1:6379\"
namespace = \"shop\"

[tail]
last = 10
```
";

/// The whole page.
pub(super) fn page() -> String {
    let root = Args::command();
    let mut page = HEAD.to_owned();
    for place in places(&root) {
        let path = place.tables.join(" ").replace('_', "-");
        match place.tables.as_slice() {
            [] => page += "\n## Every command\n\n",
            tables => {
                let _ = write!(page, "\n## `{path}`, table `[{}]`\n\n", tables.join("."));
            }
        }
        page += "| flag | environment | key | default | what it does |\n|---|---|---|---|---|\n";
        for arg in place.command.get_arguments() {
            row(&mut page, arg);
        }
    }
    page += &positionals(&root);
    page
}

fn row(page: &mut String, arg: &Arg) {
    let Some(key) = key(arg).or_else(|| (arg.get_id() == "config").then(String::new)) else {
        return;
    };
    let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
    let env = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = arg.get_value_names().and_then(|names| names.first()).filter(|_| takes_value(arg));
    let typed = match name {
        Some(name) => format!("{} {name}", flag(arg)),
        None => flag(arg),
    };
    let default = default(arg).unwrap_or_default();
    let cells = [code(&typed), code(&env), code(&key), code(&default), help(arg)];
    let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
}

fn help(arg: &Arg) -> String {
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    let values: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
    // `true` and `false` go without saying.
    if !values.is_empty() && !values.contains(&"true") {
        let _ = write!(help, " ({})", values.join(", "));
    }
    help
}

/// What is no setting, since each call says it anew.
fn positionals(root: &Command) -> String {
    let mut names = Vec::new();
    take_positionals(root, "", &mut names);
    format!("\nWhat {} take besides flags is no setting: it is typed.\n", names.join(", "))
}

/// The commands below this one that take something besides flags.
fn take_positionals(command: &Command, path: &str, names: &mut Vec<String>) {
    for child in command.get_subcommands() {
        let path = format!("{path} {}", child.get_name()).trim_start().to_owned();
        if child.get_positionals().next().is_some() {
            names.push(format!("`{path}`"));
        }
        take_positionals(child, &path, names);
    }
}
