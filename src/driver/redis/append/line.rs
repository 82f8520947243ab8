//! Who appends when: a line per partition, a ticket per call, in the order of the first polls.
//!
//! A call may send over a connection once the one right before it in the line has been sent over
//! that same connection, or is gone. So appends of a partition stand on every connection in the
//! order of the calls, and what is sent again after a lost connection is not overtaken by what is
//! new. Partitions do not wait for one another.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::doubt::Looked;
use crate::delivery::{EntryId, Partition};
use crate::driver::Append;

/// The lines of all partitions that were appended to.
#[derive(Default)]
pub(in crate::driver::redis) struct Lines(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number that the next append gets.
    next: u64,
    lines: HashMap<Partition, Line>,
}

#[derive(Default)]
struct Line {
    /// Calls that have no answer yet, by the number of their first append.
    tickets: BTreeMap<u64, Place>,
    bound: Option<Bound>,
    looked: Looked,
}

struct Place {
    /// The generation of the connection that the call was sent over last.
    carried_by: Option<u64>,
    turn: Arc<Notify>,
}

/// An entry that lies before all appends of the partition that have no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) id: EntryId,
    /// The server that gave the id, and in which of its lives.
    pub(super) run_id: String,
}

/// What a call finds before it in its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Mine,
    /// Somebody before it has to be sent over this connection first.
    Later,
    /// Those before it went over a newer connection.
    Stale,
}

impl Lines {
    /// Takes a place in the lines of all partitions that are appended to.
    pub(super) fn enter(&self, appends: &[Append]) -> Ticket<'_> {
        let mut partitions: Vec<Partition> = Vec::with_capacity(1);
        for Append { partition, .. } in appends {
            if !partitions.contains(partition) {
                partitions.push(partition.clone());
            }
        }
        let turn = Arc::new(Notify::new());
        let mut state = self.state();
        let number = state.next;
        state.next += appends.len() as u64;
        for partition in &partitions {
            let place = Place { carried_by: None, turn: Arc::clone(&turn) };
            state.line(partition).tickets.insert(number, place);
        }
        Ticket { lines: self, number, partitions, turn }
    }

    /// A panic under the lock is a bug in this driver; its state is still the best there is.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&mut self, partition: &Partition) -> &mut Line {
        // Most calls find their line: they need no copy of its name.
        if !self.lines.contains_key(partition) {
            self.lines.insert(partition.clone(), Line::default());
        }
        self.lines.get_mut(partition).expect("it was put there right now")
    }
}

impl Line {
    fn turn(&self, number: u64, generation: Option<u64>) -> Turn {
        let Some((_, before)) = self.tickets.range(..number).next_back() else { return Turn::Mine };
        match (before.carried_by, generation) {
            (None, _) => Turn::Later,
            (Some(_), None) => Turn::Mine,
            (Some(theirs), Some(own)) if theirs == own => Turn::Mine,
            (Some(theirs), Some(own)) if theirs > own => Turn::Stale,
            (Some(_), Some(_)) => Turn::Later,
        }
    }

    /// Wakes whoever is right behind: nobody else goes by this place.
    fn wake(&self, number: u64) {
        if let Some((_, behind)) = self.tickets.range(number + 1..).next() {
            behind.turn.notify_one();
        }
    }
}

/// A call's place in its lines. Dropping it leaves them.
pub(super) struct Ticket<'a> {
    lines: &'a Lines,
    number: u64,
    partitions: Vec<Partition>,
    turn: Arc<Notify>,
}

impl Ticket<'_> {
    /// The number of the call's append at this place; they ascend in a line.
    pub(super) fn number(&self, at: usize) -> u64 {
        self.number + at as u64
    }

    /// Waits until everybody before it was sent once.
    pub(super) async fn first_turn(&self) {
        while self.look_ahead(None) != Turn::Mine {
            self.turn.notified().await;
        }
    }

    /// Waits until everybody before it was sent over the connection of this generation; false
    /// where there is a newer one.
    pub(super) async fn turn(&self, generation: u64) -> bool {
        loop {
            match self.look_ahead(Some(generation)) {
                Turn::Mine => return true,
                Turn::Stale => return false,
                Turn::Later => self.turn.notified().await,
            }
        }
    }

    fn look_ahead(&self, generation: Option<u64>) -> Turn {
        let mut state = self.lines.state();
        let number = self.number;
        let turns =
            self.partitions.iter().map(|partition| state.line(partition).turn(number, generation));
        turns.max().unwrap_or(Turn::Mine)
    }

    /// The call was sent over the connection of this generation.
    pub(super) fn carried_by(&self, generation: u64) {
        let mut state = self.lines.state();
        for partition in &self.partitions {
            let line = state.line(partition);
            if let Some(place) = line.tickets.get_mut(&self.number) {
                place.carried_by = Some(generation);
            }
            line.wake(self.number);
        }
    }

    /// What lies before all that have no answer, where that is known.
    pub(super) fn bound(&self, partition: &Partition) -> Option<Bound> {
        self.lines.state().line(partition).bound.clone()
    }

    /// Notes that this call's append is at `id`. Only the first in the line may: whatever else
    /// has no answer comes behind it.
    pub(super) fn learn(&self, partition: &Partition, id: EntryId, run_id: &str) {
        let mut state = self.lines.state();
        let line = state.line(partition);
        if line.tickets.keys().next() != Some(&self.number) {
            return;
        }
        match &mut line.bound {
            Some(bound) => {
                bound.id = id;
                if bound.run_id != run_id {
                    run_id.clone_into(&mut bound.run_id);
                }
            }
            None => line.bound = Some(Bound { id, run_id: run_id.to_owned() }),
        }
    }

    /// What was found in a partition's log after a lost connection.
    pub(super) fn looked(&self, partition: &Partition) -> Looked {
        Arc::clone(&self.lines.state().line(partition).looked)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.lines.state();
        for partition in &self.partitions {
            let line = state.line(partition);
            line.tickets.remove(&self.number);
            line.wake(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn to(partitions: &[&str]) -> Vec<Append> {
        let append = |partition: &&str| Append {
            partition: partition.parse().expect("valid"),
            envelopes: Vec::new(),
            delay: Duration::ZERO,
            deduplicate: false,
        };
        partitions.iter().map(append).collect()
    }

    #[test]
    fn calls_of_a_partition_go_in_their_order_on_every_connection() {
        let lines = Lines::default();
        let (first, second) = (lines.enter(&to(&["a:0"])), lines.enter(&to(&["a:0"])));
        let elsewhere = lines.enter(&to(&["a:1"]));
        assert_eq!(elsewhere.turn(1).now_or_never(), Some(true), "lines do not wait for others");
        assert_eq!(first.turn(1).now_or_never(), Some(true));
        assert_eq!(second.turn(1).now_or_never(), None);
        assert_eq!(second.first_turn().now_or_never(), None);
        first.carried_by(1);
        assert_eq!(second.first_turn().now_or_never(), Some(()));
        assert_eq!(second.turn(1).now_or_never(), Some(true));
        second.carried_by(1);
        // The connection is lost.
        let third = lines.enter(&to(&["a:0"]));
        assert_eq!(third.turn(2).now_or_never(), None, "the second is in doubt");
        assert_eq!(second.turn(2).now_or_never(), None, "the first is");
        assert_eq!(first.turn(2).now_or_never(), Some(true));
        first.carried_by(2);
        assert_eq!(third.turn(2).now_or_never(), None);
        assert_eq!(second.turn(2).now_or_never(), Some(true));
        assert_eq!(second.turn(1).now_or_never(), Some(false), "there is a newer connection");
        drop(second);
        assert_eq!(third.turn(2).now_or_never(), Some(true), "who was dropped does not go again");
    }

    #[test]
    fn a_call_for_several_partitions_waits_in_each() {
        let lines = Lines::default();
        let (one, two) = (lines.enter(&to(&["a:0"])), lines.enter(&to(&["a:1"])));
        let both = lines.enter(&to(&["a:0", "a:1", "a:0"]));
        assert_eq!((both.number(0), both.number(2)), (2, 4));
        one.carried_by(1);
        assert_eq!(both.turn(1).now_or_never(), None);
        drop(two);
        assert_eq!(both.turn(1).now_or_never(), Some(true));
        assert_eq!(lines.enter(&to(&["a:9"])).number(0), 5);
    }

    #[test]
    fn the_bound_lies_before_all_that_have_no_answer() {
        let lines = Lines::default();
        let partition: Partition = "a:0".parse().expect("valid");
        let (first, second) = (lines.enter(&to(&["a:0"])), lines.enter(&to(&["a:0"])));
        let id = |millis| EntryId { millis, seq: 0 };
        second.learn(&partition, id(9), "x");
        assert_eq!(first.bound(&partition), None, "the first has no answer");
        first.learn(&partition, id(8), "x");
        drop(first);
        second.learn(&partition, id(3), "y");
        let bound = Bound { id: id(3), run_id: "y".to_owned() };
        assert_eq!(second.bound(&partition), Some(bound), "a history may go backwards");
    }
}
