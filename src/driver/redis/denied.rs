//! What a user lacks. A server that answers `NOPERM` names the command, of 7.0 in a script not
//! even that, and never the key; whoever has to mend it wants the rule to add. So the answer is
//! completed here, where the command is known.

use std::collections::BTreeSet;

use super::socket::{Socket, When};
use redis::{Arg, Cmd, Pipeline, Value};

use super::{keys, script};

/// Stands before the rules in an answer that was completed.
const NEEDS: &str = "this user needs ";
/// What the servers say when a script may not do something.
const IN_SCRIPT: [&str; 2] = ["ACL failure in script", "The user executing the script can't"];
/// Lines that a call in a script may take.
const CALL_LINES_MAX: usize = 8;
/// Commands that only read, for which a rule of reading will do.
const READS: [&str; 17] = [
    "HGET",
    "HGETALL",
    "HLEN",
    "HMGET",
    "HVALS",
    "MEMORY",
    "TYPE",
    "XINFO",
    "XLEN",
    "XPENDING",
    "XRANGE",
    "XREAD",
    "XREVRANGE",
    "ZCARD",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGE",
];

/// Completes the refusals among the answers to a pipeline. Only those cost anything.
pub(super) async fn complete(connection: &Socket, pipeline: &Pipeline, answers: &mut [Value]) {
    for (command, answer) in pipeline.cmd_iter().zip(answers) {
        let Some(text) = refusal(answer) else { continue };
        let rules = match missing(&text, command) {
            Missing::Rules(rules) => rules,
            Missing::Keys(keys) => {
                let denied = denied_keys(connection, &keys).await;
                rules_of(command, if denied.is_empty() { &keys } else { &denied })
            }
        };
        if !rules.is_empty() {
            *answer = completed(&text, &rules, answer);
        }
    }
}

/// The rules that a completed answer names, such as `+xadd` or `~rm:{*}:log`.
pub(super) fn rules(text: &str) -> Option<&str> {
    text.rsplit_once(NEEDS).map(|(_, rules)| rules)
}

/// The server's words, where it does not let.
fn refusal(answer: &Value) -> Option<String> {
    let Value::ServerError(error) = answer else { return None };
    let text = error.details().unwrap_or_default();
    let in_script = IN_SCRIPT.iter().any(|words| text.contains(words));
    (error.code() == "NOPERM" || in_script).then(|| text.to_owned())
}

/// An answer cannot be made but from the wire.
fn completed(text: &str, rules: &[String], answer: &Value) -> Value {
    let rules = rules.join(" ");
    let line: String =
        format!("{text}: {NEEDS}{rules}").chars().filter(|sign| !sign.is_control()).collect();
    // A code of our own says more than what it came from.
    let code = match answer {
        Value::ServerError(error) if error.code() != "ERR" => error.code(),
        _ => "NOPERM",
    };
    redis::parse_redis_value(format!("-{code} {line}\r\n").as_bytes())
        .unwrap_or_else(|_| answer.clone())
}

/// What is missing, as far as the words tell.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Rules(Vec<String>),
    /// One of these keys or several.
    Keys(Vec<String>),
}

fn missing(text: &str, command: &Cmd) -> Missing {
    let named = text.split_once("run the '").and_then(|(_, rest)| rest.split_once('\''));
    if let Some((name, _)) = named {
        return Missing::Rules(vec![format!("+{name}")]);
    }
    if text.contains("can't run this command") {
        return Missing::Rules(commands_in_script(text, command));
    }
    if text.contains("channel") {
        return Missing::Rules(Vec::new());
    }
    Missing::Keys(keys_of(command))
}

/// The command in the line that the server names; where it names none, each that the script calls
/// in a way that lets it go on.
fn commands_in_script(text: &str, command: &Cmd) -> Vec<String> {
    let words = words(command);
    let Some(script) = words.get(1).and_then(|hash| script::text_of(hash)) else {
        return Vec::new();
    };
    let line = text.split_once("@user_script:").and_then(|(_, rest)| {
        rest.split(|sign: char| !sign.is_ascii_digit()).next()?.parse::<usize>().ok()
    });
    match line {
        Some(line) => called_near(script, line).into_iter().collect(),
        None => {
            let calls = script.lines().flat_map(|line| called(line, "pcall("));
            calls.collect::<BTreeSet<String>>().into_iter().collect()
        }
    }
}

/// The command of the call at a line, which may have its words on the next one, or in a table that
/// was made before.
fn called_near(script: &str, number: usize) -> Option<String> {
    let lines: Vec<&str> = script.lines().collect();
    let before = lines.get(..number)?;
    for (at, line) in before.iter().enumerate().rev().take(CALL_LINES_MAX) {
        if let Some(rule) = called(line, "call(").into_iter().next() {
            return Some(rule);
        }
        if let Some((_, rest)) = line.split_once("call(unpack(") {
            let made = format!("{} = {{", rest.split(')').next().unwrap_or_default());
            let made = before.iter().rev().find_map(|line| line.split_once(&made));
            return made.and_then(|(_, words)| rule(words));
        }
        if line.trim_end().ends_with("call(") {
            return lines.get(at + 1).and_then(|words| rule(words));
        }
    }
    None
}

/// The rules of the commands that a line of a script calls with `redis.call(` or its like.
fn called(line: &str, verb: &str) -> Vec<String> {
    let calls = line.split(verb).skip(1).filter(|call| call.starts_with('\''));
    calls.filter_map(rule).collect()
}

/// The rule of a command whose words stand in quotes.
fn rule(words: &str) -> Option<String> {
    let mut quoted = words.split('\'').skip(1).step_by(2);
    let name = quoted.next()?.to_ascii_lowercase();
    Some(match (name.as_str(), quoted.next()) {
        ("xgroup" | "xinfo", Some(sub)) => format!("+{name}|{}", sub.to_ascii_lowercase()),
        _ => format!("+{name}"),
    })
}

fn words(command: &Cmd) -> Vec<String> {
    let text = |arg: Arg<&[u8]>| match arg {
        Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    };
    command.args_iter().map(text).collect()
}

/// The keys that a command names.
fn keys_of(command: &Cmd) -> Vec<String> {
    let words = words(command);
    let at = |at: usize| words.get(at).cloned().into_iter().collect();
    match words.first().map(String::as_str) {
        Some("EVAL" | "EVALSHA") => {
            let count = words.get(2).and_then(|count| count.parse().ok()).unwrap_or(0);
            words.into_iter().skip(3).take(count).collect()
        }
        Some("XREAD" | "XREADGROUP") => {
            let found = words.iter().position(|word| word == "STREAMS");
            let rest = found.map_or(&[][..], |at| &words[at + 1..]);
            rest[..rest.len() / 2].to_vec()
        }
        Some("XGROUP" | "XINFO" | "MEMORY") => at(2),
        _ => at(1),
    }
}

/// Those of several keys that the user may not use, each asked about alone by a script that does
/// nothing. Empty where there is nothing to choose, or where it cannot be told.
async fn denied_keys(connection: &Socket, keys: &[String]) -> Vec<String> {
    if keys.len() < 2 {
        return Vec::new();
    }
    let mut pipeline = Pipeline::with_capacity(keys.len());
    for key in keys {
        pipeline.cmd("EVAL").arg("return 0").arg(1).arg(key);
    }
    let asked = connection.send_plainly(&pipeline, When::Now).await;
    let answers = asked.unwrap_or_default();
    // Who may not run scripts gets no answer about keys.
    let of_key = |text: String| !text.contains("run the '");
    let denied =
        keys.iter().zip(&answers).filter(|(_, answer)| refusal(answer).is_some_and(of_key));
    denied.map(|(key, _)| key.clone()).collect()
}

/// The patterns that hold these keys.
fn rules_of(command: &Cmd, keys: &[String]) -> Vec<String> {
    let verb = words(command).into_iter().next().unwrap_or_default();
    let sign = if READS.contains(&verb.as_str()) { "%R~" } else { "~" };
    let rules = keys.iter().map(|key| format!("{sign}{}", keys::pattern_of(key)));
    rules.collect::<BTreeSet<String>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::redis::script::{Call, SETTLE, TRIM};

    fn parsed(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("an answer")
    }

    fn told(line: &str, command: &Cmd) -> Vec<String> {
        let Some(text) = refusal(&parsed(line)) else { return Vec::new() };
        match missing(&text, command) {
            Missing::Rules(rules) => rules,
            Missing::Keys(keys) => rules_of(command, &keys),
        }
    }

    fn command(line: &str) -> Cmd {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().expect("a verb"));
        words.for_each(|word| {
            command.arg(word);
        });
        command
    }

    #[test]
    fn the_words_of_every_server_become_the_rule() {
        let add = command("XADD rm:{a:0}:log * b 1");
        for line in [
            "NOPERM this user has no permissions to run the 'xadd' command",
            "NOPERM User alice has no permissions to run the 'xadd' command",
        ] {
            assert_eq!(told(line, &add), ["+xadd"], "{line}");
        }
        for line in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "NOPERM No permissions to access a key",
        ] {
            assert_eq!(told(line, &add), ["~rm:{*}:log"], "{line}");
            let info = command("XINFO STREAM rm:{a:0}:retry:mail");
            assert_eq!(told(line, &info), ["%R~rm:{*}:retry:*"], "{line}");
            let read = command("XREAD COUNT 1 STREAMS rm:{a:0}:log rm:{b:1}:log 0 0");
            assert_eq!(told(line, &read), ["%R~rm:{*}:log"], "{line}");
        }
        let line = "ERR ACL failure in script: User u has no permissions to run the 'xinfo|groups' \
                    command script: on @user_script:1.";
        assert_eq!(told(line, &add), ["+xinfo|groups"]);
        assert!(told("ERR unknown command 'X'", &add).is_empty());
    }

    #[test]
    fn of_a_script_on_the_oldest_server_the_line_tells_the_command() {
        let call = Call::new(&TRIM, vec!["rm:{a:0}:log".to_owned()]).by_hash();
        let text = script::text_of(&words(&call)[1]).expect("the script");
        let said = "ERR The user executing the script can't run this command or subcommand";
        let at = text.lines().position(|line| line.contains("redis.call('XLEN'")).expect("a call");
        let line = format!("{said} script: 897afd, on @user_script:{}.", at + 1);
        assert_eq!(told(&line, &call), ["+xlen"]);
        let settle = Call::new(&SETTLE, vec!["rm:{a:0}:log".to_owned()]).by_hash();
        let text = script::text_of(&words(&settle)[1]).expect("the script");
        for (made, expected) in [("claim", "+xclaim"), ("letter", "+xadd")] {
            let call = format!("redis.call(unpack({made}))");
            let at = text.lines().position(|line| line.contains(&call)).expect("a call");
            assert_eq!(called_near(text, at + 1).as_deref(), Some(expected));
        }
        let rules = told(said, &call);
        assert!(rules.iter().all(|rule| rule.starts_with('+')), "{rules:?}");
    }

    #[test]
    fn an_answer_that_was_completed_names_the_rules() {
        let whole = completed("No permissions", &["+a".to_owned(), "~b".to_owned()], &Value::Nil);
        let Value::ServerError(error) = whole else { panic!("{whole:?}") };
        assert_eq!(error.code(), "NOPERM");
        let text = error.details().expect("text");
        assert_eq!(text, "No permissions: this user needs +a ~b");
        assert_eq!(rules(text), Some("+a ~b"));
    }
}
