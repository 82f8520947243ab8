//! Making one connection: found, logged in, and to a server that takes writes.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, Value};
use redis::{RedisConnectionInfo, RedisError};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::address::{Address, Target};
use super::connection::send;
use super::fault::{Fault, accept};
use super::reply;
use super::sentinel::{self, Kept};

/// Requests that may wait in the client for the socket. Beyond what callers can have under way:
/// who has to wait for room there may be overtaken by who comes later, and appends keep an order.
const WRITE_QUEUE: usize = 1 << 16;

/// Makes connections. Names are resolved anew and sentinels asked anew for each of them.
pub(super) struct Connector {
    address: Address,
    response_timeout: Duration,
    /// Counts the times that the sentinels named another master.
    moves: watch::Sender<u64>,
}

impl Connector {
    pub(super) fn new(address: Address, response_timeout: Duration) -> Self {
        Self { address, response_timeout, moves: watch::Sender::new(0) }
    }

    /// A new connection to a server that takes writes, logged in.
    pub(super) async fn open(&self) -> Result<MultiplexedConnection, Fault> {
        match self.address.target() {
            Target::Server(info) => self.open_primary(info, self.response_timeout).await,
            Target::Sentinels(sentinels) => sentinels.open(self).await,
        }
    }

    /// Changes when the sentinels name another master: what is connected to the old one must be
    /// given up.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Asks the sentinels, where there are any, whether the master is still the same, until
    /// `stop`.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Target::Sentinels(sentinels) = self.address.target() else { return };
        let mut kept = Kept::new();
        let work = async {
            loop {
                sleep(sentinel::LOOK_EVERY).await;
                if sentinels.has_moved(&mut kept).await {
                    tracing::info!(address = self.address(), "the sentinels name another master");
                    self.moves.send_modify(|moves| *moves += 1);
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// The address without secrets.
    pub(super) fn address(&self) -> &str {
        self.address.shown()
    }

    /// What the url leads to.
    pub(super) fn target(&self) -> &Target {
        self.address.target()
    }

    /// After this an answer is overdue whatever happened to the deadline of its request.
    pub(super) fn patience(&self) -> Duration {
        self.response_timeout * 2
    }

    /// A connection to this server, unless it is a replica. It stands within `patience`.
    pub(super) async fn open_primary(
        &self,
        info: &ConnectionInfo,
        patience: Duration,
    ) -> Result<MultiplexedConnection, Fault> {
        let mut connection = dial(info, patience, self.response_timeout).await?;
        let role = ask(&mut connection, redis::cmd("ROLE")).await?;
        check_role(role)?;
        Ok(connection)
    }
}

/// A connection whose server the sentinels do not name any more.
pub(super) fn moved() -> Fault {
    Fault::NoPrimary("the sentinels name another master".to_owned())
}

/// A connection to any server, logged in. It stands within `patience`.
pub(super) async fn dial(
    info: &ConnectionInfo,
    patience: Duration,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, Fault> {
    let login = info.redis_settings();
    // The crate hides what the server says to a login, so that it is done here. With RESP3 it is
    // part of the greeting. The name of the library is sent for its answer: what is no Redis, or
    // shuts us out, shows itself there.
    let is_own = login.protocol() == ProtocolVersion::RESP2;
    let bare = info.clone().set_redis_settings(if is_own {
        RedisConnectionInfo::default().set_lib_name("rumormill", env!("CARGO_PKG_VERSION"))
    } else {
        login.clone()
    });
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(response_timeout))
        .set_pipeline_buffer_size(WRITE_QUEUE);
    let lost = |error: RedisError| {
        let ended = error.is_connection_dropped() && !error.is_connection_refusal();
        if ended { Fault::Shut(error.to_string()) } else { Fault::from(error) }
    };
    let client = Client::open(bare).map_err(lost)?;
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connecting.await.map_err(lost)?;
    if is_own {
        log_in(&mut connection, login).await?;
    }
    Ok(connection)
}

async fn log_in(
    connection: &mut MultiplexedConnection,
    login: &RedisConnectionInfo,
) -> Result<(), Fault> {
    if let Some(password) = login.password() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(login.username()).arg(password);
        accept(ask(connection, auth).await?).map_err(Fault::of_login)?;
    }
    if login.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(login.db());
        accept(ask(connection, select).await?)?;
    }
    Ok(())
}

/// One command; a refusal is an answer.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    command: Cmd,
) -> Result<Value, Fault> {
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.add_command(command);
    Ok(send(connection, &pipeline).await?.pop().unwrap_or_default())
}

/// Refuses what takes no writes. A user who may not ask is taken at their word.
fn check_role(role: Value) -> Result<(), Fault> {
    let mut role = match accept(role) {
        Err(fault) if fault.is_not_allowed() => return Ok(()),
        role => reply::items(role?)?.into_iter(),
    };
    let mut next = || role.next().and_then(|word| reply::text(word).ok()).unwrap_or_default();
    match next().as_str() {
        "master" => Ok(()),
        "slave" => Err(Fault::NoPrimary(format!("it is a replica of {}:{}", next(), next()))),
        "sentinel" => Err(Fault::Odd("it is a sentinel, which keeps no events".to_owned())),
        role => Err(Fault::Odd(format!("it has a role that is not known: {role:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(words: &[&str]) -> Result<(), Fault> {
        let word = |word: &&str| Value::BulkString(word.as_bytes().to_vec());
        check_role(Value::Array(words.iter().map(word).collect()))
    }

    #[test]
    fn only_a_primary_will_do() {
        assert!(role(&["master", "0"]).is_ok());
        let fault = role(&["slave", "10.0.0.1", "6379", "connected"]).expect_err("a replica");
        assert_eq!(fault.to_string(), "it is a replica of 10.0.0.1:6379");
        assert!(fault.is_passing() && fault.breaks_connection());
        assert!(!role(&["sentinel"]).expect_err("a sentinel").is_passing());
        let refusal = |text: &str| {
            redis::parse_redis_value(text.as_bytes()).expect("a reply").extract_error().err()
        };
        let said = refusal("-NOPERM this user has no permissions to run the 'role' command\r\n");
        let fault = Fault::from(said.expect("an error"));
        assert!(fault.is_not_allowed(), "{fault}");
    }
}
