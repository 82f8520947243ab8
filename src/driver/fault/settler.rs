//! The place where deliveries end, or seem not to.

use std::sync::Arc;

use async_trait::async_trait;

use super::chance::Chance;
use super::hands::Hands;
use super::{Fault, failed};
use crate::delivery::{Bits, Delivery, Entry, Settled, Settlement};
use crate::driver::Settler;
use crate::error::Error;

pub(super) struct FaultSettler {
    chance: Arc<Chance>,
    hands: Arc<Hands>,
}

impl FaultSettler {
    pub(super) fn new(chance: Arc<Chance>, hands: Arc<Hands>) -> Self {
        Self { chance, hands }
    }

    async fn settle_by_chance(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        const FATES: [Fault; 2] = [Fault::SettleFailed, Fault::SettleAnswerLost];
        self.chance.before().await;
        let fates: Vec<_> = settlements.iter().map(|_| self.chance.one_of(&FATES)).collect();
        let mut answers: Vec<_> = settlements.iter().map(|_| Err(failed("settle"))).collect();
        let mut left: Vec<usize> = (0..settlements.len()).collect();
        left.retain(|place| fates[*place] != Some(Fault::SettleFailed));
        while let Some(first) = left.first() {
            let settler = self.hands.settler(&settlements[*first].delivery.entry);
            let own = |place: &mut usize| {
                let other = self.hands.settler(&settlements[*place].delivery.entry);
                Arc::ptr_eq(&settler, &other)
            };
            let places: Vec<usize> = left.extract_if(.., own).collect();
            let batch = places.iter().map(|place| settlements[*place].clone()).collect();
            for (place, answer) in places.into_iter().zip(settler.settle(batch).await) {
                if fates[place].is_none() {
                    answers[place] = answer;
                }
            }
        }
        self.chance.after().await;
        for (settlement, answer) in settlements.iter().zip(&answers) {
            if answer.is_ok() {
                self.hands.answered(&settlement.delivery);
            }
        }
        answers
    }
}

impl FaultSettler {
    async fn ack_by_chance(&self, entries: Vec<Arc<Entry>>) -> Vec<Result<Settled, Error>> {
        const FATES: [Fault; 2] = [Fault::SettleFailed, Fault::SettleAnswerLost];
        self.chance.before().await;
        let mut answers = Vec::with_capacity(entries.len());
        for entry in &entries {
            let fate = self.chance.one_of(&FATES);
            if fate == Some(Fault::SettleFailed) {
                answers.push(Err(failed("settle")));
                continue;
            }
            let settler = self.hands.settler(entry);
            let answer = settler.ack(vec![Arc::clone(entry)]).await.pop();
            let answer = answer.filter(|_| fate.is_none());
            answers.push(answer.unwrap_or_else(|| Err(failed("settle"))));
        }
        self.chance.after().await;
        for (entry, _) in entries.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
            entry.deliveries().for_each(|delivery| self.hands.answered(&delivery));
        }
        answers
    }
}

#[async_trait]
impl Settler for FaultSettler {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled, Error>> {
        self.chance.alive(self.settle_by_chance(settlements)).await
    }

    async fn ack(&self, entries: Vec<Arc<Entry>>) -> Vec<Result<Settled, Error>> {
        self.chance.alive(self.ack_by_chance(entries)).await
    }

    async fn begin(&self, delivery: &Delivery) -> Result<Option<u32>, Error> {
        let begin = async {
            self.chance.before().await;
            if self.chance.strikes(Fault::BeginFailed) {
                return Err(failed("begin"));
            }
            let found = self.hands.settler(&delivery.entry).begin(delivery).await;
            self.chance.after().await;
            if self.chance.strikes(Fault::BeginAnswerLost) {
                return Err(failed("begin"));
            }
            found
        };
        self.chance.alive(begin).await
    }

    async fn is_parked(&self, delivery: &Delivery) -> Result<bool, Error> {
        let ask = async {
            self.chance.before().await;
            if self.chance.strikes(Fault::AskFailed) {
                return Err(failed("ask whether a key is parked"));
            }
            let parked = self.hands.settler(&delivery.entry).is_parked(delivery).await;
            self.chance.after().await;
            parked
        };
        self.chance.alive(ask).await
    }

    async fn handled(&self, entry: &Entry) -> Result<Bits, Error> {
        let ask = async {
            self.chance.before().await;
            if self.chance.strikes(Fault::AskFailed) {
                return Err(failed("ask what was handled"));
            }
            let handled = self.hands.settler(entry).handled(entry).await;
            self.chance.after().await;
            handled
        };
        self.chance.alive(ask).await
    }
}
