//! What this user may do: every command that the bus sends, tried without doing it.
//!
//! `ACL DRYRUN` answers as the command itself would be answered, for the keys that it names. What
//! a script calls counts like what is sent: a script has the rights of who runs it.

use redis::{Pipeline, Value};

use super::{Untold, named};
use crate::delivery::Partition;
use crate::driver::GroupName;
use crate::driver::redis::Shared;
use crate::driver::redis::fault::accept;
use crate::driver::redis::keys::Keys;
use crate::driver::redis::reply;
use crate::error::Error;

/// A part that a process plays on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Publisher,
    Consumer,
    Operator,
}

pub(super) const ROLES: [Role; 3] = [Role::Publisher, Role::Consumer, Role::Operator];

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publisher => "a publisher",
            Self::Consumer => "a consumer",
            Self::Operator => "an operator",
        }
    }

    /// What nobody has who is not to play it.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Publisher => "XADD @log * f v",
            Self::Consumer => "XREADGROUP GROUP g c STREAMS @log >",
            Self::Operator => "MEMORY USAGE @log",
        }
    }

    /// The commands, besides those of the roles before it. `@name` stands for a key.
    fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Publisher => PUBLISHER,
            Self::Consumer => CONSUMER,
            Self::Operator => OPERATOR,
        }
    }
}

const PUBLISHER: &[&str] = &[
    "XADD @log * f v",
    "PING",
    "INFO server",
    "CLIENT ID",
    "CLIENT KILL ID 1",
    "TIME",
    "HSETNX @topics t j",
    "HGET @topics t",
    "HGETALL @topics",
    "EVALSHA 0 1 @delayed",
    "EVAL 0 1 @delayed",
    "ZADD @delayed 1 m",
    "ZRANGE @delayed 0 0",
    "ZRANGEBYSCORE @delayed 0 1",
    "ZREM @delayed m",
    "TYPE @log",
    "XRANGE @log - +",
    "XREVRANGE @log + -",
    "XINFO STREAM @log",
    "XINFO GROUPS @log",
    "GET @seen",
    "SET @seen v",
    "CONFIG GET appendfsync",
];

const CONSUMER: &[&str] = &[
    "XREADGROUP GROUP g c STREAMS @log >",
    "XREADGROUP GROUP g c STREAMS @retry >",
    "XACK @log g 1-1",
    "XACK @retry g 1-1",
    "XCLAIM @log g c 0 1-1",
    "XAUTOCLAIM @log g c 0 0",
    "XPENDING @log g",
    "XGROUP CREATE @log g 0",
    "XGROUP SETID @log g 0",
    "XGROUP DELCONSUMER @log g c",
    "XINFO CONSUMERS @log g",
    "XADD @retry * f v",
    "XADD @dead * f v",
    "XDEL @retry 1-1",
    "XLEN @dead",
    "XTRIM @log MINID 0",
    "ZADD @due 1 m",
    "ZADD @parked 1 m",
    "ZADD @handled 1 m",
    "ZMSCORE @handled m",
    "PEXPIRE @handled 1",
    "ZADD @consumers 1 m",
    "ZREM @consumers m",
    "ZSCORE @consumers m",
    "ZRANGEBYSCORE @consumers 0 1",
    "HSET @progress f v",
    "HGET @parking f",
    "HDEL @running f",
    "HMGET @checkpoint f",
    "HGETALL @routes",
    "HINCRBY @routes f 1",
    "HLEN @routes",
    "HVALS @routes",
    "HINCRBY @dropped g 1",
    "EXISTS @log",
    "DEL @checkpoint",
    "PTTL @trim",
    "CLIENT UNBLOCK 1",
];

const OPERATOR: &[&str] = &[
    "MEMORY USAGE @log",
    "XREAD STREAMS @log 0",
    "XDEL @dead 1-1",
    "ZCARD @due",
    "ZREVRANGE @consumers 0 1",
    "HSET @topics t j",
];

/// What a bus never needs, and what much harm is done with.
const EXCESS: [&str; 6] = [
    "FLUSHALL",
    "SHUTDOWN",
    "CONFIG SET maxmemory 0",
    "DEBUG SLEEP 0",
    "MODULE LOAD m",
    "ACL SETUSER u",
];

/// What may be done, and what may not.
pub(super) struct Rights {
    /// The user that was asked about.
    pub(super) user: String,
    missing: Vec<Missing>,
    /// Commands beyond what a bus needs that may be sent.
    pub(super) excess: Vec<String>,
    /// What the keys of the bus begin with.
    keys: String,
}

struct Missing {
    role: Role,
    command: &'static str,
    /// The rule that would allow it.
    rule: String,
}

impl Rights {
    /// The rules that a role lacks, those of the roles before it among them.
    pub(super) fn missing(&self, role: Role) -> Vec<String> {
        let counts = ROLES.iter().take_while(|other| **other != role).chain([&role]);
        let roles: Vec<Role> = counts.copied().collect();
        let mut rules: Vec<String> = Vec::new();
        for missing in self.missing.iter().filter(|missing| roles.contains(&missing.role)) {
            if !rules.contains(&missing.rule) {
                rules.push(missing.rule.clone());
            }
        }
        rules
    }

    /// Whether the user seems to be meant for a role.
    pub(super) fn is_for(&self, role: Role) -> bool {
        let mark = role.mark();
        !self.missing.iter().any(|missing| missing.role == role && missing.command == mark)
    }

    /// Which roles the user has all rights for.
    fn whole(&self) -> Vec<String> {
        let whole = ROLES.iter().filter(|role| self.missing(**role).is_empty());
        whole.map(|role| role.name().to_owned()).collect()
    }

    pub(super) fn summary(&self, user: &str) -> String {
        match self.whole() {
            whole if whole.is_empty() => format!("user {user} has all rights for no role"),
            whole => format!("user {user} has all rights of {}", named(&whole)),
        }
    }

    /// The pattern of all keys of the bus.
    pub(super) fn keys(&self) -> &str {
        &self.keys
    }
}

/// Tries every command, as the user that this connection is.
pub(super) async fn ask(shared: &Shared, user: &str) -> Result<Result<Rights, Untold>, Error> {
    if user.is_empty() {
        let why = "CLIENT INFO does not tell the user: it takes `+client|info`";
        return Ok(Err(Untold(why.to_owned())));
    }
    let keys = Names::of(shared).await;
    let all = ROLES.iter().flat_map(|role| role.commands().iter().map(|line| (*role, *line)));
    let all: Vec<(Role, &'static str)> = all.collect();
    let mut pipeline = Pipeline::new();
    for line in all.iter().map(|(_, line)| *line).chain(EXCESS) {
        let dry_run = pipeline.cmd("ACL").arg("DRYRUN").arg(user);
        for word in line.split(' ') {
            dry_run.arg(keys.word(word));
        }
    }
    let answers = shared.commands.ask("try what the user may do", &pipeline).await?;
    let mut excess = Vec::new();
    let mut missing = Vec::new();
    for (at, answer) in answers.into_iter().enumerate() {
        let may = match judge(answer, &keys.pattern) {
            Ok(may) => may,
            Err(why) => return Ok(Err(why)),
        };
        match (all.get(at), may) {
            (Some(&(role, command)), Err(rule)) => missing.push(Missing { role, command, rule }),
            (None, Ok(())) => excess.push(words(EXCESS[at - all.len()])),
            _ => {}
        }
    }
    let (user, keys) = (user.to_owned(), keys.pattern);
    Ok(Ok(Rights { user, missing, excess, keys }))
}

/// A command without its arguments.
fn words(line: &str) -> String {
    let words = line.split(' ').take_while(|word| word.chars().all(|sign| sign.is_uppercase()));
    words.collect::<Vec<_>>().join(" ")
}

/// May, or the rule that is missing; or why nobody knows.
fn judge(answer: Value, pattern: &str) -> Result<Result<(), String>, Untold> {
    let said = match accept(answer).and_then(reply::text) {
        Ok(said) => said,
        Err(fault) if fault.is_not_allowed() => {
            let text = format!("{fault}: it takes `+acl|dryrun`, or ask as another user");
            return Err(Untold(text));
        }
        // A command that the server does not know is the matter of another check.
        Err(_) => return Ok(Ok(())),
    };
    if said == "OK" {
        return Ok(Ok(()));
    }
    let command = said.split('\'').nth(1).unwrap_or_default();
    Ok(Err(if said.contains(" key") { format!("~{pattern}") } else { format!("+{command}") }))
}

/// The keys that are tried: those of a topic that there is, else of one that might be.
struct Names {
    keys: Keys,
    partition: Partition,
    group: GroupName,
    pattern: String,
}

impl Names {
    async fn of(shared: &Shared) -> Self {
        let known = shared.load_topics().await.unwrap_or_default().into_iter().next();
        let name = known.map_or_else(|| "doctor".to_owned(), |shape| shape.topic.to_string());
        let partition = format!("{name}:0").parse().expect("a topic has a partition 0");
        let group = GroupName::new("doctor").expect("it is a name");
        let keys = shared.keys.clone();
        let pattern = keys.pattern();
        Self { keys, partition, group, pattern }
    }

    fn word(&self, word: &str) -> String {
        let Some(name) = word.strip_prefix('@') else { return word.to_owned() };
        let (keys, partition) = (&self.keys, &self.partition);
        let of_group = keys.group(partition, &self.group);
        match name {
            "log" => of_group.log,
            "retry" => of_group.retry,
            "due" => of_group.due,
            "dead" => of_group.dead,
            "parking" => of_group.parking,
            "parked" => of_group.parked,
            "handled" => of_group.handled,
            "progress" => of_group.progress,
            "checkpoint" => of_group.checkpoint,
            "running" => of_group.running,
            "delayed" => keys.delayed(partition),
            "trim" => keys.trim(partition),
            "dropped" => keys.dropped(partition),
            "seen" => keys.seen(partition, [0; 16].into()),
            "topics" => keys.topics(),
            "routes" => keys.routes(&self.group),
            _ => keys.consumers(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line calls: its first word, and the second where the command has subcommands.
    fn command(line: &str) -> String {
        let mut words = line.split(' ');
        let first = words.next().unwrap_or_default();
        match first {
            "XGROUP" | "XINFO" => format!("{first} {}", words.next().unwrap_or_default()),
            _ => first.to_owned(),
        }
    }

    #[test]
    fn what_the_scripts_call_is_tried() {
        let tried: Vec<String> =
            ROLES.iter().flat_map(|role| role.commands()).map(|line| command(line)).collect();
        let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/driver/redis/scripts");
        let mut seen = 0;
        for file in std::fs::read_dir(scripts).expect("a folder") {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            for call in text.split("redis.call('").chain(text.split("redis.pcall('")).skip(1) {
                let line: String = call.chars().take(40).collect();
                let line = line.replace("', '", " ").replace('\'', " ");
                let name = command(&line);
                if name.chars().all(|sign| sign.is_ascii_uppercase() || sign == ' ') {
                    seen += 1;
                    assert!(tried.contains(&name), "{name} is called by a script and not tried");
                }
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn a_refusal_names_the_rule() {
        let judged = |text: &str| {
            let value = Value::BulkString(text.as_bytes().to_vec());
            judge(value, "rm:*").ok().expect("it is known")
        };
        assert_eq!(judge(Value::Okay, "rm:*").ok(), Some(Ok(())));
        let text = "This user has no permissions to run the 'xgroup|setid' command";
        assert_eq!(judged(text), Err("+xgroup|setid".to_owned()));
        let text = "This user has no permissions to access the 'rm:{a:0}' key";
        assert_eq!(judged(text), Err("~rm:*".to_owned()));
        assert_eq!(words("CONFIG SET maxmemory 0"), "CONFIG SET");
    }
}
