//! Where a bug ends: with the connection that met it. Tokio catches what unwinds in a task of its own; here is what
//! runs in a shard's own future, and how a connection looks to its ends when its walk unwinds.
//!
//! Counts and logs nothing: the hook for panics has, before anything unwinds.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::relay::Port;

/// A bug that is met again at once must not take the shard's time.
const RESTART: Duration = Duration::from_secs(1);

/// Does something for one connection on the shard's own future. A panic ends it there, not the shard.
pub(super) fn contained(work: impl FnOnce()) {
    // The tables that it may leave behind half changed keep each connection apart, and guards put their counts right.
    let _ = catch_unwind(AssertUnwindSafe(work));
}

/// Work that goes on as long as the shard does. After a panic it begins anew.
pub(super) fn restarted<F: Future<Output = ()> + 'static>(work: impl Fn() -> F + 'static) {
    tokio::task::spawn_local(async move {
        // It fails by a panic alone: nobody aborts it.
        while tokio::task::spawn_local(work()).await.is_err() {
            tokio::time::sleep(RESTART).await;
        }
    });
}

/// A stream that is reset when its walk unwinds. A mere drop would end it in order, and what the other side has sent so
/// far would look complete.
pub(super) struct Abortive(Option<TcpStream>);

impl Abortive {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Some(stream))
    }

    pub(super) fn into_inner(mut self) -> TcpStream {
        self.0.take().expect("only its end takes the stream out")
    }
}

impl Deref for Abortive {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        self.0.as_ref().expect("only its end takes the stream out")
    }
}

impl DerefMut for Abortive {
    fn deref_mut(&mut self) -> &mut TcpStream {
        self.0.as_mut().expect("only its end takes the stream out")
    }
}

impl Drop for Abortive {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0
            && thread::panicking()
        {
            Port::reset(stream);
        }
    }
}

/// Two ports that are joined. Both are reset when that unwinds.
pub(super) struct Joined<'p, D: Port, U: Port> {
    pub(super) down: &'p mut D,
    pub(super) up: &'p mut U,
}

impl<D: Port, U: Port> Drop for Joined<'_, D, U> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.down.reset();
            self.up.reset();
        }
    }
}

/// Runs when its walk unwinds.
pub(super) struct OnPanic<F: FnMut()>(pub(super) F);

impl<F: FnMut()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)();
        }
    }
}
