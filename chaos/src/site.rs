//! Where a run happens: servers, the proxies before them, the processes, and what they wrote.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::args::Mode;
use crate::crew::{Crew, Orders, Role, Slot};
use crate::history::{What, Writer};
use crate::load::{Act, GROUPS, TOPIC};
use crate::node::Node;
use crate::progress::Progress;
use crate::proxy::Proxy;
use crate::shim::Shim;
use crate::watch::Watch;
use crate::{Result, time};

/// Places of publishers and of workers.
pub(crate) const PUBLISHERS: u32 = 2;
pub(crate) const WORKERS: u32 = 3;
/// What the sentinels call the master.
const MASTER: &str = "chaos";
/// How long the master may be silent before they take it for down.
const DOWN_AFTER_MS: u32 = 2_000;
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// How long the servers and processes may take to get going.
const START: Duration = Duration::from_secs(30);

/// The paths that a proxy stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Publishing,
    Working,
    Replicating,
}

/// What a run is made of.
pub(crate) struct Plan {
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    pub(crate) rate: u32,
    pub(crate) plant: Option<String>,
}

/// A place where the bus runs and can be broken.
pub(crate) struct Site {
    pub(crate) mode: Mode,
    pub(crate) nodes: Vec<Node>,
    /// Which of them takes writes.
    pub(crate) master: usize,
    pub(crate) sentinels: Vec<Node>,
    pub(crate) shim: std::result::Result<Shim, String>,
    publishing: Proxy,
    working: Proxy,
    /// Before the sentinels: each names the doors of a line.
    _signposts: Vec<Proxy>,
    /// Between a master and its replica.
    replicating: Option<Proxy>,
    pub(crate) crew: Crew,
    pub(crate) watch: Watch,
    pub(crate) history: Writer,
    pub(crate) progress: Progress,
    sampled: Instant,
}

impl Site {
    /// Starts everything; returns when events are acknowledged and handled.
    pub(crate) async fn open(plan: &Plan, progress: Progress) -> Result<Self> {
        let folder = plan.folder.join("histories");
        fs::create_dir_all(&folder)?;
        let shim = Shim::build(&plan.folder).await;
        let (nodes, sentinels, replicating) = servers(plan, shim.as_ref().ok()).await?;
        let (publishing, publisher_url, mut signposts) = way_in(&nodes, &sentinels).await?;
        let (working, worker_url, more) = way_in(&nodes, &sentinels).await?;
        signposts.extend(more);
        let orders = Orders {
            folder: folder.clone(),
            seed: plan.seed,
            rate: plan.rate,
            replicas: u32::from(matches!(plan.mode, Mode::Replica | Mode::Sentinel)),
            plant: plan.plant.clone(),
            publisher_url,
            worker_url,
        };
        let mut site = Self {
            mode: plan.mode,
            nodes,
            master: 0,
            sentinels,
            shim,
            publishing,
            working,
            _signposts: signposts,
            replicating,
            crew: Crew::new(orders),
            watch: Watch::new(&folder),
            history: Writer::open(&folder.join("nemesis.ndjson"))?,
            progress,
            sampled: Instant::now(),
        };
        site.staff().await?;
        Ok(site)
    }

    /// Starts the processes, workers first.
    async fn staff(&mut self) -> Result<()> {
        let begun = time::now();
        for slot in slots(Role::Worker).into_iter().chain(slots(Role::Publisher)) {
            self.crew.start(slot)?;
        }
        if self.until(START, |site| site.watch.is_well(begun)).await? {
            return Ok(());
        }
        Err(format!("nothing works at first: see {}", self.crew.folder().display()).into())
    }

    /// The server that takes writes.
    pub(crate) fn server(&mut self) -> &mut Node {
        &mut self.nodes[self.master]
    }

    /// A proxy; not all modes have all.
    pub(crate) fn line(&self, line: Line) -> Result<&Proxy> {
        match line {
            Line::Publishing => Ok(&self.publishing),
            Line::Working => Ok(&self.working),
            Line::Replicating => {
                self.replicating.as_ref().ok_or_else(|| "there is no replica".into())
            }
        }
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &Proxy> {
        [&self.publishing, &self.working].into_iter().chain(&self.replicating)
    }

    /// Leads both paths to another server.
    pub(crate) fn lead_to(&mut self, node: usize) {
        self.master = node;
        for proxy in [&self.publishing, &self.working] {
            proxy.lead_to(&self.nodes[node].socket());
        }
    }

    /// Lets time pass, in which the processes are tended.
    pub(crate) async fn pass(&mut self, time: Duration) -> Result<()> {
        self.until(time, |_| false).await.map(drop)
    }

    /// Waits until something holds; false where it does not in time.
    pub(crate) async fn until(
        &mut self,
        patience: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            self.crew.tend()?;
            self.watch.look()?;
            self.sample();
            self.progress.show(&self.watch);
            if holds(self) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            sleep(PAUSE.min(left)).await;
        }
    }

    /// Writes down what each process uses.
    fn sample(&mut self) {
        if self.sampled.elapsed() < SAMPLE_EVERY {
            return;
        }
        self.sampled = Instant::now();
        for (process, id) in self.crew.running() {
            if let Some((rss_kib, files)) = usage(id) {
                self.history.write(What::Sample { process, rss_kib, files });
            }
        }
    }

    /// Has the publishers publish events of an act; gives how many.
    pub(crate) async fn order(&mut self, act: Act, count: u32) -> Result<()> {
        for number in 0..count {
            let slot = Slot { role: Role::Publisher, number: number % PUBLISHERS };
            self.crew.order(slot, act).await?;
        }
        Ok(())
    }

    /// How many events a process holds, and each consumer's name.
    pub(crate) async fn holdings(&mut self, id: u32) -> Result<u64> {
        let (mut held, own) = (0, format!(".{id}."));
        for group in GROUPS {
            for consumer in self.consumers(group).await? {
                if consumer.0.contains(&own) {
                    held += consumer.1;
                }
            }
        }
        Ok(held)
    }

    /// The consumers of a group and what is pending for each.
    pub(crate) async fn consumers(&mut self, group: &str) -> Result<Vec<(String, u64)>> {
        let log = log_key();
        let list = self.server().ask(&["XINFO", "CONSUMERS", &log, group]).await?;
        let pair = |consumer: &crate::session::Reply| {
            let name = consumer.get("name")?.text().to_owned();
            Some((name, u64::try_from(consumer.get("pending")?.int()).unwrap_or(0)))
        };
        Ok(list.list().iter().filter_map(pair).collect())
    }

    /// The consumers of a group that were heard of in the last second.
    pub(crate) async fn living(&mut self, group: &str) -> Result<Vec<String>> {
        let log = log_key();
        let list = self.server().ask(&["XINFO", "CONSUMERS", &log, group]).await?;
        let name = |consumer: &crate::session::Reply| {
            let lives = consumer.get("idle")?.int() < 1_000;
            lives.then(|| consumer.get("name").map(|name| name.text().to_owned()))?
        };
        Ok(list.list().iter().filter_map(name).collect())
    }
}

/// The log that all events go to.
pub(crate) fn log_key() -> String {
    format!("rm:{{{TOPIC}:0}}:log")
}

/// The places of a role.
pub(crate) fn slots(role: Role) -> Vec<Slot> {
    let count = if role == Role::Publisher { PUBLISHERS } else { WORKERS };
    (0..count).map(|number| Slot { role, number }).collect()
}

/// Resident memory in KiB and open files of a process, where the system tells.
fn usage(id: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let rss = line.trim().split(' ').next()?.parse().ok()?;
    let files = fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64;
    Some((rss, files))
}

/// What every server is started with.
fn settings(mode: Mode) -> Vec<&'static str> {
    let mut settings = vec!["--save", "", "--enable-debug-command", "yes"];
    settings.extend(["--enable-protected-configs", "yes", "--busy-reply-threshold", "50"]);
    settings.extend(["--repl-diskless-sync-delay", "0", "--bind", "127.0.0.1"]);
    settings.extend(["--auto-aof-rewrite-percentage", "0"]);
    settings.extend(match mode {
        Mode::None => ["--appendonly", "no"].as_slice(),
        Mode::Everysec => &["--appendonly", "yes", "--appendfsync", "everysec"],
        _ => &["--appendonly", "yes", "--appendfsync", "always"],
    });
    settings
}

type Servers = (Vec<Node>, Vec<Node>, Option<Proxy>);

async fn servers(plan: &Plan, shim: Option<&Shim>) -> Result<Servers> {
    let folder = plan.folder.join("servers");
    let common = settings(plan.mode);
    let shim = shim.map(Shim::path);
    let (count, watchers) = match plan.mode {
        Mode::Replica => (2, 0),
        Mode::Sentinel => (3, 3),
        _ => (1, 0),
    };
    let has_ports = plan.mode == Mode::Sentinel;
    let ports = if has_ports { free_ports(count + watchers)? } else { vec![0; count] };
    let mut nodes: Vec<Node> = Vec::new();
    let mut replicating = None;
    for (index, port) in ports[..count].iter().enumerate() {
        let own = folder.join(format!("redis{index}"));
        fs::create_dir_all(&own)?;
        fs::write(own.join("server.conf"), "user app on >secret ~* &* +@all\n")?;
        let master = match (index, plan.mode) {
            (0, _) => None,
            (_, Mode::Sentinel) => Some(nodes[0].port),
            _ => {
                let proxy = Proxy::start(nodes[0].socket(), false).await?;
                Some(replicating.insert(proxy).address.port())
            }
        };
        let mut node = Node::start(&own, *port, &common, shim.clone()).await?;
        if let Some(port) = master {
            node.ask(&["REPLICAOF", "127.0.0.1", &port.to_string()]).await?;
        }
        nodes.push(node);
    }
    until_in_sync(&mut nodes[0], count - 1).await?;
    let mut sentinels = Vec::new();
    for port in &ports[count..] {
        sentinels.push(sentinel(&folder, *port, nodes[0].port, sentinels.len()).await?);
    }
    Ok((nodes, sentinels, replicating))
}

async fn until_in_sync(master: &mut Node, replicas: usize) -> Result<()> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        let info = master.say("INFO replication").await?;
        if info.text().matches("state=online").count() >= replicas {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err("the replicas do not follow".into())
}

async fn sentinel(folder: &Path, port: u16, master: u16, index: usize) -> Result<Node> {
    let own = folder.join(format!("sentinel{index}"));
    fs::create_dir_all(&own)?;
    let text = format!(
        "sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n\
         sentinel failover-timeout {MASTER} 2000\n\
         sentinel parallel-syncs {MASTER} 2\n"
    );
    fs::write(own.join("server.conf"), text)?;
    Node::start(&own, port, &["--sentinel", "--bind", "127.0.0.1"], None).await
}

/// A line to the servers, its address for a client, and what stands before the sentinels where
/// there are any: they name the line's door before the master, not the master.
async fn way_in(nodes: &[Node], sentinels: &[Node]) -> Result<(Proxy, String, Vec<Proxy>)> {
    let mut line = Proxy::start(nodes[0].socket(), true).await?;
    if sentinels.is_empty() {
        let url = format!("redis://app:secret@{}", line.address);
        return Ok((line, url, Vec::new()));
    }
    let mut ports = vec![(nodes[0].port, line.address.port())];
    for node in &nodes[1..] {
        ports.push((node.port, line.add_door(node.socket()).await?.port()));
    }
    let mut signposts = Vec::new();
    for sentinel in sentinels {
        signposts.push(Proxy::naming(sentinel.socket(), ports.clone()).await?);
    }
    let places: Vec<String> = signposts.iter().map(|proxy| proxy.address.to_string()).collect();
    let url = format!("redis+sentinel://app:secret@{}/{MASTER}", places.join(","));
    Ok((line, url, signposts))
}

/// The node that all sentinels call the master.
pub(crate) async fn named_master(sentinels: &mut [Node], nodes: &[Node]) -> Option<usize> {
    let mut named = Vec::new();
    for sentinel in sentinels {
        let answer = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await.ok()?;
        let port: u16 = answer.list().get(1)?.text().parse().ok()?;
        named.push(nodes.iter().position(|node| node.port == port)?);
    }
    named.windows(2).all(|pair| pair[0] == pair[1]).then(|| named.first().copied()).flatten()
}

/// Ports that nobody listens on, below those that the system hands out.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let first = 16_000 + u16::try_from(std::process::id() % 1_500).unwrap_or(0) * 10;
    let free = (first..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = free.take(count).collect();
    if ports.len() == count { Ok(ports) } else { Err("no free ports".into()) }
}
