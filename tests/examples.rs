//! The examples, run as a user runs them: their lines, their tables, their refusals.

use std::process::Output;

mod example;

use example::example;

fn run(name: &str, args: &[&str]) -> (Output, String) {
    let output = example(name).args(args).output().expect("the example starts");
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    (output, text)
}

fn count(text: &str, line: &str) -> usize {
    text.lines().filter(|own| *own == line).count()
}

#[test]
fn the_demo_prints_the_lines_of_each_service_and_the_table() {
    let (output, text) = run("user_created", &[]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "=== Starting Microservices Demo ===");
    for name in ["alice", "bob"] {
        let user = format!("[NotificationService] Sending push notification to user user_{name}");
        let mail = format!("[EmailService] Sending welcome email to {name}@example.com");
        let made = format!("[UserService] Creating user: {name}");
        for line in [user, mail, made] {
            assert_eq!(count(&text, &line), 1, "{line}\n{text}");
        }
    }
    let tracked = |event: &str| {
        let start = format!("[AnalyticsService] Tracking event: {event} at 20");
        // RFC 3339 to the second: 2026-01-02T03:04:05Z
        let whole = |line: &&str| {
            line.starts_with(&start) && line.ends_with('Z') && line.len() == start.len() + 18
        };
        text.lines().filter(whole).count()
    };
    assert_eq!(tracked("user_service.user.created"), 2, "{text}");
    assert_eq!(tracked("email_service.email.sent"), 2, "{text}");
    let complete = lines.iter().position(|line| *line == "=== Demo Complete ===").expect("it ends");
    let table: Vec<Vec<&str>> =
        lines[complete + 1..].iter().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        table,
        [
            ["service", "handled", "published"],
            ["user", "0", "2"],
            ["email", "2", "2"],
            ["notification", "2", "2"],
            ["analytics", "4", "0"],
        ]
    );
}

#[test]
fn the_demo_creates_more_users_on_request() {
    let (output, text) = run("user_created", &["--users", "20"]);
    assert!(output.status.success(), "{output:?}");
    for number in 1..=20 {
        let mail = format!("[EmailService] Sending welcome email to user{number}@example.com");
        assert_eq!(count(&text, &mail), 1, "{mail}");
    }
}

#[test]
fn a_single_service_on_memory_is_refused_with_the_mend() {
    let (output, text) = run("user_created", &["--service", "email"]);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success());
    assert!(errors.contains("--url redis://"), "{errors}");
    assert_eq!(text, "");
}

#[test]
fn webhooks_are_counted_by_pattern_and_repository() {
    let (output, text) = run("github_webhooks", &[]);
    assert!(output.status.success(), "{output:?}");
    let row = |name: &str| -> Vec<String> {
        let row = text.lines().find(|line| line.starts_with(name)).expect(name);
        row.split_whitespace().skip(1).map(str::to_owned).collect()
    };
    assert_eq!(row("all"), ["20", "20", "219"]);
    assert_eq!(row("Codertocat/Hello-World"), ["19", "20", "154"]);
    assert_eq!(row("(none)"), ["0", "0", "31"]);
    assert_eq!(text.lines().count(), 16, "a head, 13 repositories, those without, the sum\n{text}");
}

#[test]
fn no_event_of_many_is_lost_at_full_speed() {
    for handlers in ["1", "3"] {
        let (output, text) = run("million", &["--events", "30000", "--handlers", handlers]);
        assert!(output.status.success(), "{output:?}");
        let rows: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let handlers: usize = handlers.parse().expect("a number");
        for (number, row) in rows.iter().take(handlers).enumerate() {
            assert_eq!(row[..], [number.to_string().as_str(), "30000", "30000", "0"], "{text}");
        }
    }
}

/// The lines of an example, in ascending order: groups run side by side.
fn sorted_lines(name: &str) -> Vec<String> {
    let (output, text) = run(name, &[]);
    assert!(output.status.success(), "{output:?}");
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn each_group_gets_what_its_filter_lets_through() {
    let tenant = r#"wants not key begins with "test-" and header "tenant" = "acme""#;
    let payload = r#"wants not key begins with "test-" and payload of filters::Placed"#;
    assert_eq!(
        sorted_lines("filters"),
        [
            "[acme] order-1 for 20 euros",
            "[acme] order-2 for 5000 euros",
            "[fraud] order-2 for 5000 euros",
            "[fraud] order-3 for 7000 euros",
            "[tests] test-4 for 9000 euros",
            &format!("acme: 2 filtered; {tenant}"),
            &format!("fraud: 2 filtered; {payload}"),
            r#"tests: 3 filtered; wants key begins with "test-""#,
        ]
    );
}

#[test]
fn payments_are_booked_in_batches() {
    let (output, text) = run("batch_handler", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "booked 19900 cents\nfewer steps than payments: true\n");
}

#[test]
fn a_middleware_sees_attempts_or_tries_by_its_place() {
    let (output, text) = run("custom_middleware", &[]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = text.lines().collect();
    let list = "trace > catch_panic > timeout > tally > retry_in_place > tally";
    let attempts = "attempts of orders.order.placed: 1 succeeded, 0 failed";
    let tries = "tries of orders.order.placed: 1 succeeded, 2 failed";
    assert_eq!(lines, [list, attempts, tries]);
}

#[test]
fn the_quickstart_welcomes() {
    let (output, text) = run("quickstart", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "welcome, alice\n");
}

#[test]
fn an_address_that_is_none_is_refused() {
    let (output, text) = run("quickstart", &["carrier-pigeon:"]);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(!output.status.success());
    assert!(errors.contains("carrier-pigeon"), "{errors}");
    assert_eq!(text, "");
}

#[test]
fn every_service_gets_its_copy() {
    let (output, text) = run("several_services", &[]);
    assert!(output.status.success(), "{output:?}");
    for (customer, cents) in [("alice", 1_200), ("bob", 350)] {
        for line in [
            format!("[billing] {customer} owes {cents} cents"),
            format!("[shipping] packing for {customer}"),
            format!("[shipping] {customer} may be sent"),
        ] {
            assert_eq!(count(&text, &line), 1, "{line}\n{text}");
        }
    }
    assert_eq!(text.lines().last(), Some("[audit] 4 events"), "{text}");
}

#[test]
fn a_handler_sees_only_the_newest_version() {
    let (output, text) = run("versions", &[]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "version 1: Lovelace, Ada (en)",
            "version 2: Hopper, Grace (en)",
            "version 3: Liskov, Barbara (en)"
        ]
    );
}

#[test]
fn delayed_events_come_when_they_are_due() {
    let (output, text) = run("delayed_publish", &[]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = text.lines().collect();
    // The first may be handled before all are published; what is due later comes later.
    assert!(lines.contains(&"all published"), "{text}");
    let came: Vec<&str> = lines.into_iter().filter(|line| line.starts_with("order")).collect();
    assert_eq!(
        came,
        ["order 2 after 0ns: due", "order 3 after 200ms: due", "order 1 after 600ms: due"]
    );
}

#[test]
fn the_service_that_shows_testing_runs_by_itself() {
    let (output, text) = run("testing_a_service", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "charged 4200 cents for invoice 2026-001\n");
}

#[test]
fn a_driver_of_ones_own_counts_what_passes() {
    let (output, text) = run("custom_driver", &[]);
    assert!(output.status.success(), "{output:?}");
    let count = |name: &str| {
        let row = text.lines().find(|line| line.starts_with(name)).expect(name);
        row.rsplit(' ').next().expect("a number").to_owned()
    };
    let names = ["stored", "handed out", "acked", "retried", "dead-lettered", "handed over"];
    assert_eq!(names.map(count), ["4", "5", "3", "1", "1", "0"], "{text}");
}

#[test]
fn a_broadcast_keeps_the_cache_of_every_instance_fresh() {
    let (output, text) = run("broadcast_cache", &[]);
    assert!(output.status.success(), "{output:?}");
    let row = |number| format!("instance {number}: apple 25, pear 40, plum 20");
    assert_eq!(text.lines().collect::<Vec<_>>(), [row(0), row(1), row(2)]);
}

#[test]
fn an_outbox_publishes_what_is_committed_and_nothing_else() {
    let (output, text) = run("outbox", &[]);
    assert!(output.status.success(), "{output:?}");
    let (mails, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("mail"));
    assert_eq!(
        others,
        [
            "order 1 of alice is placed",
            "order 2 of bob is placed",
            "order 3 of alice is placed",
            "no order for carol: sold out",
            "3 events wait",
            "3 events relayed, 0 wait",
        ]
    );
    let of = |name: &str| mails.iter().filter(|line| line.contains(name)).copied().collect();
    let alice: Vec<&str> = of("alice");
    assert_eq!(alice, [1, 3].map(|order| format!("mail to alice: thank you for order {order}")));
    let bob: Vec<&str> = of("bob");
    assert_eq!(bob, ["mail to bob: thank you for order 2"]);
}

#[test]
fn an_effect_and_its_events_happen_once() {
    let (output, text) = run("sql_idempotent", &[]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "16 runs of the handler, 4 of them for nothing",
            "alice: 15 cents in 5 bookings, each told once, in order",
            "bob: 15 cents in 5 bookings, each told once, in order",
        ]
    );
}
