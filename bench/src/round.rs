//! One round of a case: a server, a publisher and a consumer, each a process.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::Error;
use crate::case::{Case, Round};
use crate::measure::End;
use crate::peers::{Needs, entry_of};
use crate::proxy;
use crate::role::Which;
use crate::server::Server;

/// Starts servers: most for one round, those that take seconds to start for all.
#[derive(Default)]
pub(crate) struct Servers {
    rabbit: Option<Server>,
}

/// A server for a round.
enum Lent<'a> {
    Own(Server),
    Shared(&'a Server),
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Self::Shared(server) = self {
            server.pause(true);
        }
    }
}

impl Lent<'_> {
    fn server(&self) -> &Server {
        match self {
            Self::Own(server) => server,
            Self::Shared(server) => server,
        }
    }
}

impl Servers {
    fn lend(&mut self, needs: Needs, everysec: bool) -> Result<Lent<'_>, Error> {
        if needs != Needs::Rabbit {
            return Ok(Lent::Own(Server::start(needs, everysec)?));
        }
        if self.rabbit.is_none() {
            self.rabbit = Some(Server::start(needs, everysec)?);
        }
        let rabbit = self.rabbit.as_ref().ok_or("it was started")?;
        rabbit.pause(false);
        Ok(Lent::Shared(rabbit))
    }
}

/// Runs a round; an error where not all was delivered, or not in order.
pub(crate) fn run(case: &Case, servers: &mut Servers) -> Result<Round, Error> {
    let needs = entry_of(&case.peer).ok_or("no such peer")?.needs;
    if needs == Needs::Nothing {
        return alone(case);
    }
    let lent = servers.lend(needs, case.job.everysec)?;
    let server = lent.server();
    let proxied = case.job.proxied || case.job.delay_us > 0;
    let port =
        if proxied { proxy::start(server.port(), case.job.delay_us)? } else { server.port() };
    let url = server.url(port);
    if case.job.backlog { backlog(case, server, &url) } else { side_by_side(case, server, &url) }
}

/// Publisher and consumer at the same time.
fn side_by_side(case: &Case, server: &Server, url: &str) -> Result<Round, Error> {
    let mut consumer = Role::start(Which::Consume, case, url)?;
    consumer.ready()?;
    let before = server.cpu_ns();
    let publish = Role::start(Which::Publish, case, url)?.end()?;
    let consume = consumer.end()?;
    let server_ns = server.cpu_ns().saturating_sub(before);
    counted(case, publish.first_ns, server_ns, &publish, &consume)
}

/// The consumer comes when all is published.
fn backlog(case: &Case, server: &Server, url: &str) -> Result<Round, Error> {
    Role::start(Which::Prepare, case, url)?.end()?;
    let publish = Role::start(Which::Publish, case, url)?.end()?;
    let before = server.cpu_ns();
    let mut consumer = Role::start(Which::Consume, case, url)?;
    consumer.ready()?;
    let consume = consumer.end()?;
    let server_ns = server.cpu_ns().saturating_sub(before);
    counted(case, consume.first_ns, server_ns, &publish, &consume)
}

/// Publisher and consumer in one process, without a server.
fn alone(case: &Case) -> Result<Round, Error> {
    let end = Role::start(Which::Both, case, "memory:")?.end()?;
    counted(case, end.first_ns, 0, &End::default(), &end)
}

fn counted(
    case: &Case,
    first_ns: u64,
    server_ns: u64,
    publish: &End,
    consume: &End,
) -> Result<Round, Error> {
    let End { missing, disorder, .. } = *consume;
    if missing > 0 {
        return Err(format!("{missing} events were not delivered").into());
    }
    if disorder > 0 {
        return Err(format!("{disorder} events came behind a later one of their key").into());
    }
    let events = case.job.events as f64;
    let us = |ns: u64| ns as f64 / 1000.0 / events;
    let took_ns = consume.last_ns.saturating_sub(first_ns).max(1);
    Ok(Round {
        events_per_second: events * 1e9 / took_ns as f64,
        server_us: us(server_ns),
        publisher_us: us(publish.cpu_ns),
        consumer_us: us(consume.cpu_ns),
        latency_us: consume.latency_us,
        memory_kib: consume.memory_kib,
        again: consume.again,
        disorder,
    })
}

/// A process of a round; killed on drop.
struct Role {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Role {
    fn start(which: Which, case: &Case, url: &str) -> Result<Self, Error> {
        let job = serde_json::to_string(&case.job)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", which.name(), &case.peer, url, &job]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, said })
    }

    fn ready(&mut self) -> Result<(), Error> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        if line.trim() == "ready" { Ok(()) } else { Err(said(&line).into()) }
    }

    fn end(mut self) -> Result<End, Error> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        self.child.wait()?;
        serde_json::from_str(&line).map_err(|_| said(&line).into())
    }
}

/// Why an end of a round came to nothing.
fn said(line: &str) -> String {
    match line.trim() {
        "" => "it ended and said nothing".to_owned(),
        text => text.strip_prefix("error: ").unwrap_or(text).to_owned(),
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
