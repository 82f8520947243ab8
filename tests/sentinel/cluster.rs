//! Three servers, one of them the master, and three sentinels that watch them.

use std::net::TcpListener;
use std::time::Duration;

use crate::fault::drive::Scene;
use crate::fault::{PATIENCE, comes};
use crate::server::{Reply, Server};

/// How the sentinels call the master.
pub(crate) const NAME: &str = "mymaster";
/// How long the master may be silent. Not a second: a promotion closes the sentinels' connections,
/// they wait as long before they open others, and would take the new master for dead.
pub(crate) const DOWN_AFTER: Duration = Duration::from_secs(2);
/// How many sentinels must agree.
const QUORUM: usize = 2;

pub(crate) struct Cluster {
    nodes: Vec<Node>,
    sentinels: Vec<Node>,
    /// Which node was the master when it was last looked at.
    master: usize,
}

struct Node {
    port: u16,
    server: Server,
}

impl Scene for Cluster {
    fn log(&self) -> &Server {
        &self.nodes[self.master].server
    }
}

impl Cluster {
    /// Returns when replicas and sentinels know each other.
    pub(crate) async fn start() -> Self {
        let ports = free_ports(6);
        let master = ports[0];
        let node = |port: &u16| {
            let mut settings = settings(*port);
            if *port != master {
                settings.extend(replica_of(master));
            }
            Node { port: *port, server: Server::with(&words(&settings)) }
        };
        let nodes: Vec<Node> = ports[..3].iter().map(node).collect();
        let mut cluster = Self { nodes, sentinels: Vec::new(), master: 0 };
        cluster.until_in_sync().await;
        for port in &ports[3..] {
            cluster.sentinels.push(sentinel(*port, master));
        }
        cluster.until_watched().await;
        cluster
    }

    /// Where a client finds the master.
    pub(crate) fn url(&self) -> String {
        let places: Vec<String> =
            self.sentinels.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+sentinel://{}/{NAME}", places.join(","))
    }

    /// Kills the master as `kill -9` does.
    pub(crate) fn kill_master(&mut self) {
        tokio::task::block_in_place(|| self.nodes[self.master].server.kill());
    }

    /// Waits until another node is the master, and starts the old one as its replica.
    pub(crate) async fn recover(&mut self) {
        let old = self.master;
        let moved = || {
            let master = self.named_master();
            master.is_some_and(|master| master != old && role(&self.nodes[master]) == "master")
        };
        assert!(comes(PATIENCE, moved).await, "no failover:\n{}", self.sentinels[0].server.log());
        self.master = self.named_master().expect("the sentinels agree");
        let settings = replica_of(self.nodes[self.master].port);
        let old = &mut self.nodes[old].server;
        tokio::task::block_in_place(|| old.restart_with(&words(&settings)));
        self.until_in_sync().await;
        self.until_watched().await;
    }

    /// The node that all sentinels call the master.
    fn named_master(&self) -> Option<usize> {
        let name = |sentinel: &Node| {
            let answer = ask(&sentinel.server, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])?;
            let Reply::List(place) = answer else { return None };
            let port: u16 = place.get(1)?.text().parse().ok()?;
            self.nodes.iter().position(|node| node.port == port)
        };
        let named: Vec<Option<usize>> = self.sentinels.iter().map(name).collect();
        named.windows(2).all(|pair| pair[0] == pair[1]).then_some(named[0]).flatten()
    }

    async fn until_in_sync(&self) {
        let master = &self.nodes[self.master].server;
        let in_sync = || {
            let info = ask(master, &["INFO", "replication"]);
            info.is_some_and(|info| info.text().matches("state=online").count() == 2)
        };
        assert!(comes(PATIENCE, in_sync).await, "two replicas follow:\n{}", master.log());
    }

    async fn until_watched(&self) {
        let watched = || self.sentinels.iter().all(sees_everything);
        let log = || self.sentinels[0].server.log();
        assert!(comes(PATIENCE, watched).await, "the sentinels see everything:\n{}", log());
    }
}

/// A sentinel takes a replica for what it is, and knows the other sentinels.
fn sees_everything(sentinel: &Node) -> bool {
    let tables = |what: &str| match ask(&sentinel.server, &["SENTINEL", what, NAME]) {
        Some(Reply::List(list)) => list.iter().map(flags).collect(),
        _ => Vec::new(),
    };
    // Those of Valkey 9 go on saying what the others said of the last master.
    let is =
        |own: &str, word: &str| own.split(',').all(|flag| flag == word || flag == "master_down");
    let all =
        |flags: Vec<String>, word: &str| flags.len() == 2 && flags.iter().all(|own| is(own, word));
    all(tables("REPLICAS"), "slave") && all(tables("SENTINELS"), "sentinel")
}

fn flags(table: &Reply) -> String {
    let texts: Vec<String> = table.list().iter().map(Reply::text).collect();
    let at = texts.iter().position(|text| text == "flags");
    at.map_or(String::new(), |at| texts[at + 1].clone())
}

fn role(node: &Node) -> String {
    match ask(&node.server, &["ROLE"]) {
        Some(Reply::List(role)) => role[0].text(),
        _ => String::new(),
    }
}

fn ask(server: &Server, command: &[&str]) -> Option<Reply> {
    tokio::task::block_in_place(|| server.try_ask(command))
}

fn settings(port: u16) -> Vec<String> {
    let (port, no) = (port.to_string(), "no".to_owned());
    let bind = ["--bind".to_owned(), "127.0.0.1".to_owned()];
    let own = ["--port".to_owned(), port, "--appendonly".to_owned(), no];
    // A replica that was away comes back at once, and none waits for company.
    let sync = ["--repl-diskless-sync-delay".to_owned(), "0".to_owned()];
    own.into_iter().chain(bind).chain(sync).collect()
}

fn replica_of(port: u16) -> Vec<String> {
    vec!["--replicaof".to_owned(), "127.0.0.1".to_owned(), port.to_string()]
}

fn words(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

fn sentinel(port: u16, master: u16) -> Node {
    let down_after = DOWN_AFTER.as_millis();
    let text = format!(
        "sentinel monitor {NAME} 127.0.0.1 {master} {QUORUM}\n\
         sentinel down-after-milliseconds {NAME} {down_after}\n\
         sentinel failover-timeout {NAME} 2000\n\
         sentinel parallel-syncs {NAME} 2\n"
    );
    let port_text = port.to_string();
    let settings = ["--sentinel", "--port", &port_text, "--bind", "127.0.0.1"];
    Node { port, server: Server::with_file(&text, &settings) }
}

/// Ports that nobody listens on, below those that the system hands out.
fn free_ports(count: usize) -> Vec<u16> {
    let first = 15_000 + u16::try_from(std::process::id() % 1_500).unwrap_or(0) * 10;
    let free = (first..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = free.take(count).collect();
    assert_eq!(ports.len(), count, "free ports");
    ports
}
