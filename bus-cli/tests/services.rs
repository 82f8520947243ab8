//! `bus-cli services`: what is linked, and what the server knows.

#[path = "cli/mod.rs"]
mod cli;
#[path = "cli/greeter.rs"]
mod greeter;
#[path = "../../tests/server/mod.rs"]
mod server;

use cli::{bare, bus_cli, lines, run};
use greeter::{Daemon, greeter};
use serde_json::{Value, json};
use server::Server;

fn json(line: &str) -> Value {
    serde_json::from_str(line).expect(line)
}

#[test]
fn a_service_is_shown_as_the_binary_and_the_server_know_it() {
    let server = Server::start();
    let daemon = Daemon::start(&mut greeter(&server, &["daemon"]));
    let line = ["services", "--output", "json"];
    let shown = lines(&mut greeter(&server, &line));
    assert_eq!(shown.len(), 1, "{shown:?}");
    let service = json(&shown[0]);
    assert_eq!(service["service"], "greeter");
    let linked = &service["linked"];
    assert!(linked["place"].as_str().expect("text").contains("greeter.rs:"), "{linked}");
    let route = json!([{
        "pattern": "user_service.user.created", "version": 1, "filter": null, "batch": null,
        "concurrency": 2, "middleware": ["trace", "catch_panic", "bulkhead", "timeout"],
    }]);
    assert_eq!(linked["routes"], route);
    assert_eq!(
        (&linked["options"]["lanes"], &linked["options"]["start"]),
        (&json!(8), &json!("earliest"))
    );
    let known = &service["server"];
    assert_eq!(known["routes"][0]["pattern"], "user_service.user.created");
    assert_eq!(known["consumers"].as_array().expect("a list").len(), 1);
    assert_eq!(known["consumers"][0]["live"], true);

    // The stock binary knows what the server knows.
    let stock = json(&lines(&mut bus_cli(&server, &line))[0]);
    assert_eq!((&stock["linked"], &stock["server"]["routes"]), (&Value::Null, &known["routes"]));
    let table = lines(&mut bus_cli(&server, &["services"]));
    assert!(table[0].starts_with("SERVICE  LIVE  ROUTE"), "{table:?}");
    assert!(table[1].starts_with("greeter     1  user_service.user.created  1  "), "{table:?}");
    assert_eq!(lines(&mut bus_cli(&server, &["services", "--output", "raw"])), ["greeter"]);

    let detail = lines(&mut greeter(&server, &["services", "greeter"])).join("\n");
    for part in ["trace > catch_panic > bulkhead 2 > timeout", "lane_depth", "live", "ROUTE"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.end().1, 0);
    let gone = json(&lines(&mut bus_cli(&server, &line))[0]);
    assert_eq!(
        gone["server"]["consumers"]
            .as_array()
            .map(|all| { all.iter().filter(|consumer| consumer["live"] == true).count() }),
        Some(0)
    );
}

#[test]
fn what_is_not_there_is_said() {
    let server = Server::start();
    let none = lines(&mut bus_cli(&server, &["services"]));
    assert_eq!(none.len(), 1, "{none:?}");
    assert!(none[0].starts_with("no service is linked"), "{none:?}");
    assert!(lines(&mut bus_cli(&server, &["services", "--output", "json"])).is_empty());
    let (_, err, code) = run(&mut greeter(&server, &["services", "email"]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("\"email\" is neither linked") && err.contains("known: greeter"), "{err}");
}

#[test]
fn without_a_server_what_is_linked_is_shown() {
    let mut server = Server::start();
    server.kill();
    let (out, err, code) = run(&mut greeter(&server, &["services", "--output", "raw"]));
    assert_eq!((code, out.as_str()), (4, "greeter\n"), "{err}");
    assert!(err.starts_with("error: cannot connect to Redis on unix://"), "{err}");
    let linked = ["services", "--linked", "--output", "raw"];
    assert_eq!(lines(&mut greeter(&server, &linked)), ["greeter"]);
    let (out, err, code) = run(bare(&["services"]).env("BUS_URL", server.url()));
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
}
