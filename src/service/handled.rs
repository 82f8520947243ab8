//! What the group has handled, as the store knows it: asked for whole entries, since the events of
//! an entry are run close together and one question costs as much as twenty.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::delivery::{Bits, Delivery, Entry};
use crate::driver::Settler;
use crate::error::{Error, ErrorKind};

/// How long an answer is good for. Long enough for quick handlers to go through an entry, short
/// against the time between two copies of an event. An answer that is too old costs a handler
/// call, never an output: the settlement looks again.
const FRESH: Duration = Duration::from_millis(100);
/// How long a store that did not answer is left alone.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Asks a consumer's store which events its group has handled.
pub(crate) struct Handled {
    settler: Arc<dyn Settler>,
    looks: Mutex<Looks>,
}

/// One question about an entry; its events wait for the same answer.
#[derive(Default)]
struct Look(OnceCell<Bits>);

/// The questions of the last moments.
#[derive(Default)]
struct Looks {
    /// By the address of the entry, which nothing else has while it is in `order`.
    by_entry: HashMap<usize, Arc<Look>>,
    order: VecDeque<(Instant, Weak<Entry>)>,
}

impl Handled {
    pub(crate) fn new(settler: Arc<dyn Settler>) -> Self {
        Self { settler, looks: Mutex::default() }
    }

    /// Whether the group has handled an event of this id. Asks until the store answers: an event
    /// that ran unasked could be one that was handled.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the store does not keep it.
    pub(super) async fn contains(&self, delivery: &Delivery) -> Result<bool, Error> {
        let mut said = false;
        loop {
            match self.ask(delivery).await {
                Err(error) if error.kind() != ErrorKind::Unsupported => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "cannot ask what was handled; trying again");
                    }
                    sleep(ASK_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask(&self, delivery: &Delivery) -> Result<bool, Error> {
        let entry = &delivery.entry;
        if entry.records.len() - entry.settled.len() <= 1 {
            return Ok(self.settler.handled(entry).await?.contains(delivery.index));
        }
        let look = self.looks().about(entry, Instant::now());
        let handled = look.0.get_or_try_init(|| self.settler.handled(entry)).await?;
        Ok(handled.contains(delivery.index))
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Looks {
    /// The question about an entry that is fresh, or a new one.
    fn about(&mut self, entry: &Arc<Entry>, now: Instant) -> Arc<Look> {
        while let Some((begun, _)) = self.order.front()
            && now.duration_since(*begun) >= FRESH
        {
            if let Some((_, entry)) = self.order.pop_front() {
                self.by_entry.remove(&(entry.as_ptr() as usize));
            }
        }
        let key = Arc::as_ptr(entry) as usize;
        let look = self.by_entry.entry(key).or_insert_with(|| {
            self.order.push_back((now, Arc::downgrade(entry)));
            Arc::default()
        });
        Arc::clone(look)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::codec::ContentType;
    use crate::delivery::{EntryId, Queue, Settled, Settlement, Token};
    use crate::envelope::Envelope;
    use crate::event_type::EventType;
    use crate::time::Timestamp;

    /// Knows the second event of every entry; the first question of all fails.
    #[derive(Default)]
    struct Second(AtomicUsize);

    #[async_trait]
    impl Settler for Second {
        async fn settle(&self, _: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
            unreachable!("nothing ends here")
        }

        async fn handled(&self, _: &Entry) -> Result<Bits, Error> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err(Error::new(ErrorKind::Unreachable, "away"));
            }
            tokio::task::yield_now().await;
            Ok(Bits::from_bytes([2]))
        }
    }

    /// Keeps nothing.
    struct Forgetful;

    #[async_trait]
    impl Settler for Forgetful {
        async fn settle(&self, _: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
            unreachable!("nothing ends here")
        }

        async fn handled(&self, _: &Entry) -> Result<Bits, Error> {
            Err(Error::new(ErrorKind::Unsupported, "not kept"))
        }
    }

    fn deliveries(events: usize) -> Vec<Delivery> {
        let record = || {
            let now = Timestamp::from_millis(1);
            let event_type = EventType::from_static("a.b");
            Envelope::builder(event_type, ContentType::JSON, "1", now).build()
        };
        let entry = Entry {
            partition: "a:0".parse().expect("valid"),
            queue: Queue::Log,
            id: EntryId::ZERO,
            records: (0..events).map(|_| Ok(record().expect("within limits"))).collect(),
            settled: Bits::new(),
            attempt: 1,
            origin: None,
            token: Token(1),
            suspect: false,
            lease: CancellationToken::new(),
        };
        Arc::new(entry).deliveries().collect()
    }

    async fn ask_all(handled: &Handled, deliveries: &[Delivery]) -> Vec<bool> {
        let answers = deliveries.iter().map(|delivery| handled.contains(delivery));
        let answers = futures_util::future::join_all(answers).await;
        answers.into_iter().map(|answer| answer.expect("it is kept")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_is_asked_about_once_while_the_answer_is_fresh() {
        let settler = Arc::new(Second::default());
        let asked = || settler.0.load(Ordering::Relaxed);
        let handled = Handled::new(Arc::clone(&settler) as Arc<dyn Settler>);
        let (first, other) = (deliveries(4), deliveries(3));
        assert_eq!(ask_all(&handled, &first).await, [false, true, false, false]);
        // The question that failed was asked again by the next in line for all of them, and by who
        // had asked it after a pause.
        assert_eq!(asked(), 3);
        assert_eq!(ask_all(&handled, &first).await, [false, true, false, false]);
        assert_eq!(asked(), 3);
        assert_eq!(ask_all(&handled, &other).await, [false, true, false]);
        assert_eq!(asked(), 4);
        tokio::time::advance(FRESH).await;
        assert_eq!(ask_all(&handled, &first[..1]).await, [false]);
        assert_eq!(asked(), 5);
        assert_eq!(handled.looks().order.len(), 1, "the rest is forgotten");
        assert_eq!(handled.looks().by_entry.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_keeps_nothing_is_not_asked_again() {
        let handled = Handled::new(Arc::new(Forgetful));
        let deliveries = deliveries(2);
        let answer = handled.contains(&deliveries[0]);
        let answer = tokio::time::timeout(FRESH, answer).await.expect("at once");
        assert_eq!(answer.expect_err("not kept").kind(), ErrorKind::Unsupported);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_alone_is_asked_about_and_nothing_is_kept_of_it() {
        let settler = Arc::new(Second(AtomicUsize::new(1)));
        let handled = Handled::new(Arc::clone(&settler) as Arc<dyn Settler>);
        assert_eq!(ask_all(&handled, &deliveries(1)).await, [false]);
        let first = deliveries(2).swap_remove(0);
        let mut rest = Arc::into_inner(first.entry).expect("alone");
        rest.settled.insert(0);
        let rest: Vec<Delivery> = Arc::new(rest).deliveries().collect();
        assert_eq!(ask_all(&handled, &rest).await, [true]);
        assert_eq!(handled.looks().order.len(), 0);
    }
}
