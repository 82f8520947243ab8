//! A real server per test: started in a directory of its own, on a Unix socket, killed on drop.
//!
//! Used by several tests (`mod server;`), none of which needs all of it.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// How long a server may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The configuration file, where a server has one.
const FILE: &str = "server.conf";

/// A running server. Its data outlive a kill: [`Server::restart`] begins on the same directory.
pub struct Server {
    directory: TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// An answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Int(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
    Error(String),
}

impl Server {
    /// A server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&["--appendonly", "no"])
    }

    /// A server that acknowledges nothing it has not synced.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A server with settings of the caller's.
    pub fn with(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), arguments)
    }

    /// A server with a configuration file that it may write, which a sentinel needs.
    pub fn with_file(text: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join(FILE), text).expect("a file");
        Self::start_in(directory, arguments)
    }

    fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut server = Self { directory, arguments, child: None };
        server.restart();
        server
    }

    /// Starts the server again after [`Server::kill`], and waits until it has read its files.
    pub fn restart(&mut self) {
        self.restart_with(&[]);
        let loads = |reply| matches!(reply, Some(Reply::Error(why)) if why.starts_with("LOADING"));
        for _ in 0..PATIENCE.as_millis() / 5 {
            if !loads(self.try_ask(&["PING"])) {
                return;
            }
            // waits: for what the server had written, with a deadline
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not get its files read:\n{}", self.log());
    }

    /// Starts the server again with settings that hold until it ends.
    pub fn restart_with(&mut self, settings: &[&str]) {
        assert!(self.child.is_none(), "the server still runs");
        let log = std::fs::File::create(self.path("log")).expect("a log file");
        let _stale = std::fs::remove_file(self.socket());
        let mut command = Command::new(program());
        command.args(Some(self.path(FILE)).filter(|file| file.exists()));
        // Later settings replace earlier ones.
        command.arg("--port").arg("0").arg("--unixsocket").arg(self.socket());
        command.arg("--dir").arg(self.directory.path()).arg("--save").arg("");
        command.args(&self.arguments).args(settings);
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a log file")).stdout(log);
        self.child = Some(command.spawn().expect("the server starts"));
        self.wait();
    }

    fn wait(&mut self) {
        for _ in 0..PATIENCE.as_millis() / 5 {
            let exited = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(exited.is_none(), "the server ended at once:\n{}", self.log());
            // A server that wants a password answers as well, and one that still reads its files.
            if let Some(Reply::Text(_) | Reply::Error(_)) = self.try_ask(&["PING"]) {
                return;
            }
            // waits: for the server's first answer, with a deadline
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the server does not answer:\n{}", self.log());
    }

    /// Kills the server as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server ends");
        }
    }

    /// Stops the server in its tracks: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a stopped server go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("the server runs").id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success(), "signal {signal}");
    }

    /// The url of the server.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The path of the server's socket.
    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// A file or folder in the server's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// One command on a connection of its own; an error fails the test.
    pub fn ask(&self, command: &[impl AsRef<[u8]>]) -> Reply {
        match self.try_ask(command) {
            Some(Reply::Error(error)) => panic!("{error}"),
            Some(reply) => reply,
            None => panic!("the server does not answer:\n{}", self.log()),
        }
    }

    /// One command, words separated by blanks.
    pub fn say(&self, command: &str) -> Reply {
        self.ask(&command.split_whitespace().collect::<Vec<_>>())
    }

    /// One command; nothing where the server does not answer.
    pub fn try_ask(&self, command: &[impl AsRef<[u8]>]) -> Option<Reply> {
        let mut session = self.session()?;
        session.send(command)?;
        session.answer()
    }

    /// A connection that is kept; nothing where the server does not accept it.
    pub fn session(&self) -> Option<Session> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Session(BufReader::new(stream)))
    }

    /// How often a command was called since the server started, or since `CONFIG RESETSTAT`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.say("INFO commandstats").text();
        let prefix = format!("cmdstat_{}:calls=", command.to_lowercase());
        let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        let number = line.and_then(|line| line.split(',').next());
        number.map_or(0, |number| number.parse().expect("a number"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

/// A connection to a server.
pub struct Session(BufReader<UnixStream>);

impl Session {
    /// Sends a command and does not wait.
    pub fn send(&mut self, command: &[impl AsRef<[u8]>]) -> Option<()> {
        let mut out = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            out.extend(format!("${}\r\n", word.as_ref().len()).bytes());
            out.extend_from_slice(word.as_ref());
            out.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&out).ok()
    }

    /// The next answer.
    pub fn answer(&mut self) -> Option<Reply> {
        read(&mut self.0)
    }

    /// One command, words separated by blanks; an error fails the test.
    pub fn say(&mut self, command: &str) -> Reply {
        self.send(&command.split_whitespace().collect::<Vec<_>>()).expect("the server listens");
        match self.answer() {
            Some(Reply::Error(error)) => panic!("{command}: {error}"),
            Some(reply) => reply,
            None => panic!("no answer to {command}"),
        }
    }
}

impl Reply {
    /// The number.
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    /// The text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?} is no text"),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            other => panic!("{other:?} is no text"),
        }
    }

    /// The elements.
    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let rest = line.trim_end().get(1..)?;
    let length = || rest.parse::<i64>().ok();
    Some(match line.as_bytes().first()? {
        b'+' => Reply::Text(rest.as_bytes().to_vec()),
        b'-' => Reply::Error(rest.to_owned()),
        b':' => Reply::Int(length()?),
        b'$' => match usize::try_from(length()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).ok()?;
                bytes.truncate(length);
                Reply::Text(bytes)
            }
        },
        b'*' => match usize::try_from(length()?) {
            Err(_) => Reply::Nil,
            Ok(length) => Reply::List((0..length).map(|_| read(stream)).collect::<Option<_>>()?),
        },
        _ => return None,
    })
}

/// The server to test with: `$REDIS_SERVER`, else one on the path.
pub fn program() -> String {
    let named = std::env::var("REDIS_SERVER").ok().filter(|name| !name.is_empty());
    let candidates = named.into_iter().chain(["redis-server".into(), "valkey-server".into()]);
    let runs = |name: &String| {
        let mut command = Command::new(name);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let mut candidates = candidates;
    candidates.find(runs).unwrap_or_else(|| {
        panic!(
            "no redis-server and no valkey-server was found: run `scripts/test`, which brings one, \
             or set REDIS_SERVER"
        )
    })
}
