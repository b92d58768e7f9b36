//! How many connections, or tunnels, of a shard there are, for whoever waits until none is left.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct Present {
    pub(super) count: Cell<usize>,
    none: Notify,
}

/// One of them, for as long as it lives.
pub(in super::super) struct Entered(Rc<Present>);

impl Present {
    pub(super) fn enter(gauge: &Rc<Self>) -> Entered {
        gauge.count.set(gauge.count.get() + 1);
        Entered(gauge.clone())
    }

    pub(super) async fn none_left(&self) {
        while self.count.get() > 0 {
            self.none.notified().await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        if self.0.count.get() == 0 {
            self.0.none.notify_one();
        }
    }
}
