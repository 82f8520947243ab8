//! What is asked of a server before it is used: that it is a Redis, of which version, and how it
//! keeps what it is given.

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::connection::{Ghosts, Live, send};
use super::connector::Connector;
use super::fault::{Fault, accept};
use super::reply;
use crate::delivery::Durability;
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
) -> Result<Live, Refusal> {
    let mut connection = connector.open().await?;
    checking();
    let mut pipeline = Pipeline::new();
    pipeline.cmd("PING").cmd("INFO").arg("server").cmd("INFO").arg("persistence");
    pipeline.cmd("CONFIG").arg("GET").arg("appendfsync").cmd("CLIENT").arg("ID");
    let answers = send(&mut connection, &pipeline).await?;
    let [ping, server, persistence, fsync, client]: [Value; 5] =
        answers.try_into().map_err(|_| Fault::Odd("the wrong number of answers".to_owned()))?;
    accept(ping)?;
    let server = reply::text(server).unwrap_or_default();
    check_server(&server)?;
    let run_id = line(&server, "run_id").unwrap_or_default().to_owned();
    let is_alone = lay(&mut connection, &run_id, ghosts).await?;
    let durability = durability(persistence, fsync);
    let client = reply::int(client).ok().flatten();
    Ok(Live { generation, connection, durability, client, run_id, is_alone })
}

/// The server's id for a connection, and its run id, for one that was opened to read.
pub(super) async fn introduce(
    connection: &mut MultiplexedConnection,
) -> Result<(Option<i64>, String), Fault> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CLIENT").arg("ID").cmd("INFO").arg("server");
    let mut answers = send(connection, &pipeline).await?.into_iter();
    let client = reply::int(answers.next().unwrap_or_default()).ok().flatten();
    let server = reply::text(answers.next().unwrap_or_default()).unwrap_or_default();
    Ok((client, line(&server, "run_id").unwrap_or_default().to_owned()))
}

/// Kills the connections that were given up on this server; false where it does not let. Their
/// numbers say nothing to another server, or in another life of it: there they are somebody
/// else's.
pub(super) async fn lay(
    connection: &mut MultiplexedConnection,
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
    let killed =
        send(connection, &pipeline).await?.into_iter().all(|answer| accept(answer).is_ok());
    if killed {
        ghosts.laid(run_id);
    }
    Ok(killed)
}

/// Refuses what cannot work. A user who may not ask is taken at their word.
fn check_server(info: &str) -> Result<(), Refusal> {
    if line(info, "redis_mode") == Some("cluster") {
        return Err(Refusal::Cluster);
    }
    let Some(version) = line(info, "redis_version") else { return Ok(()) };
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST { Err(Refusal::TooOld(version.to_owned())) } else { Ok(()) }
}

fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(str::trim)
}

/// What the server does to keep what it acknowledged; unknown where it may not be asked.
fn durability(persistence: Value, fsync: Value) -> Durability {
    let Ok(persistence) = reply::text(persistence) else { return Durability::Unknown };
    match line(&persistence, "aof_enabled") {
        Some("1") => {}
        Some(_) => return Durability::Volatile,
        None => return Durability::Unknown,
    }
    let setting = reply::pairs(fsync).ok().and_then(|pairs| pairs.into_iter().next());
    let setting = setting.and_then(|(_, value)| reply::text(value).ok());
    match setting.as_deref() {
        Some("always") => Durability::Fsync,
        Some("everysec") => Durability::Everysec,
        Some("no") => Durability::Volatile,
        _ => Durability::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn fsync(setting: &str) -> Value {
        Value::Array(vec![bulk("appendfsync"), bulk(setting)])
    }

    #[test]
    fn durability_is_what_the_server_does() {
        let on = || bulk("# Persistence\r\naof_enabled:1\r\n");
        assert_eq!(durability(on(), fsync("always")), Durability::Fsync);
        assert_eq!(durability(on(), fsync("everysec")), Durability::Everysec);
        assert_eq!(durability(on(), fsync("no")), Durability::Volatile);
        assert_eq!(durability(bulk("aof_enabled:0\r\n"), fsync("always")), Durability::Volatile);
        assert_eq!(durability(on(), Value::Nil), Durability::Unknown);
        assert_eq!(durability(Value::Nil, fsync("always")), Durability::Unknown);
    }

    #[test]
    fn old_servers_and_clusters_are_refused() {
        let check = check_server;
        assert!(check("redis_version:7.0.15\r\nredis_mode:standalone\r\n").is_ok());
        assert!(check("redis_version:10.2.0\r\n").is_ok());
        assert!(matches!(check("redis_version:6.2.14\r\n"), Err(Refusal::TooOld(_))));
        assert!(matches!(
            check("redis_version:7.2.4\r\nredis_mode:cluster\r\n"),
            Err(Refusal::Cluster)
        ));
        let error = Refusal::TooOld("6.2.14".to_owned()).error("redis://a:1");
        assert!(error.to_string().contains("6.2.14"), "{error}");
    }
}
