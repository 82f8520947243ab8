//! What is said of an event that is handled once per group and id.

use std::time::Duration;

use super::Step;
use crate::delivery::{Delivery, Output};

impl Step {
    pub(super) fn once(&mut self, delivery: &Delivery, outputs: &[Output], window: Duration) {
        match delivery.envelope() {
            // What is no event has no id.
            None => self.verb(*b"a", delivery),
            Some(envelope) => {
                self.verb(*b"o", delivery);
                let partition = &delivery.entry.partition;
                self.handled.get_or_insert_with(|| self.member.keys(partition).handled);
                self.number(&window.as_millis().max(1));
                self.arg(*envelope.id().as_bytes());
            }
        }
        self.outputs(outputs);
    }
}
