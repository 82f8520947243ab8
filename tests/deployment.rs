//! `compose.yaml`, `Dockerfile` and the systemd unit, as far as they can be held without docker
//! and systemd: they parse, their numbers fit the library's, and Redis takes its settings.

#[path = "server/mod.rs"]
mod server;

use std::fs;
use std::path::Path;

use rumormill::{Bus, DRAIN_DEADLINE, Durability, Event, Services};
use server::{Reply, Server};
use yaml_rust2::{Yaml, YamlLoader};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Yaml {
    let documents = YamlLoader::load_from_str(&read("compose.yaml")).expect("YAML");
    let [compose] = <[Yaml; 1]>::try_from(documents).expect("one document");
    compose
}

fn texts(list: &Yaml) -> Vec<String> {
    let list = list.as_vec().expect("a list");
    list.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

/// What compose puts in place of `${NAME:-default}` where NAME is not set.
fn defaulted(text: &str) -> String {
    match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(variable) => variable.split_once(":-").expect("a default").1.to_owned(),
        None => text.to_owned(),
    }
}

fn seconds(text: &str) -> u64 {
    text.trim_end_matches('s').parse().expect("seconds")
}

#[derive(serde::Serialize, serde::Deserialize, Event)]
#[event(type = "orders.order.placed")]
struct OrderPlaced;

#[tokio::test]
async fn redis_takes_the_settings_of_compose_and_keeps_what_they_say() {
    let command = texts(&compose()["services"]["redis"]["command"]);
    let (program, arguments) = command.split_first().expect("a command");
    assert_eq!(program, "redis-server");
    let arguments: Vec<String> = arguments.iter().map(|argument| defaulted(argument)).collect();
    let server = Server::with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let bus = Bus::builder()
        .url(server.url())
        .services(Services::none())
        .build()
        .await
        .expect("connected");
    let receipt = bus.publish(&OrderPlaced).await.expect("stored");
    assert_eq!(receipt.durability, Durability::Everysec);
    bus.drain(DRAIN_DEADLINE).await;
    let policy = server.ask(&["CONFIG", "GET", "maxmemory-policy"]);
    let text = |text: &str| Reply::Text(text.into());
    assert_eq!(policy, Reply::List(vec![text("maxmemory-policy"), text("noeviction")]));
}

#[test]
fn compose_waits_for_redis_and_gives_a_drain_its_time() {
    let compose = compose();
    let (redis, daemon) = (&compose["services"]["redis"], &compose["services"]["daemon"]);
    let check = texts(&redis["healthcheck"]["test"]);
    assert_eq!(check, ["CMD", "redis-cli", "-e", "ping"]);
    assert_eq!(daemon["depends_on"]["redis"]["condition"].as_str(), Some("service_healthy"));
    let grace = seconds(daemon["stop_grace_period"].as_str().expect("a time"));
    assert!(grace > DRAIN_DEADLINE.as_secs(), "{grace} s");
    assert_eq!(daemon["environment"]["BUS_URL"].as_str(), Some("redis://redis:6379"));
    let volume = &texts(&redis["volumes"])[0];
    let (name, target) = volume.split_once(':').expect("name:target");
    assert_eq!(target, "/data", "where the image keeps its data");
    let named = compose["volumes"].as_hash().expect("named volumes");
    assert!(named.contains_key(&Yaml::String(name.to_owned())), "{name} is not declared");
    assert!(texts(&redis["ports"]).iter().all(|port| port.starts_with("127.0.0.1:")));
}

#[test]
fn the_image_is_built_by_a_new_enough_compiler_and_runs_as_a_plain_user() {
    let dockerfile = read("Dockerfile");
    let argument = |name: &str| {
        let lines = dockerfile.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|rest| rest.trim().to_owned()).next_back().unwrap_or_else(|| panic!("{name}"))
    };
    let version = |text: &str| -> Vec<u32> {
        text.split('.').map(|part| part.parse().expect("a number")).collect()
    };
    let manifest = read("Cargo.toml");
    let needed = manifest.split("rust-version = \"").nth(1).expect("a minimum");
    let needed = needed.split('"').next().expect("its end");
    assert!(version(&argument("ARG RUST=")) >= version(needed), "older than {needed}");
    let user = argument("USER ");
    assert!(!["root", "0"].contains(&user.as_str()) && dockerfile.contains("useradd"), "{user}");
    assert_eq!(dockerfile.matches("\nFROM ").count(), 2, "one stage builds, one runs");
    assert_eq!(argument("STOPSIGNAL "), "SIGTERM");
    // What the build copies is what the build needs.
    let ignored = read(".dockerignore");
    for part in ["/target", "/.git"] {
        assert!(ignored.lines().any(|line| line == part), "{part} goes into the image's context");
    }
    for part in ["/src", "/macros", "/bus-cli", "/Cargo.lock", "/Cargo.toml"] {
        assert!(!ignored.lines().any(|line| line == part), "{part} is needed");
    }
}

#[test]
fn the_unit_drains_and_is_hardened() {
    let unit = read("docs/bus-cli.service");
    let mut settings = Vec::new();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('=') {
            Some(setting) => settings.push(setting),
            None => assert!(["[Unit]", "[Service]", "[Install]"].contains(&line), "{line}"),
        }
    }
    let setting = |name: &str| settings.iter().find(|(own, _)| *own == name).map(|own| own.1);
    assert_eq!(setting("ExecStart"), Some("/usr/local/bin/bus-cli daemon --maintenance"));
    assert_eq!(setting("Type"), Some("notify"));
    assert_eq!(setting("KillSignal"), Some("SIGTERM"));
    assert!(seconds(setting("TimeoutStopSec").expect("a time")) > DRAIN_DEADLINE.as_secs());
    assert!(setting("RestrictAddressFamilies").is_some_and(|list| list.contains("AF_UNIX")));
    for name in ["DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome", "LockPersonality"] {
        assert_eq!(setting(name), Some("yes"), "{name}");
    }
    assert_eq!(setting("ProtectSystem"), Some("strict"));
    assert_eq!(setting("CapabilityBoundingSet"), Some(""));
}
