//! Pods over time: their cgroups come and go, and processes come into them. By inotify on the directories in which they can
//! be, also on those that are made later; nothing is looked at that no event spoke of.

use std::collections::VecDeque;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use super::event::Event;
use super::sys::{self, Queue};
use super::tree::Tree;
use super::{Error, PodCgroup, Roots};

pub struct Watch {
    queue: AsyncFd<Queue>,
    tree: Tree,
    events: VecDeque<Event>,
}

impl Watch {
    /// Watches from now on. The pods that are there are the first events. Registers with the current tokio runtime.
    pub fn new(roots: &Roots) -> Result<Self, Error> {
        let fail = |source| Error::Watch {
            path: "the cgroup2 hierarchy".into(),
            source,
        };
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let inotify = Inotify::init(flags).map_err(|errno| fail(errno.into()))?;
        let mut watch = Self {
            queue: sys::watch(Queue(inotify)).map_err(fail)?,
            tree: Tree::default(),
            events: VecDeque::new(),
        };
        let inotify = &watch.queue.get_ref().0;
        for (base, roles) in roots.starts() {
            watch.tree.start(inotify, &base, roles)?;
        }
        watch.tree.look(inotify, &mut watch.events)?;
        Ok(watch)
    }

    /// Those that are known, also those whose events are not taken yet.
    pub fn pods(&self) -> impl Iterator<Item = &PodCgroup> {
        self.tree.pods()
    }

    /// From now on this pod is one of them, wherever it is, until it is removed.
    pub fn follow(&mut self, pod: &PodCgroup) -> Result<(), Error> {
        let inotify = &self.queue.get_ref().0;
        self.tree.follow(inotify, pod.path())?;
        self.tree.look(inotify, &mut self.events)
    }

    /// Waits for an event. Cancelled, it loses none. After an error it may be asked again, and begins where it failed; wait
    /// before that.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let looked = self.look();
            if self.events.is_empty() {
                // What failed is still marked: with events to tell first, it fails again after them.
                looked?;
                let mut ready = self.queue.readable().await.map_err(failed)?;
                // Before the queue is read, so that what comes afterwards wakes again.
                ready.clear_ready();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn inner(&self) -> (&Inotify, &Tree) {
        (&self.queue.get_ref().0, &self.tree)
    }

    /// Takes what the kernel has told, and looks.
    fn look(&mut self) -> Result<(), Error> {
        let inotify = &self.queue.get_ref().0;
        loop {
            match inotify.read_events() {
                Ok(told) => told.iter().for_each(|event| self.tree.mark(event)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        self.tree.look(inotify, &mut self.events)
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::Path {
        what: "events of",
        path: Path::new("the cgroup2 hierarchy").into(),
        source,
    }
}
