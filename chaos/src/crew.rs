//! The processes of a run: publishers and workers, which are this program with another command.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::load::Act;
use crate::node::send_signal;
use crate::worker::LEASE;
use crate::{Result, plants};

/// How long a process may take to end.
pub(crate) const END: Duration = Duration::from_secs(20);

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Publisher,
    Worker,
}

/// A place that one process after the other takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) role: Role,
    pub(crate) number: u32,
}

impl Slot {
    pub(crate) fn name(self) -> String {
        let letter = if self.role == Role::Publisher { 'p' } else { 'w' };
        format!("{letter}{}", self.number)
    }
}

/// What all processes are told.
pub(crate) struct Orders {
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    pub(crate) rate: u32,
    pub(crate) replicas: u32,
    pub(crate) plant: Option<String>,
    pub(crate) publisher_url: String,
    pub(crate) worker_url: String,
}

/// The processes. They are killed when it is dropped.
pub(crate) struct Crew {
    orders: Orders,
    members: HashMap<Slot, Member>,
    /// How many processes each place has had.
    lives: HashMap<Slot, u32>,
    /// Processes that ended by themselves, and were replaced.
    pub(crate) died: u64,
}

struct Member {
    name: String,
    child: Child,
    input: ChildStdin,
    /// Nobody replaces it when it ends.
    is_to_end: bool,
    is_frozen: bool,
}

impl Crew {
    pub(crate) fn new(orders: Orders) -> Self {
        Self { orders, members: HashMap::new(), lives: HashMap::new(), died: 0 }
    }

    /// Starts a process; its place is free.
    pub(crate) fn start(&mut self, slot: Slot) -> Result<()> {
        let life = self.lives.entry(slot).or_default();
        let name = format!("{}-{life}", slot.name());
        *life += 1;
        let orders = &self.orders;
        let path = |ending: &str| orders.folder.join(format!("{name}.{ending}"));
        let (verb, url) = match slot.role {
            Role::Publisher => ("publisher", &orders.publisher_url),
            Role::Worker => ("worker", &orders.worker_url),
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(verb).arg("--url").arg(url).arg("--name").arg(&name);
        command.arg("--history").arg(path("ndjson"));
        command.arg("--seed").arg(mix(orders.seed, &name).to_string());
        command.arg("--rate").arg(orders.rate.to_string());
        command.arg("--replicas").arg(orders.replicas.to_string());
        if let Some(plant) = &orders.plant {
            let lease = plants::lease(plant).unwrap_or(LEASE);
            command.arg("--lease-ms").arg(lease.as_millis().to_string());
            command.env("RUMORMILL_PLANT", plant);
        }
        command.env("RUST_BACKTRACE", "0").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(path("log"))?);
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("its input is a pipe")?;
        let member = Member { name, child, input, is_to_end: false, is_frozen: false };
        self.members.insert(slot, member);
        Ok(())
    }

    /// Replaces what ended by itself, as any supervisor does.
    pub(crate) fn tend(&mut self) -> Result<()> {
        let ended = |(slot, member): (&Slot, &mut Member)| {
            let ended = !member.is_to_end && !matches!(member.child.try_wait(), Ok(None));
            ended.then_some(*slot)
        };
        let ended: Vec<Slot> = self.members.iter_mut().filter_map(ended).collect();
        for slot in ended {
            self.died += 1;
            self.start(slot)?;
        }
        Ok(())
    }

    fn member(&mut self, slot: Slot) -> Result<&mut Member> {
        self.members.get_mut(&slot).ok_or_else(|| format!("there is no {}", slot.name()).into())
    }

    pub(crate) fn id(&mut self, slot: Slot) -> Result<u32> {
        Ok(self.member(slot)?.child.id().ok_or("it has ended")?)
    }

    /// As `kill -9` does; nobody takes its place.
    pub(crate) async fn kill(&mut self, slot: Slot) -> Result<()> {
        let member = self.member(slot)?;
        member.is_to_end = true;
        Ok(member.child.kill().await?)
    }

    /// Tells it to end, and waits; nobody takes its place. False where it had to be killed.
    pub(crate) async fn terminate(&mut self, slot: Slot) -> Result<bool> {
        Ok(self.terminate_all(&[slot], END).await?.is_empty())
    }

    /// Tells them to end, all at once, and waits; nobody takes their places. Gives those that had
    /// to be killed.
    pub(crate) async fn terminate_all(
        &mut self,
        slots: &[Slot],
        patience: Duration,
    ) -> Result<Vec<Slot>> {
        for slot in slots {
            let member = self.member(*slot)?;
            member.is_to_end = true;
            if let Some(id) = member.child.id() {
                send_signal(id, Signal::TERM)?;
            }
        }
        let deadline = Instant::now() + patience;
        let mut killed = Vec::new();
        for slot in slots {
            let child = &mut self.member(*slot)?.child;
            if timeout_at(deadline, child.wait()).await.is_err() {
                child.kill().await?;
                killed.push(*slot);
            }
        }
        Ok(killed)
    }

    pub(crate) fn freeze(&mut self, slot: Slot) -> Result<()> {
        let id = self.id(slot)?;
        self.member(slot)?.is_frozen = true;
        send_signal(id, Signal::STOP)
    }

    pub(crate) fn thaw(&mut self, slot: Slot) -> Result<()> {
        let member = self.member(slot)?;
        if std::mem::take(&mut member.is_frozen)
            && let Some(id) = member.child.id()
        {
            send_signal(id, Signal::CONT)?;
        }
        Ok(())
    }

    /// Thaws and starts whatever does not run.
    pub(crate) fn restore(&mut self) -> Result<()> {
        let slots: Vec<Slot> = self.members.keys().copied().collect();
        for slot in slots {
            self.thaw(slot)?;
            let member = self.member(slot)?;
            if !matches!(member.child.try_wait(), Ok(None)) {
                self.start(slot)?;
            }
        }
        Ok(())
    }

    /// Has a publisher publish an event of this act.
    pub(crate) async fn order(&mut self, slot: Slot, act: Act) -> Result<()> {
        let mut line = serde_json::to_string(&act)?.replace('"', "");
        line.push('\n');
        let input = &mut self.member(slot)?.input;
        Ok(timeout(Duration::from_secs(1), input.write_all(line.as_bytes())).await??)
    }

    /// The running processes by their names.
    pub(crate) fn running(&self) -> Vec<(String, u32)> {
        let running = |member: &Member| Some((member.name.clone(), member.child.id()?));
        self.members.values().filter_map(running).collect()
    }

    /// The known bug that the processes have.
    pub(crate) fn plant(&self) -> Option<&str> {
        self.orders.plant.as_deref()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.orders.folder
    }
}

/// A seed of its own for each process.
fn mix(seed: u64, name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed)
}
