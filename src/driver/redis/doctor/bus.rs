//! What lies under our namespace.

use super::Rule;
use crate::driver::redis::Shared;
use crate::error::Error;

/// The keys, topics and groups.
pub(super) struct Evidence {}

impl Evidence {
    /// Looks at them.
    pub(super) async fn gather(_shared: &Shared) -> Result<Self, Error> {
        Ok(Self {})
    }
}

/// The checks, in the order in which they are told.
pub(super) const RULES: &[Rule<Evidence>] = &[];
