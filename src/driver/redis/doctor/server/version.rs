//! What the server's version is known for, and what it can do.

use super::{Evidence, Looked, Untold, finding, named, nothing, one, verdict};
use crate::driver::admin::{Check, Severity};
use crate::driver::redis::doctor::Rule;

/// Commands that the driver cannot do without, then those that it uses where they are.
pub(super) const ASKED: [&str; 17] = [
    "XADD",
    "XREADGROUP",
    "XACK",
    "XCLAIM",
    "XAUTOCLAIM",
    "XPENDING",
    "XGROUP",
    "XINFO",
    "XTRIM",
    "XRANGE",
    "EVALSHA",
    "EVAL",
    "INFO",
    "CONFIG",
    "WAIT",
    "WAITAOF",
    "XACKDEL",
];
/// How many of them it cannot do without.
const NEEDED: usize = 12;

pub(super) const RULES: &[Rule<Evidence>] = &[
    Rule {
        check: Check {
            id: "version.holes",
            about: "known holes of this version that matter here",
            meaning: "whoever may send commands, or in some cases whoever can connect, may end \
                      the server or run code on its machine; or an answer is not to be relied on",
            cost: "CVE-2025-49844 alone, in every Redis of thirteen years: a script of any user \
                   that may run one takes the machine. The bus needs scripts, so they cannot be \
                   forbidden",
        },
        look: |evidence| verdict(holes(evidence)),
    },
    Rule {
        check: Check {
            id: "version.unmaintained",
            about: "whether this line of versions still gets fixes",
            meaning: "what is found from now on stays open",
            cost: "the holes of October 2025 were closed in 7.2, 7.4, 8.0 and 8.2, and not in 7.0, \
                   whose last version is of January 2024",
        },
        look: |evidence| verdict(unmaintained(evidence)),
    },
    Rule {
        check: Check {
            id: "version.commands",
            about: "whether the server has the commands that the bus needs, and those that help it",
            meaning: "a command that was renamed or taken away makes what needs it fail; without \
                      XACKDEL an acknowledgement in a retry stream takes two commands, without \
                      WAITAOF nobody can wait for a sync",
            cost: "wolverine #4058: never acknowledged before Redis 8.2; watermill #488: failed on \
                   a server that lacked an option",
        },
        look: |evidence| verdict(commands(evidence)),
    },
];

/// Who makes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Maker {
    Redis,
    Valkey,
}

type Version = [u32; 3];

/// Something that is wrong with versions from `since` on.
struct Hole {
    id: &'static str,
    what: &'static str,
    maker: Maker,
    since: Version,
    /// The first version of each line that has it no more. A line that is older than the last of
    /// them, and not among them, never got the fix.
    fixed: &'static [Version],
    /// Lines of which it is not known.
    unknown: &'static [[u32; 2]],
}

/// From the release notes and advisories of the makers. Of a hole whose fix is not known for a
/// line nothing is said there.
const HOLES: [Hole; 11] = [
    Hole {
        id: "CVE-2022-35951",
        what: "XAUTOCLAIM with a crafted COUNT overflows the heap",
        maker: Maker::Redis,
        since: [7, 0, 0],
        fixed: &[[7, 0, 5]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2022-24834",
        what: "a Lua script overflows the heap (cjson, cmsgpack)",
        maker: Maker::Redis,
        since: [7, 0, 0],
        fixed: &[[7, 0, 12]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2024-31449",
        what: "a Lua script overflows the stack (bit library)",
        maker: Maker::Redis,
        since: [7, 0, 0],
        fixed: &[[7, 2, 6], [7, 4, 1]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2024-46981",
        what: "a Lua script runs code on the machine (garbage collector)",
        maker: Maker::Redis,
        since: [7, 0, 0],
        fixed: &[[7, 2, 7], [7, 4, 2]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2025-21605",
        what: "a client without a login makes the server's memory grow without end",
        maker: Maker::Redis,
        since: [7, 0, 0],
        fixed: &[[7, 2, 8], [7, 4, 3]],
        unknown: &[],
    },
    Hole {
        id: "WAITAOF",
        what: "WAITAOF answers before the sync is done: what it confirms may be lost",
        maker: Maker::Redis,
        since: [7, 2, 0],
        fixed: &[[7, 2, 8], [7, 4, 3]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2025-49844",
        what: "a Lua script runs code on the machine (use after free)",
        maker: Maker::Redis,
        since: [7, 0, 0],
        fixed: &[[7, 2, 11], [7, 4, 6], [8, 0, 4], [8, 2, 2]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2025-62507",
        what: "XACKDEL overflows the stack",
        maker: Maker::Redis,
        since: [8, 2, 0],
        fixed: &[[8, 2, 3]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2026-23479",
        what: "a blocked client whose memory is reclaimed is used after it is freed",
        maker: Maker::Redis,
        since: [7, 4, 0],
        fixed: &[[7, 4, 9], [8, 2, 6], [8, 4, 3], [8, 6, 3]],
        unknown: &[[8, 0]],
    },
    Hole {
        id: "CVE-2025-49844",
        what: "a Lua script runs code on the machine (use after free)",
        maker: Maker::Valkey,
        since: [7, 2, 0],
        fixed: &[[7, 2, 11], [8, 0, 6], [8, 1, 4]],
        unknown: &[],
    },
    Hole {
        id: "CVE-2026-27623",
        what: "a client without a login ends the server with an empty request",
        maker: Maker::Valkey,
        since: [9, 0, 0],
        fixed: &[[9, 0, 3]],
        unknown: &[],
    },
];

/// Lines without fixes: the maker, the line, its last version and when that was.
const UNMAINTAINED: [(Maker, [u32; 2], &str); 1] =
    [(Maker::Redis, [7, 0], "7.0.15 of January 2024")];

impl Hole {
    fn is_in(&self, maker: Maker, version: Version) -> bool {
        let line = |version: Version| [version[0], version[1]];
        let is_of_line = |fixed: &&Version| line(**fixed) == line(version);
        match self.fixed.iter().find(is_of_line) {
            _ if maker != self.maker || version < self.since => false,
            _ if self.unknown.contains(&line(version)) => false,
            Some(fixed) => version < *fixed,
            None => self.fixed.last().is_some_and(|last| version < *last),
        }
    }
}

/// What it is called, and its version as it says itself.
pub(super) fn of(evidence: &Evidence) -> (&'static str, String) {
    let valkey = evidence.maybe("valkey_version");
    let name = if valkey.is_some() { "Valkey" } else { "Redis" };
    (name, valkey.unwrap_or(&evidence.facts.version).to_owned())
}

fn parsed(evidence: &Evidence) -> Result<(Maker, Version), Untold> {
    let (name, text) = of(evidence);
    let maker = if name == "Valkey" { Maker::Valkey } else { Maker::Redis };
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[major, minor, patch]) => Ok((maker, [major, minor, patch])),
        _ => Err(Untold(format!("the version is {text:?}, of which nothing is known"))),
    }
}

fn holes(evidence: &Evidence) -> Looked {
    let (maker, version) = parsed(evidence)?;
    let (name, text) = of(evidence);
    let found = HOLES.iter().filter(|hole| hole.is_in(maker, version)).map(|hole| {
        let fixed = hole.fixed.iter().map(|[a, b, c]| format!("{a}.{b}.{c}")).collect::<Vec<_>>();
        let said = format!("{name} {text} has it: {}", hole.what);
        let mend = format!("upgrade to {name} {} or later", fixed.join(", "));
        finding(Severity::Risk, hole.id, said, mend)
    });
    Ok(found.collect())
}

fn unmaintained(evidence: &Evidence) -> Looked {
    let (maker, [major, minor, _]) = parsed(evidence)?;
    let lines = UNMAINTAINED.iter();
    let mut ended = lines.filter(|(of, line, _)| *of == maker && *line == [major, minor]);
    let Some((_, _, last)) = ended.next() else { return nothing() };
    let text = format!("the last version of this line is {last}");
    let mend = "upgrade to a line that is maintained; its files are read by newer versions";
    one(Severity::Note, format!("{major}.{minor}"), text, mend)
}

fn commands(evidence: &Evidence) -> Looked {
    let known = evidence.commands.as_ref().map_err(Clone::clone)?;
    let missing = |from: usize, to: usize| {
        let part = known.iter().skip(from).take(to - from);
        part.filter(|(_, is_there)| !is_there).map(|(name, _)| (*name).to_owned())
    };
    let needed: Vec<String> = missing(0, NEEDED).collect();
    let helpful: Vec<String> = missing(NEEDED, ASKED.len()).collect();
    let mut found = Vec::new();
    if !needed.is_empty() {
        let text = format!("the server does not know {}", named(&needed));
        let mend = "remove rename-command from the server's configuration; restrict by ACL instead";
        found.push(finding(Severity::Fault, needed[0].clone(), text, mend));
    }
    if !helpful.is_empty() {
        let text = format!("the server does not know {}: the bus does without", named(&helpful));
        let mend = "WAITAOF comes with Redis 7.2, XACKDEL with Redis 8.2; nothing has to be done";
        found.push(finding(Severity::Note, helpful[0].clone(), text, mend));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(maker: Maker, version: Version) -> Vec<&'static str> {
        HOLES.iter().filter(|hole| hole.is_in(maker, version)).map(|hole| hole.id).collect()
    }

    #[test]
    fn a_hole_is_closed_line_by_line() {
        let lua = |version| ids(Maker::Redis, version).contains(&"CVE-2025-49844");
        for open in [[7, 0, 15], [7, 2, 10], [7, 4, 5], [8, 0, 3], [8, 2, 1]] {
            assert!(lua(open), "{open:?}");
        }
        for closed in [[7, 2, 11], [7, 4, 6], [8, 0, 4], [8, 2, 2], [8, 4, 0], [9, 0, 0]] {
            assert!(!lua(closed), "{closed:?}");
        }
        assert!(ids(Maker::Redis, [7, 0, 4]).contains(&"CVE-2022-35951"));
        assert!(!ids(Maker::Redis, [7, 0, 15]).contains(&"CVE-2022-35951"));
        assert!(!ids(Maker::Redis, [8, 0, 0]).contains(&"CVE-2025-62507"), "it had no XACKDEL");
        assert_eq!(ids(Maker::Redis, [8, 6, 3]), [""; 0]);
    }

    #[test]
    fn the_makers_count_for_themselves() {
        assert_eq!(ids(Maker::Valkey, [8, 1, 4]), [""; 0]);
        assert_eq!(ids(Maker::Valkey, [8, 1, 3]), ["CVE-2025-49844"]);
        assert_eq!(ids(Maker::Valkey, [9, 0, 2]), ["CVE-2026-27623"]);
        assert_eq!(ids(Maker::Valkey, [9, 0, 3]), [""; 0]);
    }
}
