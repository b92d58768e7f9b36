//! Where lines of the log wait, and the one thread that writes them.
//!
//! Own code, because what `tracing-appender` offers bounds lines and not bytes, loses lines uncounted when a write fails,
//! and may print to standard output at the end, which blocks where both streams go to one reader that is stuck.

use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::gate::Gate;
use super::panics::{Report, Teller};
use super::privileges::{self, Privileges};

/// Bytes that may wait. As much may be in the hands of the thread, so that a log takes twice this at most; some 5,000
/// lines bridge a reader's pause of a second while debug lines are written.
const ROOM: usize = 512 * 1024;

/// Panics that may wait: each holds a backtrace.
const REPORTS: usize = 16;

/// A buffer up to this size is kept for the next lines.
const KEEP: usize = 16 * 1024;

/// How often the ends of bursts are looked for.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to do.
    news: Condvar,
    /// The thread has ended.
    ended: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    reports: Vec<Report>,
    finishing: bool,
    ended: bool,
}

impl Queue {
    /// Takes a line, or counts it where there is no room. Waits for nothing but other threads that copy a line.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() + line.len() > ROOM {
            drop(state);
            self.drop_lines(1);
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.news.notify_one();
    }

    pub(super) fn report(&self, report: Report) {
        let mut state = self.state();
        if state.reports.len() < REPORTS {
            state.reports.push(report);
            drop(state);
            self.news.notify_one();
        } else {
            drop(state);
            self.drop_lines(1);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Has all that waits written, and returns when that is done, at the latest after `patience`.
    pub(super) fn finish(&self, patience: Duration) {
        let mut state = self.state();
        state.finishing = true;
        self.news.notify_one();
        let ended = self
            .ended
            .wait_timeout_while(state, patience, |state| !state.ended);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for something to do; not for longer than `limit`, if there is one.
    fn next(&self, mut lines: Vec<u8>, limit: Option<Duration>) -> Turn {
        lines.clear();
        if lines.capacity() > KEEP {
            lines = Vec::new();
        }
        let idle = |state: &mut State| state.lines.is_empty() && state.reports.is_empty() && !state.finishing;
        let state = self.state();
        let mut state = match limit {
            Some(limit) => {
                let waited = self.news.wait_timeout_while(state, limit, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                let waited = self.news.wait_while(state, idle);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        mem::swap(&mut lines, &mut state.lines);
        Turn {
            lines,
            reports: mem::take(&mut state.reports),
            finishing: state.finishing,
        }
    }

    /// Ends, unless something has come meanwhile.
    fn end_if_empty(&self) -> bool {
        let mut state = self.state();
        state.ended = state.lines.is_empty() && state.reports.is_empty();
        if state.ended {
            self.ended.notify_all();
        }
        state.ended
    }

    fn drop_lines(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer that a formatted event is given to: whole lines, one call each.
pub(super) struct Line(pub(super) Arc<Queue>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the thread has to do at a time.
struct Turn {
    lines: Vec<u8>,
    reports: Vec<Report>,
    finishing: bool,
}

/// Starts the thread. The process ends without it where `out` is stuck.
pub(super) fn start(
    queue: Arc<Queue>,
    gate: Arc<Gate>,
    out: impl Write + AsFd + Send + 'static,
) -> io::Result<()> {
    let thread = thread::Builder::new().name("log".to_owned());
    let write = move || {
        privileges::keep(Privileges::NONE);
        run(&queue, &gate, out);
    };
    thread.spawn(write).map(drop)
}

fn run(queue: &Queue, gate: &Gate, mut out: impl Write + AsFd) {
    let (mut lines, mut teller, mut told) = (Vec::new(), Teller::default(), 0);
    loop {
        let turn = queue.next(lines, gate.is_busy().then_some(LOOK));
        let lost = write_out(&mut out, &turn.lines);
        queue.drop_lines(lost);
        let now = Instant::now();
        for report in &turn.reports {
            teller.tell(report, now);
        }
        gate.tell(now, turn.finishing);
        // Not after a write that failed: the line would be lost as well, and be the next one's news.
        let dropped = queue.dropped();
        if dropped > told && lost == 0 {
            tracing::warn!(
                lines = dropped - told,
                "lines of the log were dropped: its reader was too slow, or it could not be written"
            );
            told = dropped;
        }
        lines = turn.lines;
        if turn.finishing && queue.end_if_empty() {
            return;
        }
    }
}

/// Returns how many lines could not be written.
fn write_out(out: &mut (impl Write + AsFd), mut rest: &[u8]) -> u64 {
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever has the other end of the same description has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && until_writable(out) => {}
            Err(_) => break,
        }
    }
    rest.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn until_writable(out: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    matches!(
        poll(&mut fds, PollTimeout::NONE),
        Ok(_) | Err(nix::errno::Errno::EINTR)
    )
}

#[cfg(test)]
mod tests;
