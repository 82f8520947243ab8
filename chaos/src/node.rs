//! A server process with a folder and a socket of its own.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::Result;
use crate::session::{PATIENCE, Reply, Session};

/// How long a server may load its files.
const START: Duration = Duration::from_secs(30);

/// A server. It is killed when it is dropped; its folder stays.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Its data, its log, and what the shim notes.
    folder: PathBuf,
    /// Of its socket: the path of one has hardly a hundred bytes.
    sockets: TempDir,
    pub(crate) port: u16,
    settings: Vec<String>,
    shim: Option<PathBuf>,
    child: Option<Child>,
    operator: Option<Session>,
    is_frozen: bool,
}

impl Node {
    /// Starts a server. `port` 0 is none: then it has its socket alone.
    pub(crate) async fn start(
        folder: &Path,
        port: u16,
        settings: &[&str],
        shim: Option<PathBuf>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut node = Self {
            name: name.unwrap_or_default(),
            folder: folder.canonicalize()?,
            sockets: tempfile::tempdir()?,
            port,
            settings: settings.iter().map(ToString::to_string).collect(),
            shim,
            child: None,
            operator: None,
            is_frozen: false,
        };
        node.restart(&[]).await?;
        Ok(node)
    }

    /// Starts it again after it ended, with settings that hold until it ends again; returns when
    /// it has read its files.
    pub(crate) async fn restart(&mut self, settings: &[&str]) -> Result<()> {
        self.launch(settings)?;
        self.until_loaded().await
    }

    /// Starts it again, and does not wait.
    pub(crate) fn launch(&mut self, settings: &[&str]) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        let _stale = fs::remove_file(self.socket());
        // The shim counts from the start of its process.
        let _stale = fs::remove_file(self.path("shim.hits"));
        let mut command = Command::new(program()?);
        let file = self.path("server.conf");
        command.args(Some(&file).filter(|file| file.exists()));
        // Later settings replace earlier ones.
        command.arg("--port").arg(self.port.to_string()).arg("--unixsocket").arg(self.socket());
        command.arg("--dir").arg(&self.folder).args(&self.settings).args(settings);
        if let Some(shim) = &self.shim {
            command.env("LD_PRELOAD", shim).env("CHAOS_SHIM_FOLDER", &self.folder);
        }
        command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log).kill_on_drop(true);
        self.child = Some(command.spawn()?);
        (self.operator, self.is_frozen) = (None, false);
        Ok(())
    }

    /// Returns when it answers and has read its files.
    pub(crate) async fn until_loaded(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while !matches!(self.ask(&["PING"]).await, Ok(Reply::Text(_))) {
            self.operator = None;
            if !self.is_running() || Instant::now() > deadline {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(format!("{} does not start: {}", self.name, last.join(" / ")).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    /// Tells it to end, and waits.
    pub(crate) async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    async fn ended(&mut self) -> Result<()> {
        (self.operator, self.is_frozen) = (None, false);
        if let Some(mut child) = self.child.take() {
            timeout(PATIENCE, child.wait()).await??;
        }
        Ok(())
    }

    /// Stops it in its tracks: connections stay open, nothing is answered.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        self.is_frozen = true;
        self.signal(Signal::STOP)
    }

    pub(crate) fn thaw(&mut self) -> Result<()> {
        self.is_frozen = false;
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().and_then(Child::id).ok_or("the server does not run")?;
        send_signal(id, signal)
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.sockets.path().join("s")
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Its address for a client of this machine that may do everything.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A connection of its own.
    pub(crate) async fn session(&self) -> Result<Session> {
        Session::open(&self.socket()).await
    }

    /// One command on the operator's connection, which is made anew where it is lost.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<Reply> {
        let mut session = match self.operator.take() {
            Some(session) => session,
            None => self.session().await?,
        };
        let answer = session.ask(command).await;
        let is_lost = answer.as_ref().is_err_and(|error| {
            let text = error.to_string();
            text.contains("closed the connection") || text.contains("os error")
        });
        if is_lost {
            // An idle connection may have been killed.
            let mut session = self.session().await?;
            let answer = session.ask(command).await;
            self.operator = Some(session);
            return answer;
        }
        self.operator = Some(session);
        answer
    }

    /// One command, words separated by blanks.
    pub(crate) async fn say(&mut self, command: &str) -> Result<Reply> {
        self.ask(&command.split(' ').collect::<Vec<_>>()).await
    }

    /// How often each error was answered since the server started.
    pub(crate) async fn errors(&mut self) -> Result<HashMap<String, u64>> {
        let info = self.say("INFO errorstats").await?;
        let line = |line: &str| {
            let (name, count) = line.strip_prefix("errorstat_")?.split_once(":count=")?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        Ok(info.text().lines().filter_map(line).collect())
    }

    /// A line of `INFO`.
    pub(crate) async fn info(&mut self, name: &str) -> Result<String> {
        let info = self.say("INFO everything").await?;
        let prefix = format!("{name}:");
        let line = info.text().lines().find_map(|line| line.strip_prefix(&prefix));
        Ok(line.unwrap_or_default().trim().to_owned())
    }
}

/// Sends a signal to a process of this harness.
pub(crate) fn send_signal(id: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or("no such process")?;
    Ok(kill_process(id, signal)?)
}

/// The server to run: `$REDIS_SERVER`, else one on the path.
pub(crate) fn program() -> Result<String> {
    let named = std::env::var("REDIS_SERVER").ok().filter(|name| !name.is_empty());
    let mut names = named.into_iter().chain(["redis-server".into(), "valkey-server".into()]);
    let runs = |name: &String| {
        let mut command = std::process::Command::new(name);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let help = "no redis-server and no valkey-server was found: set REDIS_SERVER";
    names.find(runs).ok_or_else(|| help.into())
}
