//! A store that one source fills and many streams serve.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::{Kind, Store, Touched, Update};

/// Changes that a stream may be behind. One that is further behind looks at all that it serves again.
const BEHIND: usize = 64;

#[derive(Debug)]
pub struct Shared {
    store: Mutex<Store>,
    touched: broadcast::Sender<Arc<Touched>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            store: Mutex::default(),
            touched: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Shared {
    /// Changes resources and tells every stream.
    pub fn apply(&self, changes: impl IntoIterator<Item = Update>) {
        self.change(|store| store.apply(changes));
    }

    /// The source has told all that there is: from now on, what is not here does not exist.
    pub fn complete(&self) {
        for kind in Kind::ALL {
            self.change(|store| store.complete(kind));
        }
    }

    /// Tells streams what a change has touched, in the order in which changes are made.
    pub fn change(&self, change: impl FnOnce(&mut Store) -> Touched) {
        let mut store = self.lock();
        let touched = change(&mut store);
        if !touched.is_empty() {
            // Nobody may be listening.
            let _ = self.touched.send(Arc::new(touched));
        }
    }

    /// Held for as long as it takes to look something up, never across an await.
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn follow(&self) -> broadcast::Receiver<Arc<Touched>> {
        self.touched.subscribe()
    }
}
