//! What a sidecar may still do once it serves, of what its start took. Installing, opening raw sockets and ending connections
//! from before take capabilities; serving takes none, as the sidecars of an agent show, which never have any.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;

use super::kernel::Kernel;
use crate::datapath::{self, Error, NeighbourQuery, Neighbours};
use crate::lifecycle::{self, Privileges};

/// What each thread keeps that serves: nothing, or CAP_BPF where the kernel asks for that at every write to a map.
#[derive(Clone, Copy)]
pub(super) struct Kept(Privileges);

impl Kept {
    pub(super) fn find() -> Self {
        let takes_capability = Self(Privileges::NONE).without(datapath::takes_capability);
        Self(match takes_capability {
            true => Privileges::BPF,
            false => Privileges::NONE,
        })
    }

    /// Has it done by a thread that gives up first, for what starts threads of its own, or reads what it is going to read again.
    pub(super) fn without<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let working = scope.spawn(|| {
                self.alone();
                work()
            });
            working.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// For the calling thread, and those that it starts from now on.
    pub(super) fn alone(self) {
        lifecycle::keep(self.0);
    }

    /// As [`Self::alone`], and these.
    pub(super) fn also(self, more: Privileges) {
        lifecycle::keep(self.0 | more);
    }
}

/// Asks who else is attached to the pod, which takes CAP_NET_ADMIN: by a thread that keeps it, and does nothing else.
pub(super) struct Asking {
    ask: Sender<()>,
    answers: Receiver<Result<Neighbours, Error>>,
}

impl Asking {
    /// To be called by a thread that has the capability yet. `None`: it is the agent who may ask.
    pub(super) fn begin(kernel: Option<&Kernel>, kept: Kept) -> anyhow::Result<Option<Self>> {
        let Some(query) = kernel.and_then(Kernel::neighbours) else {
            return Ok(None);
        };
        let ((ask, asked), (answer, answers)) = (channel(), channel());
        let run = move || {
            kept.also(Privileges::NET_ADMIN);
            serve(&query, &asked, &answer);
        };
        let thread = thread::Builder::new().name("neighbours".into());
        thread
            .spawn(run)
            .context("cannot start the thread that asks who else is attached")?;
        Ok(Some(Self { ask, answers }))
    }

    /// `None`: the thread has ended.
    pub(super) fn ask(&self) -> Option<Result<Neighbours, Error>> {
        self.ask.send(()).ok()?;
        self.answers.recv().ok()
    }
}

fn serve(query: &NeighbourQuery, asked: &Receiver<()>, answer: &Sender<Result<Neighbours, Error>>) {
    while asked.recv().is_ok() && answer.send(query.ask()).is_ok() {}
}
