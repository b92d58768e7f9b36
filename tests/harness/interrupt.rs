//! Ctrl-C, for programs that build a fabric outside of the tests: nothing may be left behind then either.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

use crate::name;

/// Takes SIGINT, SIGTERM and SIGHUP for the whole process.
#[derive(Debug)]
pub struct Interrupts {
    awaited: Arc<AtomicBool>,
    signals: Receiver<Signal>,
}

impl Interrupts {
    /// From now on these signals remove every fabric of this process and end it, unless somebody
    /// [`wait`](Self::wait)s for them. Call it while the process has one thread: others would take the signals as before.
    pub fn handle() -> Result<Self> {
        Self::handle_with(name::remove_own)
    }

    /// The same with a clean-up of the caller's.
    pub fn handle_with(clean_up: impl Fn() + Send + 'static) -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let awaited = Arc::new(AtomicBool::new(false));
        let (sender, signals) = channel();
        let is_awaited = awaited.clone();
        thread::spawn(move || {
            while let Ok(signal) = mask.wait() {
                if !is_awaited.load(SeqCst) {
                    eprintln!("\n{signal}: cleaning up");
                    clean_up();
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the clean-up is done, and main may never return"
                    )]
                    process::exit(128 + signal as i32);
                }
                // Nobody listens any more when the owner is cleaning up already.
                let _ = sender.send(signal);
            }
        });
        Ok(Self { awaited, signals })
    }

    /// Waits for a signal. After that the owner cleans up, and further signals do not disturb it.
    pub fn wait(&self) -> Result<Signal> {
        self.awaited.store(true, SeqCst);
        Ok(self.signals.recv()?)
    }
}
