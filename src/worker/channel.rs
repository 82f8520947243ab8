//! The queues of a worker: bounded, many senders, one receiver, and both ends move many at a time.
//!
//! tokio's channel wakes its receiver for each message and links each into a list. Here what goes
//! together takes one lock and one wake-up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// A permit for each message that there is room for.
    room: Semaphore,
    /// There are messages, or no senders any more.
    changed: Notify,
}

struct State<T> {
    waiting: VecDeque<T>,
    senders: usize,
    /// The receiver is gone: nobody takes what is sent.
    is_over: bool,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A channel with room for so many messages.
pub(super) fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { waiting: VecDeque::new(), senders: 1, is_over: false });
    let (room, changed) = (Semaphore::new(bound), Notify::new());
    let shared = Arc::new(Shared { state, room, changed });
    (Sender(Arc::clone(&shared)), Receiver { shared, bound })
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends a message when there is room.
    pub(super) async fn send(&self, message: T) -> Result<(), Gone> {
        self.reserve(1).await?.send([message]);
        Ok(())
    }

    /// Room for so many messages, as many as the channel holds at most.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it has lost its place in line.
    pub(super) async fn reserve(&self, count: usize) -> Result<Room<'_, T>, Gone> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let permit = self.0.room.acquire_many(count).await.map_err(|_| Gone)?;
        Ok(Room { permit, shared: &self.0 })
    }

    /// Moves messages over, oldest first, while there is room; gives how many.
    pub(super) fn fill(&self, from: &mut VecDeque<T>) -> usize {
        let count = from.len().min(self.0.room.available_permits());
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        let Ok(permit) = self.0.room.try_acquire_many(permits) else { return 0 };
        if count > 0 {
            Room { permit, shared: &self.0 }.send(from.drain(..count));
        }
        count
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state();
            state.senders -= 1;
            state.senders
        };
        if left == 0 {
            self.0.changed.notify_one();
        }
    }
}

/// Room that was reserved; given back where it is dropped.
pub(super) struct Room<'a, T> {
    permit: SemaphorePermit<'a>,
    shared: &'a Shared<T>,
}

impl<T> Room<'_, T> {
    /// Sends as many messages as were reserved.
    pub(super) fn send(self, messages: impl IntoIterator<Item = T>) {
        let reserved = self.permit.num_permits();
        self.permit.forget();
        let before = {
            let mut state = self.shared.state();
            if state.is_over {
                drop(state);
                return drop(messages);
            }
            let before = state.waiting.len();
            state.waiting.extend(messages);
            debug_assert_eq!(state.waiting.len() - before, reserved, "as many as were reserved");
            before
        };
        // Who has not taken what was there was told of that.
        if before == 0 {
            self.shared.changed.notify_one();
        }
    }
}

pub(super) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    bound: usize,
}

impl<T> Receiver<T> {
    /// Moves messages over, oldest first, `most` at most; waits until there is one. None come
    /// where all senders are gone.
    ///
    /// # Cancel safety
    /// Dropped before it is done, nothing was taken.
    pub(super) async fn take(&mut self, into: &mut VecDeque<T>, most: usize) -> usize {
        loop {
            if let Some(count) = self.take_now(into, most) {
                return count;
            }
            self.shared.changed.notified().await;
        }
    }

    fn take_now(&self, into: &mut VecDeque<T>, most: usize) -> Option<usize> {
        let count = {
            let mut state = self.shared.state();
            let count = state.waiting.len().min(most);
            if count == 0 {
                return (state.senders == 0).then_some(0);
            }
            if into.is_empty() && count == state.waiting.len() {
                std::mem::swap(into, &mut state.waiting);
            } else {
                into.extend(state.waiting.drain(..count));
            }
            count
        };
        self.shared.room.add_permits(count);
        Some(count)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shared.state().waiting.is_empty()
    }

    /// How many messages there is room for in all.
    pub(super) fn bound(&self) -> usize {
        self.bound
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.room.close();
        let waiting = {
            let mut state = self.shared.state();
            state.is_over = true;
            std::mem::take(&mut state.waiting)
        };
        // Who waits for the end of a message hears of it, though senders are left.
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: std::ops::Range<u32>) -> VecDeque<u32> {
        numbers.collect()
    }

    async fn next(receiver: &mut Receiver<u32>, most: usize) -> Vec<u32> {
        let mut taken = VecDeque::new();
        assert_eq!(receiver.take(&mut taken, most).await, taken.len());
        taken.into()
    }

    #[tokio::test]
    async fn messages_come_in_order_and_no_more_than_there_is_room_for() {
        let (sender, mut receiver) = channel(3);
        let mut from = of(0..5);
        assert_eq!((sender.fill(&mut from), sender.fill(&mut from)), (3, 0));
        assert_eq!(from, [3, 4]);
        assert_eq!(next(&mut receiver, 2).await, [0, 1]);
        assert_eq!(sender.fill(&mut from), 2);
        let mut taken = of(9..10);
        assert_eq!(receiver.take(&mut taken, 9).await, 3);
        assert_eq!(taken, [9, 2, 3, 4]);
        assert!(receiver.is_empty() && receiver.bound() == 3);
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_it() {
        let (sender, mut receiver) = channel(2);
        sender.reserve(2).await.expect("there is room").send([1, 2]);
        let waits = tokio::spawn(async move { sender.send(3).await });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        assert_eq!(next(&mut receiver, 1).await, [1]);
        assert_eq!(waits.await.expect("no panic"), Ok(()));
        assert_eq!(next(&mut receiver, 9).await, [2, 3]);
        assert!(next(&mut receiver, 9).await.is_empty(), "its sender is gone");
    }

    #[tokio::test]
    async fn room_that_is_not_used_is_given_back() {
        let (sender, _receiver) = channel::<u32>(1);
        drop(sender.reserve(1).await);
        assert_eq!(sender.fill(&mut of(0..1)), 1);
    }

    #[tokio::test]
    async fn the_last_sender_ends_it_and_what_was_sent_comes() {
        let (sender, mut receiver) = channel(2);
        let other = sender.clone();
        drop(sender);
        let waits = tokio::spawn(async move { (next(&mut receiver, 9).await, receiver) });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "there is another sender");
        assert_eq!(other.send(7).await, Ok(()));
        let (messages, mut receiver) = waits.await.expect("no panic");
        assert_eq!(messages, [7]);
        let waits = tokio::spawn(async move { next(&mut receiver, 9).await });
        tokio::task::yield_now().await;
        drop(other);
        assert!(waits.await.expect("no panic").is_empty());
    }

    #[tokio::test]
    async fn nothing_is_taken_by_who_did_not_wait_for_it_and_nothing_is_slept_through() {
        let (sender, mut receiver) = channel(4);
        let mut taken = VecDeque::new();
        {
            let mut take = std::pin::pin!(receiver.take(&mut taken, 9));
            assert!(futures_util::poll!(take.as_mut()).is_pending());
            sender.send(1).await.expect("there is room");
        }
        assert_eq!(next(&mut receiver, 9).await, [1]);
        sender.send(2).await.expect("there is room");
        sender.send(3).await.expect("there is room");
        assert_eq!(next(&mut receiver, 1).await, [2]);
        assert_eq!(next(&mut receiver, 1).await, [3], "nobody tells of what was left");
    }

    #[tokio::test]
    async fn what_was_sent_does_not_outlive_its_receiver() {
        let (sender, receiver) = channel(2);
        let (message, ended) = tokio::sync::oneshot::channel::<()>();
        sender.send(message).await.expect("there is room");
        let room = sender.reserve(1).await.expect("there is room");
        drop(receiver);
        assert!(ended.await.is_err());
        let (message, ended) = tokio::sync::oneshot::channel::<()>();
        room.send([message]);
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_takes_nothing() {
        let (sender, receiver) = channel(1);
        drop(receiver);
        assert_eq!(sender.send(1).await, Err(Gone));
        assert_eq!(sender.fill(&mut of(0..1)), 0);
    }
}
