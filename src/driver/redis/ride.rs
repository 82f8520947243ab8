//! Acks that ride with the next read: one write instead of two, while a reader has nothing to do.
//!
//! Behind a blocked read an ack would wait for the block to end, so nothing boards then.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::socket::{Socket, When};
use redis::{Pipeline, Value};
use tokio::sync::{Notify, oneshot};

/// The acks that wait for a reader's next write.
#[derive(Default)]
pub(super) struct Rides {
    /// `None` while nothing may board.
    waiting: Mutex<Option<Vec<Ride>>>,
    boarded: Notify,
}

/// Commands, and who waits for the answers.
pub(super) struct Ride {
    commands: Pipeline,
    answers: oneshot::Sender<Vec<Value>>,
}

impl Rides {
    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Ride>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on acks may board.
    pub(super) fn open(&self) {
        self.waiting().get_or_insert_default();
    }

    /// Nothing boards any more; gives what has.
    pub(super) fn depart(&self) -> Vec<Ride> {
        self.waiting().take().unwrap_or_default()
    }

    /// Waits until something has boarded.
    pub(super) async fn boarded(&self) {
        while self.waiting().as_ref().is_none_or(Vec::is_empty) {
            // This may have been told of what left with the last read.
            self.boarded.notified().await;
        }
    }

    /// The answers to `commands`.
    pub(super) async fn carry(&self, commands: &Pipeline) -> Result<Vec<Value>, NotCarried> {
        let arrived = {
            let mut waiting = self.waiting();
            let waiting = waiting.as_mut().ok_or(NotCarried::Left)?;
            let (answers, arrived) = oneshot::channel();
            waiting.push(Ride { commands: commands.clone(), answers });
            arrived
        };
        self.boarded.notify_one();
        arrived.await.map_err(|_| NotCarried::Lost)
    }
}

/// Why commands have no answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotCarried {
    /// They did not board.
    Left,
    /// They boarded: the server may have done them.
    Lost,
}

/// Sends what boarded, and hands the answers out. Where the connection fails, those who wait are
/// told so by the end of their channel, and take another way.
pub(super) async fn deliver(connection: &Socket, rides: Vec<Ride>, when: When) {
    let mut all = Pipeline::new();
    for ride in &rides {
        for command in ride.commands.cmd_iter() {
            all.add_command(command.clone());
        }
    }
    if all.is_empty() {
        return;
    }
    let Ok(values) = connection.send_when(&all, when).await else { return };
    let mut values = values.into_iter();
    for ride in rides {
        let own = values.by_ref().take(ride.commands.len()).collect();
        let _gone = ride.answers.send(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn what_has_left_has_not_boarded() {
        let (rides, acks) = (Rides::default(), redis::pipe());
        rides.open();
        assert!(rides.carry(&acks).now_or_never().is_none(), "no answer yet");
        assert_eq!(rides.depart().len(), 1);
        rides.open();
        assert!(rides.boarded().now_or_never().is_none(), "what was told of has left");
        assert!(rides.carry(&acks).now_or_never().is_none());
        assert!(rides.boarded().now_or_never().is_some());
    }
}
