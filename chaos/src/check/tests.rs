//! Each checker finds what it is for, in a small history that is right but for that; and finds
//! nothing in the right one.

use super::*;
use crate::aside::Scope;
use crate::history::{Costs, Counts, Evidence, How, Record, What};
use crate::load::{Act, GROUPS};

const S: u64 = 1_000_000_000;

/// A history that can be changed.
#[derive(Clone)]
struct Tale(Vec<(&'static str, u64, What)>);

fn at(number: u64) -> String {
    format!("chaos:0/100-{number}/0")
}

fn name(number: u64) -> String {
    format!("p0-0/{number}")
}

impl Tale {
    /// Three events of one key, published, stored and handled by both groups.
    fn right() -> Self {
        let mut tale = Self(Vec::new());
        for number in 0..3 {
            tale.published(number, S * (number + 1), Act::Fine);
            for group in ["alpha", "beta"] {
                tale.handled(number, group, "w0-0", S * (number + 1) + 10, 1);
            }
            tale.stored(number, number);
            tale.put_out(number, number);
        }
        for group in ["alpha", "beta"] {
            tale.left(group, 0);
        }
        for process in ["p0-0", "w0-0", "w1-0"] {
            tale.add(process, 90 * S, What::Ended { counts: Counts::default() });
        }
        tale
    }

    fn add(&mut self, process: &'static str, t: u64, what: What) {
        self.0.push((process, t, what));
    }

    fn published(&mut self, number: u64, t: u64, act: Act) {
        let event = name(number);
        self.add("p0-0", t, What::Invoke { event: event.clone(), key: 0, act });
        let durability = "fsync".to_owned();
        self.add("p0-0", t + 5, What::Ok { event, made: t, at: at(number), durability });
    }

    fn delivered(&mut self, number: u64, group: &str, process: &'static str, t: u64, attempt: u32) {
        let deliver = What::Deliver {
            event: name(number),
            group: group.to_owned(),
            key: 0,
            attempt,
            at: at(number),
            made: t,
            act: Act::Fine,
            intact: true,
        };
        self.add(process, t, deliver);
    }

    fn handled(&mut self, number: u64, group: &str, process: &'static str, t: u64, attempt: u32) {
        self.delivered(number, group, process, t, attempt);
        let (event, group) = (name(number), group.to_owned());
        self.add(process, t + 2, What::Effect { event: event.clone(), group: group.clone() });
        self.add(process, t + 3, What::End { event, group, how: How::Ok });
    }

    fn stored(&mut self, number: u64, place: u64) {
        let what = What::Stored { event: name(number), at: at(place), intact: true };
        self.add("end", 99 * S, what);
    }

    fn put_out(&mut self, number: u64, place: u64) {
        let (event, at) = (name(number), format!("done:0/100-{place}/0"));
        self.add("end", 99 * S, What::Output { event, at });
    }

    fn dead(&mut self, event: Option<u64>, group: &str, place: u64, cause: &str) {
        let what = What::Dead {
            event: event.map(name),
            group: group.to_owned(),
            at: at(place),
            cause: cause.to_owned(),
            attempts: 1,
            error: String::new(),
        };
        self.add("end", 99 * S, what);
    }

    fn left(&mut self, group: &str, pending: u64) {
        let group = group.to_owned();
        let what = What::Left { group, unread: 0, pending, due: 0, dead: 0 };
        self.add("end", 99 * S, what);
    }

    fn fault(&mut self, name: &str, costs: Costs, from: u64, to: u64) {
        let number =
            self.0.iter().filter(|line| matches!(line.2, What::Fault { .. })).count() as u32;
        let (name, evidence) = (name.to_owned(), Evidence::Counted);
        self.add("nemesis", from, What::Fault { number, name: name.clone(), evidence, costs });
        self.add("nemesis", to, What::Healed { number, name, seen: 1 });
    }

    fn incident(&mut self, t: u64, name: &str) {
        let (name, text) = (name.to_owned(), String::new());
        self.add("w0-0", t, What::Incident { name, group: None, entries: 1, text });
    }

    fn without(mut self, is_out: impl Fn(&What) -> bool) -> Self {
        self.0.retain(|(_, _, what)| !is_out(what));
        self
    }

    fn book(&self) -> Book {
        let mut histories: Vec<(String, Vec<Record>)> = Vec::new();
        for (process, t, what) in &self.0 {
            let record = Record { t: *t, what: what.clone() };
            match histories.iter_mut().find(|(own, _)| own == process) {
                Some((_, records)) => records.push(record),
                None => histories.push(((*process).to_owned(), vec![record])),
            }
        }
        for (_, records) in &mut histories {
            records.sort_by_key(|record| record.t);
        }
        Book::read(&histories).sorted()
    }

    /// What all checkers find, by their names and what they say.
    fn found(&self) -> Vec<(String, u64)> {
        let found = all(&self.book());
        found.into_iter().map(|one| (one.checker + " " + &one.says, one.count)).collect()
    }

    #[track_caller]
    fn finds(&self, checker: &str) {
        let found = self.found();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0.starts_with(checker), "{found:?}");
    }
}

fn is_stored(number: u64) -> impl Fn(&What) -> bool {
    move |what| matches!(what, What::Stored { event, .. } if *event == name(number))
}

#[test]
fn nothing_is_found_where_all_is_right() {
    assert_eq!(Tale::right().found(), []);
}

#[test]
fn what_is_acknowledged_and_not_in_the_log_is_lost() {
    let tale = Tale::right().without(is_stored(1));
    tale.finds("C1 acknowledged and not in the log");
    let mut excused = tale.clone();
    excused.fault("everything-flushed", Costs::Everything, 2 * S + 500, 2 * S + 600);
    excused.incident(2 * S + 700, "history_lost");
    assert_eq!(excused.found().iter().filter(|one| one.0.starts_with("C1 ")).count(), 0);
}

#[test]
fn a_power_loss_excuses_only_the_last_seconds() {
    let tale = Tale::right().without(is_stored(0));
    let lost = |from: u64| {
        let mut tale = tale.clone();
        tale.fault("power-loss", Costs::Recent, from, from + 1);
        tale.incident(from + 2, "history_lost");
        tale.published(7, from + 3, Act::Fine);
        tale.stored(7, 7);
        tale.delivered(7, "alpha", "w0-0", from + 4, 1);
        tale.found().iter().any(|one| one.0.starts_with("C1 "))
    };
    assert!(!lost(2 * S), "a second before it");
    assert!(lost(5 * S), "four seconds before it");
}

#[test]
fn a_retry_that_was_spoiled_on_its_way_is_a_letter_without_a_name() {
    let mut tale = Tale::right();
    tale.published(7, 3 * S, Act::Retry);
    tale.stored(7, 7);
    for group in GROUPS {
        tale.delivered(7, group, "w0-0", 4 * S, 1);
        let (event, group) = (name(7), group.to_owned());
        tale.add("w0-0", 4 * S + 1, What::End { event, group, how: How::Retry });
    }
    tale.fault("event-bits-flipped", Costs::Nothing, 4 * S, 5 * S);
    let missing = |tale: &Tale| {
        let found = tale.found().into_iter().find(|one| one.0.starts_with("C4 in the log"));
        found.map_or(0, |(_, count)| count)
    };
    assert_eq!(missing(&tale), 2);
    tale.dead(None, GROUPS[0], 50, "malformed");
    assert_eq!(missing(&tale), 1);
    tale.dead(None, GROUPS[1], 50, "malformed");
    assert_eq!(missing(&tale), 0);
}

#[test]
fn a_power_loss_takes_what_a_kill_in_a_rewrite_left_unsynced() {
    let lost = |kill: &str| {
        let mut tale = Tale::right().without(is_stored(0));
        tale.fault(kill, Costs::Nothing, 2 * S, 2 * S + 1);
        tale.fault("power-loss", Costs::Recent, 9 * S, 9 * S + 1);
        tale.incident(9 * S + 2, "history_lost");
        tale.found().iter().any(|one| one.0 == "C1 acknowledged and not in the log")
    };
    assert!(lost("server-killed"));
    assert!(!lost("server-killed-in-rewrite"));
}

#[test]
fn what_the_server_lost_is_told() {
    let mut tale = Tale::right().without(is_stored(1));
    tale.fault("everything-flushed", Costs::Everything, 2 * S + 500, 2 * S + 600);
    assert!(tale.found().iter().any(|one| one.0.contains("nobody said so")), "{:?}", tale.found());
}

#[test]
fn an_event_stands_in_the_log_once() {
    let mut tale = Tale::right();
    tale.stored(2, 8);
    tale.finds("C2");
}

#[test]
fn what_nobody_published_is_a_phantom() {
    let mut tale = Tale::right();
    tale.stored(9, 9);
    for group in ["alpha", "beta"] {
        tale.handled(9, group, "w0-0", 20 * S, 1);
    }
    tale.put_out(9, 9);
    tale.finds("C3");
    let mut tale = Tale::right().without(is_stored(1));
    let (event, at) = (name(1), at(1));
    tale.add("end", 99 * S, What::Stored { event, at, intact: false });
    tale.finds("C3");
}

#[test]
fn what_is_settled_has_an_effect_or_a_dead_letter() {
    let is_effect = |what: &What| match what {
        What::Effect { event, group } => *event == name(2) && group == "beta",
        _ => false,
    };
    Tale::right().without(is_effect).finds("C4");
}

#[test]
fn what_an_idempotent_handler_publishes_is_there_once() {
    let mut tale = Tale::right();
    tale.put_out(2, 8);
    tale.finds("C5");
    let is_output = |what: &What| matches!(what, What::Output { event, .. } if *event == name(2));
    Tale::right().without(is_output).finds("C4 handled, and nothing published");
}

#[test]
fn the_log_has_the_order_of_a_key() {
    let mut tale = Tale::right().without(is_stored(0));
    tale.stored(0, 7);
    // Where it lies is what the publisher was told, too.
    let tale = tale.without(|what| matches!(what, What::Ok { event, .. } if *event == name(7)));
    assert!(tale.found().iter().any(|one| one.0.starts_with("C6 behind")), "{:?}", tale.found());
}

#[test]
fn a_consumer_handles_a_key_in_order() {
    let mut tale = Tale::right().without(|what| match what {
        What::Deliver { event, group, .. }
        | What::Effect { event, group }
        | What::End { event, group, .. } => *event == name(0) && group == "alpha",
        _ => false,
    });
    tale.handled(0, "alpha", "w0-0", 30 * S, 1);
    tale.finds("C6 handled");
    tale.fault("connections-cut", Costs::Nothing, 10 * S, 11 * S);
    tale.published(7, 11 * S + 3, Act::Fine);
    tale.delivered(7, "alpha", "w0-0", 11 * S + 9, 1);
    let found = tale.found();
    assert!(!found.iter().any(|one| one.0.starts_with("C6")), "a fault explains it: {found:?}");
}

#[test]
fn one_place_holds_one_event() {
    let mut tale = Tale::right();
    let deliver = What::Deliver {
        event: name(1),
        group: "none".to_owned(),
        key: 0,
        attempt: 1,
        at: at(2),
        made: 0,
        act: Act::Fine,
        intact: true,
    };
    tale.add("w0-0", 40 * S, deliver);
    tale.finds("C7");
}

#[test]
fn nobody_sees_what_is_for_others() {
    let event = |number: u64| format!("aside-p0-0/{number}");
    let mut tale = Tale::right();
    for (number, scope) in (0..).zip([Scope::Beside, Scope::Open, Scope::Closed]) {
        tale.add("p0-0", 5 * S, What::Aside { event: event(number), scope });
    }
    let seen = |event: String, by: Scope| {
        let mut tale = tale.clone();
        tale.add("w0-0", 6 * S, What::Seen { event, by });
        tale
    };
    assert_eq!(seen(event(0), Scope::Beside).found(), []);
    assert_eq!(seen(event(1), Scope::Open).found(), []);
    seen(event(2), Scope::Open).finds("C8 seen by somebody");
    seen(event(1), Scope::Beside).finds("C8 seen by somebody");
    seen(name(1), Scope::Beside).finds("C8 seen by somebody");
    let mut stored = tale.clone();
    let at = at(60);
    stored.add("end", 99 * S, What::Stored { event: event(0), at, intact: true });
    assert!(stored.found().iter().any(|one| one.0.starts_with("C8")), "{:?}", stored.found());
}

#[test]
fn those_see_it_for_whom_it_is() {
    let mut tale = Tale::right();
    for number in 0..50 {
        let event = format!("aside-p0-0/{number}");
        tale.add("p0-0", 5 * S, What::Aside { event, scope: Scope::Open });
    }
    tale.finds("C8 seen by nobody");
    let event = "aside-p0-0/7".to_owned();
    tale.add("w0-0", 6 * S, What::Seen { event, by: Scope::Open });
    assert_eq!(tale.found(), []);
}

#[test]
fn what_is_done_is_not_run_again_without_a_reason() {
    let mut tale = Tale::right();
    tale.handled(1, "alpha", "w1-0", 50 * S, 1);
    tale.finds("C9");
    tale.fault("worker-killed", Costs::Nothing, 48 * S, 49 * S);
    tale.published(7, 49 * S + 3, Act::Fine);
    tale.delivered(7, "alpha", "w0-0", 49 * S + 9, 1);
    let found = tale.found();
    assert!(!found.iter().any(|one| one.0.starts_with("C9")), "a fault explains it: {found:?}");
}

#[test]
fn a_retry_is_no_repeat() {
    let mut tale = Tale::right();
    let (event, group) = (name(2), "alpha".to_owned());
    tale.delivered(2, "alpha", "w0-0", 60 * S, 2);
    tale.add("w0-0", 60 * S + 5, What::End { event, group, how: How::Retry });
    tale.handled(2, "alpha", "w1-0", 61 * S, 3);
    assert_eq!(tale.found(), []);
}

#[test]
fn what_is_to_die_has_one_letter_and_nothing_else_has_one() {
    let mut tale = Tale::right();
    tale.published(5, 70 * S, Act::Reject);
    tale.stored(5, 5);
    tale.dead(Some(5), "alpha", 5, "rejected");
    let mut missing = tale.clone();
    missing.handled(5, "beta", "w0-0", 71 * S, 1);
    missing.put_out(5, 9);
    missing.finds("C10 to be given up");
    tale.dead(Some(5), "beta", 5, "rejected");
    assert_eq!(tale.found(), []);
    tale.dead(Some(1), "alpha", 1, "attempts_spent");
    tale.finds("C10 dead without a reason");
}

#[test]
fn attempts_have_a_bound() {
    let mut tale = Tale::right();
    tale.handled(1, "alpha", "w0-0", 70 * S, 17);
    tale.finds("C10 run more often");
}

#[test]
fn what_is_no_event_is_in_the_dead_letters_of_each_group() {
    let mut tale = Tale::right();
    tale.add("end", 99 * S, What::Foreign { at: at(50) });
    tale.dead(None, "alpha", 50, "malformed");
    tale.finds("C10 entries that are no events");
    tale.dead(None, "beta", 50, "malformed");
    assert_eq!(tale.found(), []);
    tale.dead(None, "beta", 51, "malformed");
    tale.finds("C10 entries that are no events");
}

#[test]
fn it_works_again_after_a_fault() {
    let mut tale = Tale::right();
    tale.fault("connections-cut", Costs::Nothing, 80 * S, 81 * S);
    tale.finds("C11");
}

#[test]
fn nothing_is_left_in_the_end() {
    let mut tale = Tale::right().without(|what| matches!(what, What::Left { .. }));
    tale.left("alpha", 3);
    tale.left("beta", 0);
    tale.finds("C12");
}

#[test]
fn a_process_keeps_within_bounds() {
    let mut tale = Tale::right();
    let process = "w0-0".to_owned();
    tale.add("nemesis", 10 * S, What::Sample { process, rss_kib: 50_000, files: 1_000 });
    tale.finds("C13");
}

#[test]
fn a_process_does_not_take_more_and_more() {
    let with = |kib: u64, files: u64, tasks: u64| {
        let mut tale = Tale::right();
        for number in 0..30 {
            let t = (10 + 2 * number) * S;
            let (process, rss_kib) = ("w0-0".to_owned(), 20_000 + number * kib);
            let sample = What::Sample { process, rss_kib, files: 20 + number * files };
            // Before the process' own history by its name, as in a run.
            tale.0.insert(0, ("nemesis", t, sample));
            tale.add("w0-0", t, What::Tasks { count: 30 + number * tasks });
        }
        tale
    };
    assert_eq!(with(100, 0, 0).found(), []);
    with(1_000, 0, 0).finds("C13");
    with(100, 2, 0).finds("C13");
    with(100, 0, 20).finds("C13");
}

#[test]
fn counters_say_what_happened() {
    let mut tale = Tale::right();
    tale.incident(10 * S, "group_lost");
    tale.finds("C14");
}

#[test]
fn what_was_not_stored_is_not_there() {
    let mut tale = Tale::right();
    let event = name(6);
    tale.add("p0-0", 20 * S, What::Invoke { event: event.clone(), key: 0, act: Act::Fine });
    tale.add("p0-0", 20 * S + 1, What::NotStored { event, why: "refused".to_owned() });
    assert_eq!(tale.found(), []);
    tale.stored(6, 6);
    for group in ["alpha", "beta"] {
        tale.handled(6, group, "w0-0", 21 * S, 1);
    }
    tale.put_out(6, 6);
    tale.finds("C15");
}

#[test]
fn a_stall_counts_where_nothing_was_acknowledged() {
    let mut tale = Tale::right();
    let (number, name) = (0, "server-frozen".to_owned());
    let (evidence, costs) = (Evidence::Stall, Costs::Nothing);
    tale.add("nemesis", S + 100, What::Fault { number, name: name.clone(), evidence, costs });
    tale.add("nemesis", 2 * S - 100, What::Healed { number, name, seen: 1 });
    let book = tale.book();
    assert!(book.counts(&book.faults[0]));
    let unseen = Fault { evidence: Evidence::Counted, seen: 0, ..book.faults[0].clone() };
    assert!(!book.counts(&unseen));
    for step in 0..10 {
        tale.published(20 + step, S + 100 * S * step / 1_000, Act::Fine);
    }
    let book = tale.book();
    assert!(!book.counts(&book.faults[0]), "it went on");
}
