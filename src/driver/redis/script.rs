//! Scripts: sent by their hash, and in full where the server does not have them.

use std::sync::LazyLock;

use redis::{Cmd, Value};

/// A Lua script. Each file is headed by its KEYS, ARGV and what it returns; what several need
/// stands before them.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(super) static $name: Script = Script {
            text: concat!($(include_str!(concat!("scripts/", $file))),+),
            hash: LazyLock::new(|| {
                let text = concat!($(include_str!(concat!("scripts/", $file))),+);
                redis::Script::new(&in_force(text)).get_hash().to_owned()
            }),
        };
    };
}

script!(DELAY, "delay.lua");
script!(DEDUP, "dedup.lua");
script!(SCHEDULE, "may.lua", "schedule.lua");
script!(SETTLE, "may.lua", "facts.lua", "parking.lua", "settle.lua");
script!(RENEW, "facts.lua", "renew.lua");
script!(ROUTES, "routes.lua");
script!(SEEK, "facts.lua", "seek.lua");
script!(GROUP, "facts.lua", "group.lua");
script!(CHECKPOINT, "facts.lua", "checkpoint.lua");
script!(TRIMMED, "facts.lua", "trimmed.lua");
script!(LOG, "facts.lua", "log.lua");
script!(COUNT, "count.lua");
script!(EDIT, "may.lua", "edit.lua");
script!(RESTORE, "restore.lua");
script!(REDRIVE, "may.lua", "redrive.lua");
script!(PURGE, "may.lua", "parking.lua", "purge.lua");
script!(REBASE, "rebase.lua");
script!(LEAVE, "leave.lua");
script!(BEGIN, "begin.lua");
script!(TOPIC, "topic.lua");
script!(TURN, "turn.lua");
script!(TRIM, "facts.lua", "trim.lua");

/// The text of the script with this hash.
pub(super) fn text_of(hash: &str) -> Option<&'static str> {
    let all = [
        &DELAY,
        &DEDUP,
        &SCHEDULE,
        &SETTLE,
        &RENEW,
        &ROUTES,
        &SEEK,
        &GROUP,
        &CHECKPOINT,
        &TRIMMED,
        &LOG,
        &COUNT,
        &EDIT,
        &RESTORE,
        &REDRIVE,
        &PURGE,
        &REBASE,
        &LEAVE,
        &BEGIN,
        &TOPIC,
        &TURN,
        &TRIM,
    ];
    // In full, the text stands in place of its hash.
    let is_it = |script: &&&Script| *script.hash == hash || script.text == hash;
    all.iter().find(is_it).map(|script| script.text)
}

/// The text, which the harness may have changed.
#[cfg(feature = "plant")]
fn in_force(text: &'static str) -> std::borrow::Cow<'static, str> {
    crate::plant::script(text).into()
}

#[cfg(not(feature = "plant"))]
fn in_force(text: &'static str) -> std::borrow::Cow<'static, str> {
    text.into()
}

/// One call of a script.
pub(super) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new(script: &'static Script, keys: Vec<String>) -> Self {
        Self { script, keys, args: Vec::new() }
    }

    /// Adds an argument.
    pub(super) fn arg(&mut self, arg: impl Into<Vec<u8>>) -> &mut Self {
        self.args.push(arg.into());
        self
    }

    /// Replaces an argument.
    pub(super) fn replace(&mut self, at: usize, arg: impl Into<Vec<u8>>) {
        self.args[at] = arg.into();
    }

    /// Adds a number.
    pub(super) fn number(&mut self, number: &impl ToString) -> &mut Self {
        self.arg(number.to_string())
    }

    /// The call by the script's hash.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// The call with the script's text.
    pub(super) fn in_full(&self) -> Cmd {
        self.command("EVAL", &in_force(self.script.text))
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for arg in &self.args {
            command.arg(arg);
        }
        command
    }
}

/// The server does not have the script, and did nothing.
pub(super) fn is_unknown(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}
