//! The server, and what this user may do on it.

use super::Rule;
use crate::driver::redis::Shared;
use crate::error::Error;

/// What the server says of itself.
pub(super) struct Evidence {}

impl Evidence {
    /// Asks the server.
    pub(super) async fn gather(_shared: &Shared) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// The server in a few lines.
    pub(super) fn summary(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The checks, in the order in which they are told.
pub(super) const RULES: &[Rule<Evidence>] = &[];
