//! One service for people: what it routes, what wraps its handlers, how it is run, who runs it.

use std::fmt::Write;

use rumormill::Timestamp;
use rumormill::service::OutlinedRoute;
use serde_json::Value;

use super::{Known, Linked, ago, consumers, options_of, rows};
use crate::escape::escape;
use crate::table::{Column, Screen, Table};

pub(super) fn text(name: &str, known: &Known, now: Timestamp) -> String {
    let mut text = format!("service     {}\n", escape(name));
    match &known.linked {
        Some(Linked { place, .. }) => {
            let _ = writeln!(text, "linked      {place}");
        }
        None => text += "linked      not into this binary\n",
    }
    text += "\n";
    text += &routes(known, now).render(Screen::stdout());
    if let Some(Linked { outline, .. }) = &known.linked {
        text += "\n";
        text += &around(&outline.routes).render(Screen::stdout());
    }
    if let Some(Linked { outline, .. }) = &known.linked {
        text += "\n";
        let mut table = Table::new([Column::left("OPTION"), Column::left("VALUE")]);
        for (name, value) in options_of(&outline.options) {
            let value = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            table.row([name, value]);
        }
        text += &table.render(Screen::stdout());
    }
    if let Some(report) = &known.server {
        text += "\n";
        let columns = [
            Column::left("CONSUMER"),
            Column::left("STATE"),
            Column::left("HEARD OF"),
            Column::right("PENDING"),
        ];
        let mut table = Table::new(columns).or_say("no consumer is known to the server");
        for consumer in consumers(report) {
            let state = if consumer.live { "live" } else { "gone" };
            let heard = ago(consumer.last_heartbeat, now);
            let pending = consumer.pending.to_string();
            table.row([consumer.name.clone(), state.to_owned(), heard, pending]);
        }
        text += &table.render(Screen::stdout());
    }
    text
}

/// What stands between an event and its handler, from the outside in.
fn around(routes: &[OutlinedRoute]) -> Table {
    let mut table = Table::new([Column::left("ROUTE"), Column::left("THROUGH")]);
    for OutlinedRoute { pattern, filter, batch, middleware, concurrency, version: _ } in routes {
        let filter = filter.iter().map(|filter| format!("filter {filter}"));
        let batch = batch.iter().map(|batch| {
            let linger = batch.linger;
            let turns = concurrency.map_or(String::new(), |limit| format!(", {limit} at a time"));
            format!("batches of {} or {linger:?}{turns}", batch.size)
        });
        let names = middleware.iter().map(|name| match concurrency {
            Some(limit) if *name == "bulkhead" => format!("{name} {limit}"),
            _ => (*name).to_owned(),
        });
        let steps: Vec<String> = filter.chain(batch).chain(names).collect();
        table.row([pattern.to_string(), steps.join(" > ")]);
    }
    table.or_say("no route is linked")
}

fn routes(known: &Known, now: Timestamp) -> Table {
    let columns = [Column::left("ROUTE"), Column::left("VERSION"), Column::left("SEEN")];
    let mut table = Table::new(columns).or_say("no route is known");
    for row in rows(known) {
        table.row([row.pattern, row.version, ago(row.seen, now)]);
    }
    table
}
