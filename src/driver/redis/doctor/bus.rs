//! What lies under our namespace.
//!
//! The evidence is gathered in bounded steps: so many partitions, groups and keys at most, and what
//! was not looked at is said (`look.cut`). What this user may not ask is noted, and the checks that
//! need it say so. Nothing stands still meanwhile: where two answers have to fit together, they
//! are asked for again before anything is said.

mod asking;
mod checks;
mod evidence;
mod follow_up;
mod gather;
mod keyspace;
mod logs;
mod pending;
mod said;

pub(super) use self::checks::RULES;
pub(super) use self::evidence::Evidence;
