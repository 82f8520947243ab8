//! `bus-cli services`: what this binary runs, and what the server knows of it and of others.

mod detail;

use std::collections::BTreeMap;
use std::io::stderr;
use std::time::Duration;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use rumormill::bus::OptionsDescription;
use rumormill::driver::admin::{ConsumerReport, GroupReport};
use rumormill::service::{Outline, OutlinedRoute};
use rumormill::{Bus, Clock, ServiceOptions, SystemClock, Timestamp};
use serde_json::{Value, json};

use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::progress::human;
use crate::settings::Connection;
use crate::table::{Column, Table};

/// Show the services of this binary and of the server: routes, versions, consumers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bus-cli services                   everything the server knows, and what this binary runs
  my-bus services email              one service: middleware in order, options, consumers
  my-bus services --linked           without asking a server")]
pub(crate) struct ServicesArgs {
    /// One service, in detail
    #[arg(value_name = "SERVICE")]
    name: Option<String>,
    /// Only what this binary runs; no server is asked
    #[arg(long, env = "BUS_SERVICES_LINKED", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    linked: bool,
}

/// What to show.
pub(crate) struct Services {
    name: Option<String>,
    linked: bool,
    format: Format,
}

/// A service, as this binary and the server know it.
#[derive(Default)]
struct Known {
    linked: Option<Linked>,
    server: Option<GroupReport>,
}

/// A service of this binary.
struct Linked {
    place: &'static str,
    outline: Outline,
}

/// Services by name.
type All = BTreeMap<String, Known>;

impl Services {
    pub(crate) fn new(args: ServicesArgs, format: Format) -> Self {
        let ServicesArgs { name, linked } = args;
        Self { name, linked, format }
    }

    pub(crate) async fn run(self, connection: &Connection) -> Result<Exit, Failure> {
        let mut all = linked()?;
        let mut exit = Exit::Done;
        if !self.linked {
            match asked(connection, &mut all).await {
                Ok(()) => {}
                // What is linked is known all the same.
                Err(failure) if !all.is_empty() => {
                    failure.print(&connection.address, &mut stderr());
                    exit = failure.exit;
                }
                Err(failure) => return Err(failure),
            }
        }
        if let Some(name) = &self.name {
            let known = all.keys().cloned().collect::<Vec<_>>();
            all.retain(|service, _| service == name);
            if all.is_empty() && exit == Exit::Done {
                return Err(unknown(name, &known));
            }
        }
        self.show(&all)?;
        Ok(exit)
    }

    fn show(&self, all: &All) -> Result<Exit, Failure> {
        let now = SystemClock.now();
        if self.name.is_some() && self.format == Format::Pretty {
            let parts = all.iter().map(|(name, known)| detail::text(name, known, now));
            return crate::table::write(&parts.collect::<Vec<_>>().join("\n"));
        }
        let objects: Vec<Value> = all.iter().map(|(name, known)| object(name, known)).collect();
        if self.format == Format::Raw {
            let names = all.keys().map(|name| format!("{name}\n"));
            return crate::table::write(&names.collect::<String>());
        }
        table(all, now).print(self.format, &objects)
    }
}

fn linked() -> Result<All, Failure> {
    let mut all = All::new();
    for registration in Bus::registered() {
        let (name, place) = (registration.name(), registration.place());
        let outline = registration.outline().map_err(|error| {
            Failure::library(format!("service {name}, registered at {place}"), &error)
        })?;
        all.entry(name.to_owned()).or_default().linked = Some(Linked { place, outline });
    }
    Ok(all)
}

/// Adds what the server knows.
async fn asked(connection: &Connection, all: &mut All) -> Result<(), Failure> {
    let bus = crate::connect(connection).await?;
    let answer = ask(&bus, all).await;
    crate::close(&bus).await;
    answer.map_err(|error| Failure::library("cannot ask for the services", &error))
}

async fn ask(bus: &Bus, all: &mut All) -> Result<(), rumormill::Error> {
    // A driver without a server knows nothing besides.
    let Some(admin) = bus.driver().admin() else { return Ok(()) };
    for group in admin.groups().await? {
        let report = admin.group(&group).await?;
        all.entry(group.to_string()).or_default().server = Some(report);
    }
    Ok(())
}

fn unknown(name: &str, known: &[String]) -> Failure {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Failure::failed(format!("service {name:?} is neither linked here nor known to the server"))
        .with_help(format!("known: {known}"))
}

/// One route of a service, from both sides.
struct Row {
    pattern: String,
    version: String,
    seen: Option<Timestamp>,
}

/// What both sides say of a route; `Some(None)` is any version.
#[derive(Default)]
struct Sides {
    here: Option<Option<u32>>,
    there: Option<Option<u32>>,
    seen: Option<Timestamp>,
}

impl Sides {
    fn version(&self) -> String {
        let shown = |version: Option<u32>| version.map_or("any".to_owned(), |n| n.to_string());
        match (self.here, self.there) {
            (Some(here), Some(there)) if here != there => {
                format!("{} here, {} there", shown(here), shown(there))
            }
            (Some(version), _) | (None, Some(version)) => shown(version),
            (None, None) => String::new(),
        }
    }
}

fn rows(known: &Known) -> Vec<Row> {
    let mut routes: BTreeMap<String, Sides> = BTreeMap::new();
    for route in known.linked.iter().flat_map(|linked| &linked.outline.routes) {
        routes.entry(route.pattern.to_string()).or_default().here = Some(route.version);
    }
    for route in known.server.iter().flat_map(|report| &report.routes) {
        let sides = routes.entry(route.pattern.to_string()).or_default();
        (sides.there, sides.seen) = (Some(route.version), route.last_seen);
    }
    let row = |(pattern, sides): (String, Sides)| {
        let version = sides.version();
        Row { pattern, version, seen: sides.seen }
    };
    routes.into_iter().map(row).collect()
}

fn live(known: &Known) -> String {
    let Some(report) = &known.server else { return "-".to_owned() };
    report.consumers.iter().filter(|consumer| consumer.live).count().to_string()
}

fn table(all: &All, now: Timestamp) -> Table {
    let columns = [
        Column::left("SERVICE"),
        Column::right("LIVE"),
        Column::left("ROUTE"),
        Column::left("VERSION"),
        Column::left("SEEN"),
        Column::path("LINKED"),
    ];
    let mut table = Table::new(columns)
        .or_say("no service is linked into this binary, and none known to the server");
    for (name, known) in all {
        let place = known.linked.as_ref().map_or("-", |linked| linked.place);
        let rows = rows(known);
        let nothing = Row { pattern: "-".to_owned(), version: "-".to_owned(), seen: None };
        let rows = if rows.is_empty() { vec![nothing] } else { rows };
        for Row { pattern, version, seen } in rows {
            table.row([name.clone(), live(known), pattern, version, ago(seen, now), place.into()]);
        }
    }
    table
}

/// How long ago something was.
fn ago(time: Option<Timestamp>, now: Timestamp) -> String {
    match time {
        Some(time) => {
            let millis = now.as_millis().saturating_sub(time.as_millis());
            format!("{} ago", human(Duration::from_millis(millis)))
        }
        None => "-".to_owned(),
    }
}

fn object(name: &str, known: &Known) -> Value {
    let Known { linked, server } = known;
    let linked = linked.as_ref().map(|linked| {
        let Outline { routes, options } = &linked.outline;
        json!({
            "place": linked.place,
            "routes": routes.iter().map(route).collect::<Vec<_>>(),
            "options": options_of(options),
        })
    });
    let server = server.as_ref().map(|report| {
        let GroupReport { routes, consumers, .. } = report;
        json!({ "routes": routes, "consumers": consumers })
    });
    json!({ "service": name, "linked": linked, "server": server })
}

fn route(route: &OutlinedRoute) -> Value {
    let OutlinedRoute { pattern, version, filter, concurrency, batch, middleware } = route;
    let batch = batch
        .map(|batch| json!({ "size": batch.size, "linger_ms": batch.linger.as_millis() as u64 }));
    json!({
        "pattern": pattern.to_string(), "version": version, "filter": filter,
        "concurrency": concurrency, "batch": batch, "middleware": middleware,
    })
}

/// The options by their names, durations in milliseconds.
fn options_of(options: &ServiceOptions) -> serde_json::Map<String, Value> {
    match serde_json::to_value(OptionsDescription::from(options)) {
        Ok(Value::Object(options)) => options,
        _ => unreachable!("a struct of numbers and texts is an object"),
    }
}

/// The consumers of a group, live ones first.
fn consumers(report: &GroupReport) -> Vec<&ConsumerReport> {
    let mut consumers: Vec<_> = report.consumers.iter().collect();
    consumers.sort_by_key(|consumer| (!consumer.live, &consumer.name));
    consumers
}
