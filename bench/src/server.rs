//! Servers on loopback, started for a round and stopped after it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::Error;
use crate::measure::cpu_ns_of;
use crate::peers::Needs;

/// How long a server may take to listen: polls of 10 ms.
const POLLS_MAX: usize = 12_000;

/// A server at work; stopped on drop.
pub(crate) struct Server {
    child: Child,
    port: u16,
    needs: Needs,
    /// Of the name service that Erlang starts beside it.
    names_port: u16,
    directory: TempDir,
}

/// The program for a need, where it is found: by its variable, or on the path.
pub(crate) fn program(needs: Needs) -> Option<PathBuf> {
    let (variable, names): (_, &[&str]) = match needs {
        Needs::Redis => ("REDIS_SERVER", &["redis-server", "valkey-server"]),
        Needs::NatsFile | Needs::NatsMemory => ("NATS_SERVER", &["nats-server"]),
        Needs::Rabbit => ("RABBITMQ_SERVER", &["rabbitmq-server"]),
        Needs::Nothing => return None,
    };
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&path);
    candidates
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|program| program.is_file())
}

/// What a server's program says of its version, in one line.
pub(crate) fn version(needs: Needs) -> Option<String> {
    let program = program(needs)?;
    if needs == Needs::Rabbit {
        // To ask would start a node's name service. Its folder is called `rabbitmq_server-3.10.8`.
        let path = program.canonicalize().ok()?.to_string_lossy().into_owned();
        let folder = path.split('/').find_map(|part| part.strip_prefix("rabbitmq_server-"));
        return Some(
            folder.map_or_else(|| "RabbitMQ".to_owned(), |name| format!("RabbitMQ {name}")),
        );
    }
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Server {
    /// Starts one; a Redis may append to a file.
    pub(crate) fn start(needs: Needs, everysec: bool) -> Result<Self, Error> {
        let program = program(needs).ok_or("there is no such server here")?;
        let directory = tempfile::tempdir()?;
        let (port, names_port) = (free_port()?, free_port()?);
        let mut command = Command::new(program);
        match needs {
            Needs::Redis => {
                command.args(["--save", "", "--bind", "127.0.0.1", "--appendfsync", "everysec"]);
                command.args(["--appendonly", if everysec { "yes" } else { "no" }]);
                command.arg("--port").arg(port.to_string()).arg("--dir").arg(directory.path());
            }
            Needs::NatsFile | Needs::NatsMemory => {
                command.args(["--addr", "127.0.0.1", "--jetstream"]);
                command.arg("--port").arg(port.to_string());
                command.arg("--store_dir").arg(directory.path());
            }
            Needs::Rabbit => rabbit(&mut command, &directory, port, names_port)?,
            Needs::Nothing => return Err("it needs no server".into()),
        }
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self { child: quiet.spawn()?, port, needs, names_port, directory };
        server.wait()?;
        Ok(server)
    }

    fn wait(&self) -> Result<(), Error> {
        for _ in 0..POLLS_MAX {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            // waits: for the server to listen
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the server does not listen".into())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address, or that of a proxy before it.
    pub(crate) fn url(&self, port: u16) -> String {
        match self.needs {
            Needs::Redis | Needs::Nothing => format!("redis://127.0.0.1:{port}"),
            Needs::NatsFile | Needs::NatsMemory => format!("nats://127.0.0.1:{port}"),
            Needs::Rabbit => format!("amqp://127.0.0.1:{port}/%2f"),
        }
    }

    /// Stops it where it stands, so that it takes nothing from the others, or lets it go on.
    pub(crate) fn pause(&self, stop: bool) {
        let signal = if stop { "-STOP" } else { "-CONT" };
        for child in crate::measure::children(self.child.id()) {
            self.quietly("kill", &[signal, &child.to_string()]);
        }
    }

    fn quietly(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).env("ERL_EPMD_PORT", self.names_port.to_string());
        command.env("HOME", self.directory.path());
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// Nanoseconds of CPU that it took so far.
    pub(crate) fn cpu_ns(&self) -> u64 {
        cpu_ns_of(self.child.id())
    }
}

/// A node of its own, with its own name service, below `directory`.
fn rabbit(
    command: &mut Command,
    directory: &TempDir,
    port: u16,
    names_port: u16,
) -> Result<(), Error> {
    let below = |name: &str| directory.path().join(name);
    std::fs::write(below("rabbitmq.conf"), format!("listeners.tcp.1 = 127.0.0.1:{port}\n"))?;
    command.env("RABBITMQ_NODENAME", format!("bench{port}@localhost"));
    command.env("RABBITMQ_CONFIG_FILE", below("rabbitmq.conf"));
    command.env("RABBITMQ_ENABLED_PLUGINS_FILE", below("plugins"));
    command.env("RABBITMQ_MNESIA_BASE", below("data"));
    command.env("RABBITMQ_LOG_BASE", below("log"));
    command.env("RABBITMQ_PID_FILE", below("pid"));
    command.env("RABBITMQ_DIST_PORT", free_port()?.to_string());
    command.env("ERL_EPMD_PORT", names_port.to_string());
    command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
    command.env("ERL_EPMD_RELAXED_COMMAND_CHECK", "1");
    command.env("HOME", directory.path());
    Ok(())
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.needs == Needs::Rabbit {
            // The node is below a shell, and its name service is nobody's child.
            for child in crate::measure::children(self.child.id()) {
                self.quietly("kill", &["-KILL", &child.to_string()]);
            }
            self.quietly("epmd", &["-kill"]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
