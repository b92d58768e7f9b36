//! A tracing subscriber that keeps messages.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Default)]
pub(super) struct Capture {
    pub(super) lines: Arc<Lines>,
}

#[derive(Default)]
pub(super) struct Lines {
    text: Mutex<String>,
    added: Notify,
}

impl Lines {
    /// Returns once a line contains the text.
    pub(super) async fn wait_for(&self, text: &str) {
        while !self.text.lock().expect("not poisoned").contains(text) {
            self.added.notified().await;
        }
    }
}

impl Visit for &Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            writeln!(self.text.lock().expect("not poisoned"), "{value:?}").expect("a string");
            self.added.notify_one();
        }
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut &*self.lines);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
