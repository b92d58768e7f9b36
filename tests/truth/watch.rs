//! What poll(2) says about a socket, as words. Changes nothing on it.

use std::io;
use std::ops::{BitAnd, BitOr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;

use crate::sys;

/// A set of events, with those that portable wrappers leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Events(pub(crate) i16);

impl Events {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const IN: Self = Self(libc::POLLIN);
    pub(crate) const PRI: Self = Self(libc::POLLPRI);
    /// All that a reset, or an attempt that fails, brings. The kernel sets one after the other.
    pub(crate) const RESET: Self = Self(libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP);
    pub(crate) const OUT: Self = Self(libc::POLLOUT);
    pub(crate) const RDHUP: Self = Self(libc::POLLRDHUP);
    pub(crate) const HUP: Self = Self(libc::POLLHUP);
    pub(crate) const ERR: Self = Self(libc::POLLERR);

    pub(crate) fn contains(self, other: Self) -> bool {
        self & other == other
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::NONE
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Events {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What is ready now.
pub(crate) fn now(socket: &impl AsFd) -> io::Result<Events> {
    wait(
        socket,
        Events::IN | Events::OUT | Events::PRI | Events::RDHUP,
        Duration::ZERO,
    )
}

/// What is ready of that when something is, or nothing after the limit. Errors and hang-ups are told unasked.
pub(crate) fn wait(socket: &impl AsFd, events: Events, limit: Duration) -> io::Result<Events> {
    let [ready] = sys::poll([(socket.as_fd(), events.0)], limit)?;
    Ok(Events(ready))
}

/// Waits until all of these are ready at once, and gives what is ready then.
pub(crate) fn until(socket: &impl AsFd, wanted: Events, limit: Duration) -> io::Result<Events> {
    let mut ready = now(socket)?;
    until_true(limit, || {
        ready = now(socket)?;
        Ok(ready.contains(wanted))
    })?;
    Ok(ready)
}

/// Looks every few milliseconds, for what no event tells, or not alone.
pub(crate) fn until_true(limit: Duration, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let start = Instant::now();
    while !condition()? && start.elapsed() < limit {
        sys::poll([], Duration::from_millis(2))?;
    }
    Ok(())
}

/// Which of the two is readable.
pub(crate) fn either(one: &impl AsFd, other: &impl AsFd, limit: Duration) -> io::Result<(bool, bool)> {
    let fds = [(one.as_fd(), libc::POLLIN), (other.as_fd(), libc::POLLIN)];
    let [one, other] = sys::poll(fds, limit)?;
    Ok((one != 0, other != 0))
}

/// `IN|OUT|HUP`
pub(crate) fn words(events: Events) -> String {
    let names = [
        (Events::IN, "IN"),
        (Events::PRI, "PRI"),
        (Events::OUT, "OUT"),
        (Events::RDHUP, "RDHUP"),
        (Events::HUP, "HUP"),
        (Events::ERR, "ERR"),
    ];
    let set: Vec<&str> = names
        .into_iter()
        .filter(|(event, _)| events.contains(*event))
        .map(|(_, name)| name)
        .collect();
    if set.is_empty() {
        "nothing".into()
    } else {
        set.join("|")
    }
}
