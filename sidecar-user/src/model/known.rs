//! Whether what is known about an address is still of use.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Shared by all snapshots that know the address.
#[derive(Debug, Default)]
pub struct Usage(AtomicBool);

impl Usage {
    pub fn mark(&self) {
        // Reading is cheap where many do so at once.
        if !self.0.load(Relaxed) {
            self.0.store(true, Relaxed);
        }
    }

    /// Whether it was used since this was asked last.
    pub fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}
