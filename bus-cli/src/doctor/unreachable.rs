//! A store that cannot be looked at: what was tried, and why it may be.

use rumormill::Error;
use serde::Serialize;

use crate::address::Address;
use crate::args::Format;
use crate::escape::escape;
use crate::failure::{Exit, Failure, wrapped};
use crate::table::{Screen, json_lines, write};

/// Why it may be, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Reason {
    why: &'static str,
    mend: &'static str,
}

#[derive(Serialize)]
struct Unreachable {
    address: String,
    error: String,
    tried: &'static str,
    reasons: Vec<Reason>,
}

const TRIED: &str =
    "a connection, the login, its role, its version and its settings, for up to five seconds";

const fn reason(why: &'static str, mend: &'static str) -> Reason {
    Reason { why, mend }
}

/// What an error says, and what may be behind it. The first that fits counts.
const KNOWN: &[(&[&str], &[Reason])] = &[
    (
        &["NOAUTH", "WRONGPASS"],
        &[
            reason(
                "the address holds no password, or not the one that is right",
                "redis-cli -u redis://USER:PASSWORD@HOST:PORT PING",
            ),
            reason("the user is switched off or was removed", "redis-cli ACL LIST, as an admin"),
        ],
    ),
    (
        &["NOPERM"],
        &[reason(
            "the user lacks a right without which nothing can be done",
            "redis-cli ACL SETUSER USER +ping +info +client|id, as an admin",
        )],
    ),
    (
        &["LOADING"],
        &[reason(
            "the server was started and still reads its files; some gigabytes take a minute",
            "redis-cli INFO persistence | grep loading_eta_seconds; then try again",
        )],
    ),
    (
        &["max number of clients", "ended before the first answer"],
        &[
            reason(
                "the server has as many clients as it takes (maxclients)",
                "ss -tn | grep :6379 on the server shows whose they are; end some, or restart it \
                 with a higher maxclients",
            ),
            reason("the port wants TLS", "write rediss:// in the address"),
        ],
    ),
    (
        &["BUSY"],
        &[reason(
            "a script runs and does not end",
            "redis-cli SCRIPT KILL; where it has written, only redis-cli SHUTDOWN NOSAVE helps",
        )],
    ),
    (
        &["MISCONF"],
        &[reason("the server cannot write its files", "df -h on the server; see its log")],
    ),
    (
        &["is a replica of", "MASTERDOWN", "READONLY"],
        &[
            reason(
                "a replica answers at this address, and takes no writes",
                "connect to the primary that it names, or write redis+sentinel://",
            ),
            reason(
                "a failover was, and this is the old primary",
                "redis-cli INFO replication on each server shows who is the primary now",
            ),
        ],
    ),
    (
        &["part of a cluster"],
        &[reason("clusters are not supported", "connect to a server that is none")],
    ),
    (
        &["the oldest that will do"],
        &[reason("the server is too old", "upgrade it: 7.0 reads the files of older ones")],
    ),
    (
        &["does not speak the Redis protocol"],
        &[
            reason("another program answers at this port", "ss -ltnp on the server shows which"),
            reason("the port wants TLS", "write rediss:// in the address"),
        ],
    ),
    (
        &["no answer in time", "timed out"],
        &[
            reason(
                "the server is busy with one long command, or stopped (SIGSTOP, a debugger)",
                "redis-cli --latency; redis-cli SLOWLOG GET 10 once it answers",
            ),
            reason(
                "a firewall drops what is sent",
                "nc -vz HOST PORT from here, and from another machine",
            ),
            reason("the machine swaps, or its disk hangs", "vmstat 1 on the server"),
        ],
    ),
    (
        &["certificate", "TLS", "tls", "InvalidCert"],
        &[reason(
            "the server's certificate is not trusted here, or is for another name",
            "openssl s_client -connect HOST:PORT -showcerts",
        )],
    ),
    (
        &["lookup", "not known", "resolve"],
        &[reason("the name of the host is not known here", "getent hosts HOST")],
    ),
    (
        &["No such file", "Permission denied"],
        &[reason(
            "the socket is not there, or not for this user",
            "ls -l PATH; see unixsocket and unixsocketperm in the server's configuration",
        )],
    ),
];

/// Where nobody answers at all.
const DOWN: &[Reason] = &[
    reason("the server does not run", "systemctl status redis-server"),
    reason(
        "it cannot start: an append-only file that is damaged stops it (\"Bad file format\" in \
         its log)",
        "keep a copy, then: redis-check-aof --fix appendonlydir/appendonly.aof.manifest",
    ),
    reason(
        "it listens at another address or port",
        "redis-cli CONFIG GET bind port, on the server's machine; and --url or BUS_URL here",
    ),
];

fn reasons(error: &str) -> &'static [Reason] {
    let fits = |words: &&[&str]| words.iter().any(|word| error.contains(word));
    KNOWN.iter().find(|(words, _)| fits(words)).map_or(DOWN, |(_, reasons)| reasons)
}

/// Says what is known of a store that cannot be looked at. An address that is none is a mistake
/// of who typed it.
pub(super) fn tell(error: &Error, address: &Address, format: Format) -> Result<Exit, Failure> {
    use rumormill::ErrorKind;
    if error.kind() == ErrorKind::Invalid {
        return Err(Failure::refused("--url", error));
    }
    if error.kind() == ErrorKind::Unsupported && !is_of_server(error) {
        return Err(Failure::library("cannot look at the store", error));
    }
    let text = address.redact(&error.to_string());
    let told = Unreachable {
        address: address.to_string(),
        reasons: reasons(&text).to_vec(),
        error: text,
        tried: TRIED,
    };
    match format {
        Format::Pretty => write(&render(&told, Screen::stdout()))?,
        Format::Json => write(&json_lines(&[&told])?)?,
        // There are no findings to name; what happened goes where errors go.
        Format::Raw => {
            eprintln!("error: {}", escape(&told.error));
            Exit::Unreachable
        }
    };
    Ok(Exit::Unreachable)
}

/// What the server is, not what this driver is.
fn is_of_server(error: &Error) -> bool {
    reasons(&error.to_string()) != DOWN
}

fn render(told: &Unreachable, screen: Screen) -> String {
    let part = |head: &str, text: &str| wrapped(head, &escape(text), screen.columns);
    let mut text = part("", &told.error);
    text += &part("  tried: ", told.tried);
    for reason in &told.reasons {
        text += &part("\n  it may be that ", reason.why);
        text += &format!("  do: {}\n", reason.mend);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_reasons() {
        for (error, mend) in [
            ("NOAUTH Authentication required.", "USER:PASSWORD"),
            ("LOADING Redis is loading the dataset in memory", "loading_eta_seconds"),
            ("ERR max number of clients reached", "maxclients"),
            ("BUSY Redis is busy running a script.", "SCRIPT KILL"),
            ("it is a replica of 10.0.0.1:6379", "redis+sentinel://"),
            ("no answer in time", "SLOWLOG"),
            ("failed to lookup address information: Name or service not known", "getent"),
            ("Connection refused (os error 111)", "redis-check-aof"),
        ] {
            let mends: Vec<&str> = reasons(error).iter().map(|reason| reason.mend).collect();
            assert!(mends.iter().any(|known| known.contains(mend)), "{error}: {mends:?}");
        }
    }
}
