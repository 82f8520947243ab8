//! What is asked of a server before it is used: that it is a Redis, of which version, and how it
//! keeps what it is given.

use super::socket::Socket;
use redis::Pipeline;

use super::connection::{Ghosts, Live};
use super::connector::Connector;
use super::facts::{self, Facts};
use super::fault::{Fault, accept};
use super::reply;
use crate::error::{Error, ErrorKind};

/// The oldest Redis that this driver speaks to.
const OLDEST: (u32, u32) = (7, 0);

/// Why a server is not used.
pub(super) enum Refusal {
    Fault(Fault),
    TooOld(String),
    Cluster,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Refusal {
    /// The server says that it will soon be of another mind.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.is_passing())
    }

    /// The server does not know who we are.
    pub(super) fn is_of_login(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.is_of_login() || fault.code() == "NOPERM")
    }

    /// As happens to a server that is down or comes up.
    pub(super) fn is_usual(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.is_passing() || fault.breaks_connection())
    }

    /// The error for users.
    pub(super) fn error(&self, address: &str) -> Error {
        let (oldest, minor) = OLDEST;
        let text = match self {
            Self::Fault(fault) => return fault.error("connect to Redis", address),
            Self::TooOld(version) => format!(
                "cannot use the Redis on {address}: it has version {version}, {oldest}.{minor} \
                 is the oldest that will do"
            ),
            Self::Cluster => format!("cannot use the Redis on {address}: it is part of a cluster"),
        };
        let help = match self {
            Self::Cluster => "clusters come later: connect to a single server",
            _ => "upgrade the server",
        };
        Error::new(ErrorKind::Unsupported, text).with_help(help)
    }
}

/// Opens a connection and asks; kills the connections before it, where they were on this server.
pub(super) async fn open(
    connector: &Connector,
    generation: u64,
    ghosts: &mut Ghosts,
    checking: impl FnOnce(),
) -> Result<(Live, Facts), Refusal> {
    let connection = connector.open().await?;
    checking();
    let mut pipeline = Pipeline::new();
    pipeline.cmd("PING").cmd("CLIENT").arg("ID");
    facts::ask(&mut pipeline);
    let mut answers = connection.send(&pipeline).await?.into_iter();
    let (ping, client) = (answers.next(), answers.next().unwrap_or_default());
    match accept(ping.unwrap_or_default()) {
        // It cannot write its files, and reads go on: the watch says so.
        Err(fault) if fault.code() == "MISCONF" => {}
        answer => drop(answer?),
    }
    let facts = Facts::read(answers)?;
    check_server(&facts)?;
    let run_id = facts.run_id.clone();
    let is_alone = lay(&connection, &run_id, ghosts).await?;
    let durability = facts.durability;
    let client = reply::int(client).ok().flatten();
    Ok((Live { generation, connection, durability, client, run_id, is_alone }, facts))
}

/// The server's id for a connection, and its run id, for one that was opened to read.
pub(super) async fn introduce(connection: &Socket) -> Result<(Option<i64>, String), Fault> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CLIENT").arg("ID").cmd("INFO").arg("server");
    let mut answers = connection.send(&pipeline).await?.into_iter();
    let client = reply::int(answers.next().unwrap_or_default()).ok().flatten();
    let server = reply::text(answers.next().unwrap_or_default()).unwrap_or_default();
    Ok((client, facts::line(&server, "run_id").unwrap_or_default().to_owned()))
}

/// Kills the connections that were given up on this server; false where it does not let. Their
/// numbers say nothing to another server, or in another life of it: there they are somebody
/// else's.
pub(super) async fn lay(
    connection: &Socket,
    run_id: &str,
    ghosts: &mut Ghosts,
) -> Result<bool, Fault> {
    let here = ghosts.on(run_id);
    if here.is_empty() {
        return Ok(true);
    }
    // Without a run id it may be another server, where the number is somebody else's.
    if run_id.is_empty() || here.contains(&0) {
        return Ok(false);
    }
    let mut pipeline = Pipeline::new();
    for client in here {
        pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(client);
    }
    let killed = connection.send(&pipeline).await?.into_iter().all(|answer| accept(answer).is_ok());
    if killed {
        ghosts.laid(run_id);
    }
    Ok(killed)
}

/// Refuses what cannot work. A user who may not ask is taken at their word.
fn check_server(facts: &Facts) -> Result<(), Refusal> {
    if facts.mode == "cluster" {
        return Err(Refusal::Cluster);
    }
    let version = &facts.version;
    if version.is_empty() {
        return Ok(());
    }
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST { Err(Refusal::TooOld(version.clone())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::Value;

    #[test]
    fn old_servers_and_clusters_are_refused() {
        let check = |info: &str| {
            let info = Value::BulkString(info.as_bytes().to_vec());
            check_server(&Facts::read(std::iter::once(info)).expect("facts"))
        };
        assert!(check("redis_version:7.0.15\r\nredis_mode:standalone\r\n").is_ok());
        assert!(check("redis_version:10.2.0\r\n").is_ok());
        assert!(check("").is_ok());
        assert!(matches!(check("redis_version:6.2.14\r\n"), Err(Refusal::TooOld(_))));
        assert!(matches!(
            check("redis_version:7.2.4\r\nredis_mode:cluster\r\n"),
            Err(Refusal::Cluster)
        ));
        let error = Refusal::TooOld("6.2.14".to_owned()).error("redis://a:1");
        assert!(error.to_string().contains("6.2.14"), "{error}");
    }
}
