//! Parked keys: what holds the later events of a key back, and where they wait.

use xxhash_rust::xxh3::xxh3_128;

use super::member::Member;
use super::reply;
use crate::delivery::{Delivery, Position};
use crate::error::Error;

/// A key and an event's place in its order, as the scripts know them: both of fixed length, so
/// that they sort as text.
pub(super) struct Parking {
    pub(super) key: String,
    pub(super) origin: String,
}

impl Parking {
    /// Nothing for an event without a key, and in a group that parks none.
    pub(super) fn of(member: &Member, delivery: &Delivery) -> Option<Self> {
        let key =
            delivery.envelope().and_then(crate::Envelope::key).filter(|_| member.park_keys)?;
        let Position { partition: _, entry, index } = delivery.origin();
        Some(Self {
            key: format!("{:032x}", xxh3_128(key.as_bytes())),
            origin: format!("{:020}-{:020}/{index:010}", entry.millis, entry.seq),
        })
    }
}

/// Whether an earlier event of the key is a dead letter, or is run after having been one.
pub(super) async fn is_parked(member: &Member, delivery: &Delivery) -> Result<bool, Error> {
    let Some(Parking { key, origin }) = Parking::of(member, delivery) else { return Ok(false) };
    let commands = &member.shared.commands;
    let hash = member.keys(&delivery.entry.partition).parking;
    let what = format!("ask whether a key is parked in key {hash}");
    let mut get = redis::cmd("HGET");
    get.arg(hash).arg(key);
    let answer = commands.ask_one(&what, get).await?;
    let held = reply::bytes(answer).map_err(|fault| commands.error(what, &fault))?;
    let held = held.unwrap_or_default();
    Ok(held.split(|byte| *byte == b' ').any(|held| !held.is_empty() && held < origin.as_bytes()))
}
