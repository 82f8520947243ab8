//! The look as a whole: a healthy bus, a very large one, and a user who may not look.

use std::sync::Arc;
use std::time::Duration;

use rumormill::delivery::Outcome;
use rumormill::driver::Driver;
use rumormill::driver::admin::{Severity, Verdict};
use rumormill::driver::redis::{RedisDriver, RedisOptions};

use crate::kit::{Bed, checks, diagnose, of_bus, options, retry, told};
use crate::server::Server;

/// Looks at a bus that is in use.
const LOOKS: usize = 30;

#[tokio::test]
async fn a_healthy_busy_bus_is_worth_a_note_at_most() {
    let bed = Arc::new(Bed::new().await);
    let mut feed = bed.subscribe(false).await;
    let publishing = tokio::spawn({
        let bed = Arc::clone(&bed);
        async move {
            for number in 0.. {
                let place = ["t:0", "t:1"][number % 2];
                let delay = Duration::from_millis([0, 20][usize::from(number % 5 == 0)]);
                bed.append_later(place, &["1", "2", "3"], delay).await;
            }
        }
    });
    let handling = tokio::spawn(async move {
        for number in 0_u32.. {
            let entries = feed.source.fetch(10).await.expect("no error");
            for entry in entries.into_iter().map(Arc::new) {
                let again = number % 3 == 0 && entry.attempt == 1;
                let outcome = if again { retry(Duration::from_millis(5)) } else { Outcome::ack() };
                let all = entry.deliveries().map(|own| own.settle(outcome.clone())).collect();
                for answer in feed.settler.settle(all).await {
                    answer.expect("settled");
                }
            }
        }
    });
    for _ in 0..LOOKS {
        let diagnosis = bed.diagnose().await;
        let worse = of_bus(&diagnosis).any(|(_, finding)| finding.severity > Severity::Note);
        assert!(!worse, "{}", told(&diagnosis));
        let known = |verdict: &Verdict| !matches!(verdict, Verdict::Unknown(_));
        assert!(checks(&diagnosis).all(|checked| known(&checked.verdict)));
    }
    assert!(bed.server.say("XLEN rm:{t:0}:log").int() > 10, "it was busy");
    publishing.abort();
    handling.abort();
}

#[tokio::test]
async fn a_look_at_ten_thousand_topics_costs_a_bounded_number_of_commands() {
    let bed = Bed::left().await;
    let fill = "for i = 1, 10000 do local name = 'many-' .. i \
                redis.call('HSET', KEYS[1], name, '{\"partitions\":1}') \
                local log = 'rm:{' .. name .. ':0}:log' \
                redis.call('XGROUP', 'CREATE', log, 'g', '0', 'MKSTREAM') \
                redis.call('XADD', log, '*', 'type', name .. '.x', 'data', '1') \
                if i <= 300 then for group = 1, 10 do \
                redis.call('XGROUP', 'CREATE', log, 'g' .. group, '0') end end end";
    bed.server.ask(&["EVAL", fill, "1", "rm:topics"]);
    bed.server.say("CONFIG RESETSTAT");
    let diagnosis = bed.diagnose().await;
    let cut: Vec<_> = of_bus(&diagnosis).filter(|(id, _)| *id == "look.cut").collect();
    assert!(cut.iter().any(|(_, cut)| cut.text.contains("2000 of 10002 partitions")), "{cut:?}");
    let stats = bed.server.say("INFO commandstats").text();
    let calls = |line: &str| -> u64 {
        let calls = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse().expect("a number"))
    };
    let total: u64 = stats.lines().map(calls).sum();
    assert!(total < 100_000, "{total} commands");
    assert!(bed.server.calls("scan") <= 200, "{}", bed.server.calls("scan"));
    for checked in checks(&diagnosis) {
        let findings = checked.verdict.findings().len();
        assert!(findings <= 21, "{} has {findings}", checked.check.id);
    }
}

#[tokio::test]
async fn a_part_that_is_not_looked_at_is_named() {
    let bed = Bed::left().await;
    bed.server.say("HSET rm:topics wide {\"partitions\":256}");
    bed.well().await;
    let fill = "for i = 1, 10 do \
                redis.call('HSET', KEYS[1], 'wide' .. i, '{\"partitions\":256}') end";
    bed.server.ask(&["EVAL", fill, "1", "rm:topics"]);
    let finding = bed.only("look.cut").await;
    assert!(finding.text.contains("2000 of 2818 partitions"), "{finding:?}");
}

#[tokio::test]
async fn what_a_user_may_not_ask_is_not_known() {
    let bed = Bed::left().await;
    bed.server.say("SET rm:note x");
    let rules = "ACL SETUSER looker on >secret ~* &* +@all -scan -xinfo -evalsha -eval";
    bed.server.say(rules);
    let path = bed.server.socket();
    let url = format!("redis+unix://{}?user=looker&pass=secret", path.display());
    let options = RedisOptions { url, ..options(&bed.server) };
    let doctor = RedisDriver::connect(options).await.expect("connects");
    let diagnosis = diagnose(&doctor).await;
    let verdict = |id: &str| {
        let found = checks(&diagnosis).find(|checked| checked.check.id == id);
        found.expect("a check").verdict.clone()
    };
    for id in ["keys.foreign", "keys.type", "log.held", "groups.no-consumer"] {
        assert!(matches!(verdict(id), Verdict::Unknown(_)), "{id}: {:?}", verdict(id));
    }
    assert_eq!(verdict("schedule.publishes"), Verdict::Passed);
    doctor.close().await;
}

#[tokio::test]
async fn an_empty_server_is_well() {
    let server = Server::start();
    let doctor = RedisDriver::connect(options(&server)).await.expect("connects");
    let diagnosis = diagnose(&doctor).await;
    assert_eq!(of_bus(&diagnosis).count(), 0, "{}", told(&diagnosis));
}

#[tokio::test]
async fn the_commands_name_another_namespace() {
    let server = Server::start();
    server.say("HSET shop:topics t {\"partitions\":1}");
    server.say("XADD shop:{t:1}:log * type t.x data 1");
    let options = RedisOptions { namespace: "shop".to_owned(), ..options(&server) };
    let doctor = RedisDriver::connect(options).await.expect("connects");
    let diagnosis = diagnose(&doctor).await;
    let (id, finding) = of_bus(&diagnosis).next().expect("one");
    assert_eq!(id, "partitions.beyond");
    assert_eq!(finding.mend, "bus-cli --namespace shop topics set t --partitions 2");
}
