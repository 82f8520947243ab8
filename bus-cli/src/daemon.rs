//! `bus-cli daemon`: runs the services that are linked into the binary until it is told to end,
//! then drains.

use std::convert::Infallible;
use std::future::pending;
use std::io::{Write, stderr};
use std::time::Duration;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use rumormill::driver::Maintained;
use rumormill::{Bus, DRAIN_DEADLINE, DrainReport, Services};
use tokio::time::timeout;

use crate::args::{Format, Level};
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::notify::notify;
use crate::settings::Connection;
use crate::signals::Signals;
use crate::table;

/// How often new topics and groups are looked for.
const MAINTAINED_EVERY: Duration = Duration::from_secs(15);

/// How often the health is looked at where nothing changes.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// What is mended within this is not told.
const HEALTH_PAUSE: Duration = Duration::from_millis(250);

/// Run the services linked into this binary until SIGTERM or ctrl-c, then drain
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  my-bus daemon                        every service of a binary of your own
  my-bus daemon --services email,push  some of them
  bus-cli daemon --maintenance         a stock binary: moves what is due

It writes `ready` to stderr once every group exists, and later `not ready: WHY` and `ready \
again`; it tells systemd as well (Type=notify). A second \
signal does not wait for what runs. It ends with 0, or with 3 where handlers were cancelled.")]
pub(crate) struct DaemonArgs {
    /// Which services to run; all, where nothing is said
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', env = "BUS_DAEMON_SERVICES")]
    services: Vec<String>,
    /// Move the delayed publishes and later attempts of every topic and group on the server,
    /// whether somebody runs them or not
    #[arg(long, env = "BUS_DAEMON_MAINTENANCE", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    maintenance: bool,
    /// How long running handlers may take to end
    #[arg(long, value_name = "DUR", env = "BUS_DAEMON_DEADLINE", default_value = "25s")]
    deadline: String,
    /// Start only where the store does at least this to keep an event
    #[arg(long, value_name = "LEVEL", env = "BUS_DAEMON_MIN_DURABILITY")]
    pub(crate) min_durability: Option<Level>,
}

/// What the daemon was asked to do.
pub(crate) struct Daemon {
    /// By name; the maintenance alone where there is none.
    services: Vec<String>,
    maintenance: bool,
    deadline: Duration,
    format: Format,
}

impl Daemon {
    /// Checks that there is something to run, before anything is connected.
    pub(crate) fn new(args: DaemonArgs, format: Format) -> Result<Self, Failure> {
        let DaemonArgs { services, maintenance, deadline, min_durability: _ } = args;
        let mut known: Vec<&str> = Bus::registered().map(|service| service.name()).collect();
        known.sort_unstable();
        if known.is_empty() && !maintenance {
            return Err(nothing_to_run());
        }
        if let Some(name) = services.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(not_registered(name, &known));
        }
        let all = || known.iter().map(ToString::to_string).collect();
        let services = if services.is_empty() { all() } else { services };
        let deadline = duration::parse("--deadline", &deadline)?;
        Ok(Self { services, maintenance, deadline, format })
    }

    pub(crate) async fn run(self, connection: &Connection) -> Result<Exit, Failure> {
        let mut signals = Signals::listen()
            .map_err(|error| Failure::failed("cannot listen to signals").because(&error))?;
        say(&format!("starting {} on {}", self.what(), connection.address));
        let bus = connection.bus().services(Services::only(self.services.clone()));
        let bus = bus.source(program()).build().await;
        let bus = bus.map_err(|error| Failure::connecting(&error))?;
        let started = tokio::select! {
            biased;
            started = self.start(&bus) => started.map(|()| true),
            signal = signals.next() => {
                say(&format!("ending: {signal} came before all was ready"));
                Ok(false)
            }
        };
        if !matches!(started, Ok(true)) {
            bus.drain(Duration::ZERO).await;
            return started.map(|_| Exit::Done);
        }
        say("ready");
        notify("READY=1");
        let signal = tokio::select! {
            signal = signals.next() => signal,
            never = tell_health(&bus) => match never {},
            never = maintain(&bus), if self.maintenance => match never {},
        };
        let Self { deadline, format, .. } = self;
        say(&format!("draining: {signal}; {deadline:?} for what runs, a second signal forces"));
        notify("STOPPING=1");
        let force = async {
            let signal = signals.next().await;
            say(&format!("forcing: {signal}"));
        };
        let report = bus.drain_or_force(deadline, force).await;
        say(if report.is_clean() { "drained" } else { "drained by force" });
        write(&report, format)?;
        Ok(if report.is_clean() { Exit::Done } else { Exit::Partly })
    }

    /// Returns when every group exists.
    async fn start(&self, bus: &Bus) -> Result<(), Failure> {
        let fail = |error| Failure::library("cannot start", &error);
        if !self.services.is_empty() {
            bus.start().await.map_err(fail)?;
        }
        if self.maintenance {
            let Maintained { topics, groups } = bus.driver().maintain().await.map_err(fail)?;
            say(&maintaining(topics, groups));
        }
        Ok(())
    }

    fn what(&self) -> String {
        let maintenance = self.maintenance.then(|| "maintenance".to_owned());
        let parts: Vec<String> = self.services.iter().cloned().chain(maintenance).collect();
        parts.join(", ")
    }
}

/// Says when the bus is not ready any more and why, and when it is again, for ever.
async fn tell_health(bus: &Bus) -> Infallible {
    let Some(mut changes) = bus.health_changes() else { return pending().await };
    let mut was: Option<String> = None;
    loop {
        // An answer that is overdue is no change: it is looked for.
        let _looked = timeout(HEALTH_EVERY, changes.next()).await;
        tokio::time::sleep(HEALTH_PAUSE).await;
        let reason = bus.health().reason();
        if reason == was {
            continue;
        }
        let line = match &reason {
            Some(reason) => format!("not ready: {reason}"),
            None => "ready again".to_owned(),
        };
        // Why it is not may change with every attempt; that it is not is said once.
        if was.is_none() || reason.is_none() {
            say(&line);
        }
        notify(&format!("STATUS={line}"));
        was = reason;
    }
}

/// Looks for new topics and groups for ever; says what changes.
async fn maintain(bus: &Bus) -> Infallible {
    let mut known = None;
    let mut failing = false;
    loop {
        tokio::time::sleep(MAINTAINED_EVERY).await;
        match bus.driver().maintain().await {
            Ok(found) => {
                failing = false;
                if known.is_some_and(|known| known != found) {
                    say(&maintaining(found.topics, found.groups));
                }
                known = Some(found);
            }
            Err(error) if !failing => {
                failing = true;
                say(&format!("maintenance fails: {error}"));
            }
            Err(_) => {}
        }
    }
}

fn maintaining(topics: usize, groups: usize) -> String {
    format!("maintaining {topics} topics and {groups} groups")
}

fn write(report: &DrainReport, format: Format) -> Result<Exit, Failure> {
    let DrainReport { finished, handed_over, forced, dropped } = report;
    match format {
        Format::Json => table::write(&table::json_lines(&[serde_json::json!({
            "finished": finished, "handed_over": handed_over, "forced": forced, "dropped": dropped,
        })])?),
        Format::Pretty | Format::Raw => table::write(&format!(
            "{finished} finished, {handed_over} handed over, {forced} forced, {dropped} dropped\n"
        )),
    }
}

/// One line on stderr. Where that is gone, nobody reads it.
fn say(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// The name of this binary: who publishes, as the events say.
fn program() -> String {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = name.as_deref().and_then(|path| path.file_stem());
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn nothing_to_run() -> Failure {
    Failure::usage("nothing to run: no service is linked into this binary").with_help(
        "make a binary of your own with `use your_services as _;` and `fn main() { \
         bus_cli::main() }`; or --maintenance moves what is due for services that run elsewhere",
    )
}

fn not_registered(name: &str, known: &[&str]) -> Failure {
    let known = if known.is_empty() { "none is".to_owned() } else { known.join(", ") };
    Failure::usage(format!("--services: {name:?} is not linked into this binary"))
        .with_help(format!("linked: {known}"))
}

const _: () = assert!(DRAIN_DEADLINE.as_secs() == 25, "the default of --deadline");
