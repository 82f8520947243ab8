//! What is said of an event in a group that parks keys.

use std::time::Duration;

use super::{Step, unchanged};
use crate::delivery::{Delivery, Settlement};
use crate::driver::redis::parking::Parking;
use crate::driver::redis::wire;

impl Step {
    /// The verb; in a group that parks keys with the key.
    pub(super) fn verb(&mut self, verb: [u8; 1], delivery: &Delivery) {
        match Parking::of(&self.member, delivery) {
            None => self.arg(verb),
            Some(Parking { key, origin }) => {
                self.arg(verb.to_ascii_uppercase());
                self.arg(key);
                self.arg(origin);
            }
        }
    }

    pub(super) fn park(&mut self, settlement: &Settlement) {
        let delivery = &settlement.delivery;
        if Parking::of(&self.member, delivery).is_none() {
            // Nothing holds it back.
            let again = unchanged(delivery);
            return self.again(settlement, again, Duration::ZERO);
        }
        self.verb(*b"p", delivery);
        let origin = delivery.origin();
        self.arg(wire::encode_retry(delivery.record(), &origin, unchanged(delivery)));
    }
}
