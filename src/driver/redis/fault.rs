//! What can go wrong with a command, and the words for it.

use std::borrow::Cow;
use std::fmt;

use redis::{RedisError, ServerError, Value};

use super::denied;
use crate::error::{Error, ErrorKind};

/// Refusals that end by themselves, most of them within seconds.
const PASSING: [&str; 8] = [
    "LOADING",
    "BUSY",
    "TRYAGAIN",
    "MASTERDOWN",
    "UNBLOCKED",
    "NOREPLICAS",
    "CLUSTERDOWN",
    "MISCONF",
];
/// The text of one that has no code of its own.
const TOO_MANY_CLIENTS: &str = "max number of clients reached";

/// Why a command has no answer that helps.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server said no: it changed nothing, scripts apart.
    Refused {
        /// The first word of its answer, such as `OOM`.
        code: String,
        /// The rest of it.
        text: String,
    },
    /// The connection was lost, or never made.
    Lost(String),
    /// The connection was made, and ended before the first answer.
    Shut(String),
    /// There is no primary now: what answers is a replica, or the sentinels know none that will
    /// do.
    NoPrimary(String),
    /// No answer in time.
    Silent,
    /// An answer that is not of the kind that was asked for.
    Odd(String),
}

impl Fault {
    /// The connection is of no more use. That of a server that is no primary any more is none
    /// either: the next one is made to whoever is.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Shut(_) | Self::NoPrimary(_) | Self::Silent | Self::Odd(_) => {
                true
            }
            // A blocked read is ended like this when its server becomes a replica.
            Self::Refused { code, text } => {
                code == "READONLY" || code == "UNBLOCKED" && text.contains("instance state changed")
            }
        }
    }

    /// The code of a refusal, else empty.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// The server, or the sentinels, will be of another mind soon.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            // A server with too many clients shuts more of them out, and a proxy before a server
            // that is away may as well.
            Self::Shut(_) | Self::NoPrimary(_) => true,
            Self::Lost(_) | Self::Silent | Self::Odd(_) => false,
            Self::Refused { code, text } => {
                PASSING.contains(&code.as_str()) || text.contains(TOO_MANY_CLIENTS)
            }
        }
    }

    /// The server is in no state to do what was asked for, whatever that was.
    fn is_of_state(&self) -> bool {
        self.is_passing() || matches!(self.code(), "OOM" | "READONLY")
    }

    /// The server does not know who we are.
    pub(super) fn is_of_login(&self) -> bool {
        matches!(self.code(), "NOAUTH" | "WRONGPASS")
    }

    /// The server does not let this user ask, or nobody.
    pub(super) fn is_not_allowed(&self) -> bool {
        match self {
            Self::Refused { code, text } => {
                code == "NOPERM" || code == "ERR" && text.starts_with("unknown command")
            }
            _ => false,
        }
    }

    /// What a refused login is, whatever its code: a server without a password refuses one with
    /// `ERR`.
    pub(super) fn of_login(self) -> Self {
        match self {
            Self::Refused { code, text } if code == "ERR" && text.starts_with("AUTH") => {
                Self::Refused { code: "WRONGPASS".to_owned(), text }
            }
            other => other,
        }
    }

    /// The error for users: what was attempted, where, why it failed and what to try.
    pub(super) fn error(&self, what: impl fmt::Display, address: &str) -> Error {
        let text = format!("cannot {what} on {address}: {self}");
        let error = Error::new(self.kind(), text);
        let error = if self.is_of_state() { error.passing() } else { error };
        match self.help() {
            Some(help) => error.with_help(help),
            None => error,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost(_) | Self::Shut(_) | Self::NoPrimary(_) => ErrorKind::Unreachable,
            Self::Silent => ErrorKind::Timeout,
            Self::Odd(_) => ErrorKind::Unsupported,
            Self::Refused { code, .. } => match code.as_str() {
                "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorKind::Denied,
                _ => ErrorKind::Server,
            },
        }
    }

    fn help(&self) -> Option<Cow<'static, str>> {
        if let Self::Refused { code, text } = self
            && (code == "NOPERM" || denied::rules(text).is_some())
        {
            let rules = denied::rules(text).unwrap_or("this command and key");
            let text = format!(
                "add {rules} to the rules of this user with ACL SETUSER; those of \
                                each role are in the files acl/*.acl"
            );
            return Some(text.into());
        }
        self.known_help().map(Cow::Borrowed)
    }

    fn known_help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Shut(_) => "see whether the server has too many clients (maxclients)",
            Self::Lost(_) => "check that the server runs and that the address is right",
            Self::NoPrimary(_) => {
                "connect to the primary, or let sentinels name it: redis+sentinel://"
            }
            Self::Silent => "the server is stopped, overloaded or no Redis; try PING by hand",
            Self::Odd(_) => "check that it is a Redis of version 7.0 or later that answers there",
            Self::Refused { code, .. } => match code.as_str() {
                "NOAUTH" => "the server wants a password: put user and password into the url",
                "WRONGPASS" => "check the user and the password in the url",
                "WRONGTYPE" => "another program uses this key: choose another namespace",
                "OOM" => "the server is full: raise maxmemory, or let the groups catch up",
                "READONLY" => "the address is that of a replica: connect to its primary",
                "MISCONF" => "the server cannot write its files: see its log",
                "NOREPLICAS" => "the server waits for its replicas: see min-replicas-to-write",
                "CLUSTERDOWN" => "connect to a single server: clusters are not supported",
                "LOADING" => "the server is still reading its data: wait and try again",
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, text } if text.is_empty() => f.write_str(code),
            Self::Refused { code, text } => write!(f, "{code} {text}"),
            Self::Lost(text) | Self::NoPrimary(text) | Self::Odd(text) => f.write_str(text),
            Self::Shut(text) => write!(f, "the connection ended before the first answer: {text}"),
            Self::Silent => f.write_str("no answer in time"),
        }
    }
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        use redis::ErrorKind as Kind;
        if let Some(code) = error.code() {
            let text = error.detail().unwrap_or_default().to_owned();
            return Self::Refused { code: code.to_owned(), text };
        }
        match error.kind() {
            _ if error.is_timeout() => Self::Silent,
            Kind::Parse | Kind::UnexpectedReturnType | Kind::RESP3NotSupported => {
                Self::Odd(format!("what answers does not speak the Redis protocol: {error}"))
            }
            Kind::AuthenticationFailed => {
                // The crate folds the server's words into its own kind.
                let text = error.detail().unwrap_or("authentication failed").to_owned();
                Self::Refused { code: "WRONGPASS".to_owned(), text }
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<ServerError> for Fault {
    fn from(error: ServerError) -> Self {
        let text = error.details().unwrap_or_default().to_owned();
        Self::Refused { code: error.code().to_owned(), text }
    }
}

/// The value, or the refusal that stands in its place.
pub(super) fn accept(value: Value) -> Result<Value, Fault> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Error {
        let (code, text) = (code.to_owned(), String::new());
        Fault::Refused { code, text }.error("append", "an address")
    }

    #[test]
    fn what_the_servers_state_refuses_is_told_from_what_is_wrong_with_the_call() {
        for code in ["OOM", "MISCONF", "READONLY", "NOREPLICAS", "LOADING", "CLUSTERDOWN"] {
            let error = refused(code);
            assert!(error.is_passing() && error.copy().is_passing(), "{error:?}");
        }
        for code in ["WRONGTYPE", "ERR", "NOPERM"] {
            assert!(!refused(code).is_passing(), "{code}");
        }
    }
}
