//! Sentinels, who know which server is the master now.
//!
//! They are asked before each connection is made, beginning with the one that was right last
//! time. What one says is tried before the next is asked: a sentinel that was cut off goes on
//! naming the old master.
//!
//! They are asked each second as well. A master that they replaced takes writes for seconds more,
//! until they reach it to make it a replica, and those writes are lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::socket::Socket;
use futures_util::future::join_all;
#[cfg(test)]
use redis::RedisConnectionInfo;
use redis::{ConnectionAddr, ConnectionInfo};

use super::connector::{self, Connector};
use super::fault::{Fault, accept};
use super::reply;

/// How long one sentinel may take, to connect and to answer each: there are others.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(500);
/// How long the server that they name may take to let us in: it may be the one that just died.
const MASTER_PATIENCE: Duration = Duration::from_secs(1);

/// How often they are asked whether the master is still the same.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A host and a port.
pub(super) type Host = (String, u16);

/// How to find a master.
#[derive(Debug)]
pub(super) struct Sentinels {
    hosts: Vec<Host>,
    /// The name under which they watch the master.
    master: String,
    /// How to log in at a sentinel, host and port apart.
    own_login: ConnectionInfo,
    /// How to log in at the master, host and port apart.
    login: ConnectionInfo,
    /// Who was right last time.
    first: AtomicUsize,
    /// The master that was connected to last.
    used: Mutex<Vec<Host>>,
}

/// A connection to each sentinel, as far as there is one, to be asked again and again.
pub(super) type Kept = Vec<Option<Socket>>;

impl Sentinels {
    pub(super) fn new(
        hosts: Vec<Host>,
        master: String,
        own_login: ConnectionInfo,
        login: ConnectionInfo,
    ) -> Self {
        let (first, used) = (AtomicUsize::new(0), Mutex::default());
        Self { hosts, master, own_login, login, first, used }
    }

    /// The logins at the master and at the sentinels.
    #[cfg(test)]
    pub(super) fn logins(&self) -> (&RedisConnectionInfo, &RedisConnectionInfo) {
        (self.login.redis_settings(), self.own_login.redis_settings())
    }

    /// A connection to the master.
    pub(super) async fn open(&self, connector: &Connector) -> Result<Socket, Fault> {
        let first = self.first.load(Ordering::Relaxed);
        let mut search = Search::default();
        for at in (first..first + self.hosts.len()).map(|at| at % self.hosts.len()) {
            let sentinel = &self.hosts[at];
            let named = match self.ask(sentinel).await {
                Ok(Some(named)) => named,
                Ok(None) => {
                    search.is_known |= true;
                    search.note(sentinel, "knows no such master");
                    continue;
                }
                Err(fault) => {
                    search.note(sentinel, &format!("is of no use: {fault}"));
                    search.refusal = search.refusal.or(fault.is_of_login().then_some(fault));
                    continue;
                }
            };
            search.is_known = true;
            if search.tried.contains(&named) {
                search.note(sentinel, "names the same");
                continue;
            }
            let info = placed(&self.login, &named);
            match connector.open_primary(&info, MASTER_PATIENCE).await {
                Ok(connection) => {
                    self.first.store(at, Ordering::Relaxed);
                    let mut used = self.used();
                    if !used.contains(&named) {
                        used.push(named);
                    }
                    return Ok(connection);
                }
                // It is there, and says why it will not serve.
                Err(fault @ Fault::Refused { .. }) => return Err(fault),
                Err(fault) => {
                    let text = format!("names {}, which will not do: {fault}", shown(&named));
                    search.note(sentinel, &text);
                    search.tried.push(named);
                }
            }
        }
        Err(search.fault(&self.master))
    }

    /// Where this sentinel says the master is.
    async fn ask(&self, sentinel: &Host) -> Result<Option<Host>, Fault> {
        self.query(&self.dial(sentinel).await?).await
    }

    async fn dial(&self, sentinel: &Host) -> Result<Socket, Fault> {
        let info = placed(&self.own_login, sentinel);
        connector::dial(&info, SENTINEL_PATIENCE, SENTINEL_PATIENCE).await
    }

    async fn query(&self, connection: &Socket) -> Result<Option<Host>, Fault> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer = accept(connector::ask(connection, command).await?)?;
        let mut words = reply::items(answer)?.into_iter();
        let (Some(host), Some(port)) = (words.next(), words.next()) else { return Ok(None) };
        let port = u16::try_from(reply::count(port)?).unwrap_or(0);
        Ok(Some((reply::text(host)?, port)))
    }

    /// Whether most sentinels name another master than one that something was connected to since
    /// the last change; true once for each change.
    pub(super) async fn has_moved(&self, kept: &mut Kept) -> bool {
        kept.resize(self.hosts.len(), None);
        let asked = self.hosts.iter().zip(kept.iter_mut()).map(|(sentinel, kept)| async move {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => self.dial(sentinel).await?,
            };
            let named = self.query(&connection).await?;
            *kept = Some(connection);
            Ok::<_, Fault>(named)
        });
        let answers: Vec<Option<Host>> =
            join_all(asked).await.into_iter().map(|answer| answer.ok().flatten()).collect();
        let Some((at, named)) = most(&answers) else { return false };
        let mut used = self.used();
        let moved = used.iter().any(|used| used != named);
        if moved {
            used.clear();
            // Who still names the old one would be asked first otherwise.
            self.first.store(at, Ordering::Relaxed);
        }
        moved
    }

    fn used(&self) -> MutexGuard<'_, Vec<Host>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What more than half of all say, and the first of them.
fn most(answers: &[Option<Host>]) -> Option<(usize, &Host)> {
    let mut votes: HashMap<&Host, (usize, usize)> = HashMap::new();
    for (at, named) in answers.iter().enumerate() {
        if let Some(named) = named {
            votes.entry(named).or_insert((at, 0)).1 += 1;
        }
    }
    let winner = votes.into_iter().find(|(_, (_, count))| *count * 2 > answers.len());
    winner.map(|(named, (first, _))| (first, named))
}

/// What was heard while a master was looked for.
#[derive(Default)]
struct Search {
    said: Vec<String>,
    /// Masters that were named and will not do.
    tried: Vec<Host>,
    /// A sentinel answered.
    is_known: bool,
    /// A sentinel wants another login.
    refusal: Option<Fault>,
}

impl Search {
    fn note(&mut self, sentinel: &Host, what: &str) {
        self.said.push(format!("sentinel {} {what}", shown(sentinel)));
    }

    /// Why there is no master.
    fn fault(self, master: &str) -> Fault {
        let text = format!("no master {master:?} was found: {}", self.said.join("; "));
        match self.refusal {
            _ if self.is_known => Fault::NoPrimary(text),
            Some(Fault::Refused { code, .. }) => Fault::Refused { code, text },
            _ => Fault::Lost(text),
        }
    }
}

/// A login at one place.
fn placed(login: &ConnectionInfo, (host, port): &Host) -> ConnectionInfo {
    login.clone().set_addr(ConnectionAddr::Tcp(host.clone(), *port))
}

/// Host and port as a url has them.
pub(super) fn shown((host, port): &Host) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_is_more_than_half_of_all() {
        let host = |port| Some(("h".to_owned(), port));
        let most = |answers: &[Option<Host>]| most(answers).map(|(at, named)| (at, named.1));
        assert_eq!(most(&[host(1)]), Some((0, 1)));
        assert_eq!(most(&[host(1), host(2), host(2)]), Some((1, 2)));
        assert_eq!(most(&[host(1), None, None]), None, "one of three");
        assert_eq!(most(&[host(1), host(2), None]), None);
        assert_eq!(most(&[]), None);
    }
}
