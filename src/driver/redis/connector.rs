//! Making one connection: found, logged in, and to a server that takes writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_ok;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::SockRef;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, Pipeline, Value};
use redis::{ProtocolVersion, RedisConnectionInfo, RedisError};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::address::{Address, Target};
use super::fault::{Fault, accept};
use super::reply;
use super::sentinel::{self, Kept};
use super::socket::{Plain, Socket, When};

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
    pub(super) async fn open(&self) -> Result<Socket, Fault> {
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
    ) -> Result<Socket, Fault> {
        let connection = dial(info, patience, self.response_timeout).await?;
        let role = ask(&connection, redis::cmd("ROLE")).await?;
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
) -> Result<Socket, Fault> {
    let dialling = async {
        let login = info.redis_settings();
        if login.protocol() != ProtocolVersion::RESP2 {
            // The login is part of the greeting.
            return of_crate(info, login.clone(), patience, response_timeout).await;
        }
        let socket = match connect(info).await? {
            Some(stream) => Socket::Plain(Plain::start(stream, response_timeout)),
            None => {
                let nobody = RedisConnectionInfo::default();
                of_crate(info, nobody, patience, response_timeout).await?
            }
        };
        greet(&socket).await?;
        log_in(&socket, login).await?;
        Ok(socket)
    };
    timeout(patience, dialling).await.unwrap_or(Err(Fault::Silent))
}

/// A stream to whichever place of the name answers first; `None` where it is no TCP.
async fn connect(info: &ConnectionInfo) -> Result<Option<TcpStream>, Fault> {
    let ConnectionAddr::Tcp(host, port) = info.addr() else { return Ok(None) };
    let lost = |error: io::Error| Fault::from(RedisError::from(error));
    let places = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(lost)?;
    let connecting: Vec<_> = places.map(|place| Box::pin(TcpStream::connect(place))).collect();
    if connecting.is_empty() {
        return Err(Fault::Lost(format!("no address was found for {host}")));
    }
    let (stream, _) = select_ok(connecting).await.map_err(lost)?;
    set(&stream, info.tcp_settings()).map_err(lost)?;
    Ok(Some(stream))
}

fn set(stream: &TcpStream, settings: &TcpSettings) -> io::Result<()> {
    stream.set_nodelay(settings.nodelay())?;
    let socket = SockRef::from(stream);
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    Ok(())
}

/// A connection of the `redis` crate.
async fn of_crate(
    info: &ConnectionInfo,
    login: RedisConnectionInfo,
    patience: Duration,
    response_timeout: Duration,
) -> Result<Socket, Fault> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(response_timeout))
        .set_pipeline_buffer_size(WRITE_QUEUE);
    let lost = |error: RedisError| {
        let ended = error.is_connection_dropped() && !error.is_connection_refusal();
        if ended { Fault::Shut(error.to_string()) } else { Fault::from(error) }
    };
    let client = Client::open(info.clone().set_redis_settings(login)).map_err(lost)?;
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    connecting.await.map(Socket::OfCrate).map_err(lost)
}

/// Says the name of the library, for the answer: what is no Redis, or shuts us out, shows itself
/// there. What the server thinks of the name does not matter.
async fn greet(socket: &Socket) -> Result<(), Fault> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg("rumormill");
    pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-VER").arg(env!("CARGO_PKG_VERSION"));
    match socket.send_plainly(&pipeline, When::Now).await {
        Ok(_) => Ok(()),
        Err(Fault::Lost(text)) => Err(Fault::Shut(text)),
        Err(fault) => Err(fault),
    }
}

async fn log_in(socket: &Socket, login: &RedisConnectionInfo) -> Result<(), Fault> {
    if let Some(password) = login.password() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(login.username()).arg(password);
        accept(ask(socket, auth).await?).map_err(Fault::of_login)?;
    }
    if login.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(login.db());
        accept(ask(socket, select).await?)?;
    }
    Ok(())
}

/// One command; a refusal is an answer.
pub(super) async fn ask(socket: &Socket, command: Cmd) -> Result<Value, Fault> {
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.add_command(command);
    Ok(socket.send(&pipeline).await?.pop().unwrap_or_default())
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
