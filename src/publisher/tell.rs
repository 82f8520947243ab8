//! Who waits for the answer of a publish: one caller for one event, or one for many.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::queue::no_answer;
use crate::delivery::Receipt;
use crate::error::PublishError;

pub(super) type Answer = Result<Receipt, PublishError>;

/// Who is to be told of an event, once. Dropped before that, it says that nobody answered.
pub(super) struct Tell(Option<To>);

enum To {
    One(oneshot::Sender<Answer>),
    /// With the place among them.
    Many(Arc<Many>, usize),
}

impl Tell {
    pub(super) fn one() -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self(Some(To::One(answer))), answered)
    }

    pub(super) fn one_of(many: &Arc<Many>, place: usize) -> Self {
        Self(Some(To::Many(Arc::clone(many), place)))
    }

    pub(super) fn tell(&mut self, answer: Answer) {
        match self.0.take() {
            // A caller that went away does not want to know.
            Some(To::One(own)) => drop(own.send(answer)),
            Some(To::Many(many, place)) => many.note(place, answer),
            None => {}
        }
    }

    pub(super) fn is_told(&self) -> bool {
        self.0.is_none()
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        if !self.is_told() {
            self.tell(Err(no_answer()));
        }
    }
}

/// The answers that one caller waits for together: one allocation and one wake-up for all.
pub(super) struct Many {
    answers: Mutex<Answers>,
    all_noted: Notify,
}

struct Answers {
    /// By place.
    noted: Vec<Option<Answer>>,
    left: usize,
}

impl Many {
    pub(super) fn of(count: usize) -> Arc<Self> {
        let noted = (0..count).map(|_| None).collect();
        let answers = Mutex::new(Answers { noted, left: count });
        Arc::new(Self { answers, all_noted: Notify::new() })
    }

    /// Notes an answer; the first for a place stands.
    pub(super) fn note(&self, place: usize, answer: Answer) {
        let left = {
            let mut answers = self.answers();
            if answers.noted[place].is_some() {
                return;
            }
            answers.noted[place] = Some(answer);
            answers.left -= 1;
            answers.left
        };
        if left == 0 {
            self.all_noted.notify_one();
        }
    }

    /// All answers by place, when the last is there.
    pub(super) async fn all(&self) -> Vec<Answer> {
        loop {
            {
                let mut answers = self.answers();
                if answers.left == 0 {
                    let noted = std::mem::take(&mut answers.noted);
                    return noted.into_iter().flatten().collect();
                }
            }
            self.all_noted.notified().await;
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn refused(why: &'static str) -> Answer {
        Err(PublishError::NotStored(Error::invalid(why)))
    }

    fn said(answer: &Answer) -> String {
        answer.as_ref().expect_err("all were refused").to_string()
    }

    #[tokio::test]
    async fn many_are_told_in_their_places_and_once() {
        let many = Many::of(3);
        let mut tells: Vec<Tell> = (0..3).map(|place| Tell::one_of(&many, place)).collect();
        tells[2].tell(refused("two"));
        tells[2].tell(refused("again"));
        tells[0].tell(refused("nought"));
        assert!(tells[0].is_told() && !tells[1].is_told());
        let all = tokio::spawn({
            let many = Arc::clone(&many);
            async move { many.all().await }
        });
        tokio::task::yield_now().await;
        assert!(!all.is_finished(), "one is not answered");
        drop(tells);
        let all = all.await.expect("no panic");
        assert!(said(&all[0]).contains("nought") && said(&all[2]).contains("two"));
        assert!(matches!(all[1], Err(PublishError::Unknown(_))), "nobody answered");
        assert!(Many::of(0).all().await.is_empty());
    }

    #[tokio::test]
    async fn who_is_never_told_hears_that_nobody_answered() {
        let (tell, answered) = Tell::one();
        drop(tell);
        assert!(matches!(answered.await, Ok(Err(PublishError::Unknown(_)))));
    }
}
