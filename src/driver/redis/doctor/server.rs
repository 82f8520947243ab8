//! The server, and what this user may do on it.

use super::Rule;
use crate::driver::redis::Shared;
use crate::delivery::Durability;
use crate::driver::admin::Store;
use crate::error::Error;

/// What the server says of itself.
pub(super) struct Evidence {}

impl Evidence {
    /// Asks the server.
    pub(super) async fn gather(_shared: &Shared) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// The server in a few lines.
    pub(super) fn summary(&self) -> Store {
        let durability = Durability::Unknown;
        let (name, version, role) = Default::default();
        Store { name, version, role, durability, about: Vec::new() }
    }
}

/// The checks, in the order in which they are told.
pub(super) fn rules() -> impl Iterator<Item = &'static Rule<Evidence>> {
    std::iter::empty()
}
