//! The command line of rumormill: publish to and tail an event bus from a shell.
//!
//! [`main`] is the whole program, so that a binary of one's own gets the command line together
//! with the services that it links:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     bus_cli::main()
//! }
//! ```
//!
//! Arguments come in two stages: `args` is what was typed, `settings` is what it means. One
//! subcommand is one file. Errors say what was attempted, on which address, why it failed and what
//! to try; the exit codes are 0 done, 1 failed, 2 usage, 3 partly, 4 unreachable. A closed pipe is
//! success.

mod address;
mod args;
mod bench;
mod completions;
mod config;
mod daemon;
mod dead_letters;
mod doctor;
mod duration;
mod escape;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod json_text;
mod man;
mod metrics;
mod msgpack;
mod ndjson;
mod notify;
mod operate;
mod output;
mod progress;
mod prompt;
mod publish;
mod record;
mod replay;
mod services;
mod settings;
mod signals;
mod size;
mod table;
mod tail;
mod topics;

use std::io::{IsTerminal, stderr};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use rumormill::{Bus, Confirm};
use tokio::runtime::Builder;

use crate::config::File;
use crate::failure::{Exit, Failure};
use crate::settings::{Connection, Settings, Task};

/// Who published, where nothing else says so.
const SOURCE: &str = "bus-cli";

/// Runs the command line of this process and says how it went.
pub fn main() -> ExitCode {
    let settings = match settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let shown = settings.connection.address.clone();
    let exit =
        log_to_stderr(&settings.task).and_then(|()| run(settings)).unwrap_or_else(|failure| {
            failure.print(&shown, &mut stderr());
            failure.exit
        });
    exit.into()
}

/// What was asked for; or, where it is no task, the code to end with.
fn settings() -> Result<Settings, ExitCode> {
    read_settings().map_err(|refusal| match refusal {
        Refusal::Clap(error) => {
            // Help and version are no error. Where even printing fails, the code still tells.
            let _ = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            exit.into()
        }
        Refusal::Failure(failure) => {
            failure.print(&address::Address::none(), &mut stderr());
            failure.exit.into()
        }
    })
}

enum Refusal {
    Clap(clap::Error),
    Failure(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Looks for the configuration file first: what it says stands below flags and environment.
fn read_settings() -> Result<Settings, Refusal> {
    let root = args::Args::command();
    // Help and version are errors to clap; they need no file.
    let scan = root.clone().ignore_errors(true).try_get_matches().unwrap_or_default();
    let Some(path) = config::path(&scan) else {
        let matches = root.try_get_matches().map_err(Refusal::Clap)?;
        return Ok(understand(&matches, None)?);
    };
    let file = File::read(&path, &root)?;
    let matches = file.apply(root).try_get_matches().map_err(|error| {
        file.refused(&error, &scan).map_or(Refusal::Clap(error), Refusal::Failure)
    })?;
    Ok(understand(&matches, Some(&file)).map_err(|failure| file.explain(failure, &scan))?)
}

fn understand(matches: &clap::ArgMatches, file: Option<&File>) -> Result<Settings, Failure> {
    let args = args::Args::from_arg_matches(matches);
    let args = args.map_err(|error| Failure::usage(error.to_string()))?;
    Settings::new(args, matches, file)
}

/// Warnings of the library, on stderr; of a daemon, what else changes, too. `RUST_LOG` asks for
/// more.
fn log_to_stderr(task: &Task) -> Result<(), Failure> {
    use tracing_subscriber::EnvFilter;
    let quiet = if matches!(task, Task::Daemon(_)) { "warn,rumormill=info" } else { "warn" };
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    let filter = EnvFilter::builder().parse_lossy(asked.as_deref().unwrap_or(quiet));
    let plain = anstream::AutoStream::choice(&stderr()) == anstream::ColorChoice::Never;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal() && !plain)
        .with_writer(stderr);
    subscriber.try_init().map_err(|error| Failure::failed("cannot write a log").because(&*error))
}

fn run(settings: Settings) -> Result<Exit, Failure> {
    // Without a provider every `rediss://` address would panic. A second one is refused, which is
    // what a program that brought its own wants.
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Handlers may use every core; a tool needs one.
    let mut builder = match settings.task {
        Task::Daemon(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("cannot start the runtime").because(&error))?;
    let exit = runtime.block_on(perform(settings));
    // A reader of stdin may still wait for a line that nobody needs.
    runtime.shutdown_background();
    exit
}

async fn perform(settings: Settings) -> Result<Exit, Failure> {
    let Settings { connection, task } = settings;
    match task {
        Task::Config(task) => task.run(),
        Task::Services(task) => task.run(&connection).await,
        Task::Daemon(task) => task.run(&connection).await,
        Task::Operate(task) => task.run(&connection).await,
        Task::Doctor(task) => task.run(&connection).await,
        Task::Bench(task) => task.run(&connection).await,
        Task::Completions(shell) => completions::run(shell),
        Task::Man(out) => man::run(&out),
        Task::Publish(task) => {
            // What cannot be read needs no connection.
            let (dry_run, confirm) = (task.dry_run, task.confirm);
            let job = publish::Job::new(task)?;
            if dry_run {
                return job.rehearse().await;
            }
            let bus = connect_with(&connection, confirm).await?;
            let exit = job.run(&bus, &connection.address).await;
            close(&bus).await;
            exit
        }
        Task::Record(task) => {
            let bus = connect(&connection).await?;
            let exit = task.run(&bus, &connection.address).await;
            close(&bus).await;
            exit
        }
        Task::Replay(task) => {
            let job = task.prepare().await?;
            let bus = connect(&connection).await?;
            let exit = job.run(&bus, &connection.address).await;
            close(&bus).await;
            exit
        }
        Task::Tail(task) => {
            let bus = connect(&connection).await?;
            let exit = tail::run(&task, &bus, &connection.address).await;
            close(&bus).await;
            exit
        }
    }
}

async fn connect(connection: &Connection) -> Result<Bus, Failure> {
    connect_with(connection, Confirm::Server).await
}

async fn connect_with(connection: &Connection, confirm: Confirm) -> Result<Bus, Failure> {
    let connected = connection.bus().source(SOURCE).confirm(confirm).build().await;
    connected.map_err(|error| Failure::connecting(&error))
}

async fn close(bus: &Bus) {
    bus.drain(std::time::Duration::ZERO).await;
}
