//! What the agent knows of its pods, for who asks: which there are, whose sidecars it can ask, who was refused, and the flows
//! that have ended. Installs nothing, and decides nothing about who is given a session.
//!
//! With each session goes a Unix socket that listens, at which the sidecar answers questions. Its file stays in a directory of
//! this agent's, so that the agent after this one finds the sidecars that serve: where nobody listens any more the file goes.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use super::memory::{Limits, Memory, Pods};
use super::names::Names;
use crate::datapath::NeighbourQuery;

pub(super) struct Register {
    memory: Mutex<Memory>,
    known: Mutex<Known>,
    /// Of the sockets, for this process's user alone.
    directory: File,
    /// The number of the next socket. Starts at the time, so that an agent before this one has used others.
    next: AtomicU32,
    changed: watch::Sender<()>,
    pub(super) counts: Counts,
    pub(super) names: Arc<Names>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Sessions that came into force.
    pub(super) granted: AtomicU64,
    /// Askers that are not the sidecar of the pod.
    pub(super) strangers: AtomicU64,
    /// Sidecars that were refused.
    pub(super) refused: AtomicU64,
    /// How often flows came faster than they were read, so that those in between are known as far as the sidecar remembers.
    pub(super) interrupted: AtomicU64,
}

#[derive(Default)]
struct Known {
    pods: BTreeMap<String, Installed>,
    sidecars: BTreeMap<u32, Sidecar>,
    refused: BTreeMap<String, Refused>,
    /// What asks the kernel about what is attached, by pod.
    attached: BTreeMap<String, NeighbourQuery>,
}

/// What is attached to a pod can be asked about while this lives. It holds the pod's cgroup and network namespace.
pub(super) struct AttachedGuard<'a> {
    register: &'a Register,
    pod: &'a str,
}

impl Drop for AttachedGuard<'_> {
    fn drop(&mut self) {
        self.register.known().attached.remove(self.pod);
    }
}

/// A pod of this node that asks for a sidecar and can have none.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// As people call it.
    pub(super) name: String,
    pub(super) why: String,
    pub(super) since: SystemTime,
}

/// A pod that this agent serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installed {
    /// Or since its last sidecar has ended.
    pub(super) since: SystemTime,
    /// Askers that are not its sidecar.
    pub(super) refused: u64,
}

/// A sidecar that can be asked, or is about to be.
#[derive(Clone, Debug)]
pub(super) struct Sidecar {
    pub(super) pod: Arc<str>,
    /// Of all sidecars: each counts its flows from 1.
    pub(super) instance: u32,
    /// By the descriptor of the directory: the path of a socket has to be short.
    pub(super) socket: PathBuf,
}

impl Register {
    pub(super) fn open(directory: &Path, limits: Limits) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // It may be there from before, or made by somebody else's hand.
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let register = Self {
            memory: Mutex::new(Memory::new(limits, now)),
            known: Mutex::default(),
            directory: File::open(directory)?,
            next: AtomicU32::new(seconds as u32),
            changed: watch::Sender::new(()),
            counts: Counts::default(),
            names: Arc::default(),
        };
        for entry in fs::read_dir(directory)? {
            register.adopt(&entry?.file_name().to_string_lossy());
        }
        Ok(register)
    }

    /// One that may serve already.
    fn adopt(&self, file: &str) {
        let parts = file.rsplit_once('.').map(|(pod, number)| (pod, number.parse()));
        if let Some((pod, Ok(instance))) = parts {
            self.add(pod, instance);
        }
    }

    /// A socket for the next sidecar of this pod, which answers there. `None`: its flows are not known here.
    pub(super) fn questions(&self, pod: &str) -> Option<UnixListener> {
        let instance = self.next.fetch_add(1, Relaxed);
        let bind = || {
            let path = self.path_of(&file_of(pod, instance));
            let listener = UnixListener::bind(&path)?;
            // The directory is private already.
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok::<_, io::Error>(listener)
        };
        match bind() {
            Ok(listener) => {
                self.add(pod, instance);
                Some(listener)
            }
            Err(error) => {
                tracing::warn!(pod, %error, "this sidecar's flows will not be known to the agent: it has no socket to ask at");
                None
            }
        }
    }

    fn add(&self, pod: &str, instance: u32) {
        let sidecar = Sidecar {
            pod: pod.into(),
            instance,
            socket: self.path_of(&file_of(pod, instance)),
        };
        self.known().sidecars.insert(instance, sidecar);
        self.changed.send_replace(());
    }

    /// Nobody will listen there again.
    pub(super) fn ended(&self, sidecar: &Sidecar) {
        if let Err(error) = fs::remove_file(&sidecar.socket) {
            tracing::debug!(pod = %sidecar.pod, %error, "the socket of a sidecar that is gone stays");
        }
        let mut known = self.known();
        known.sidecars.remove(&sidecar.instance);
        if let Some(pod) = known.pods.get_mut(&*sidecar.pod) {
            pod.since = SystemTime::now();
        }
        drop(known);
        self.changed.send_replace(());
    }

    pub(super) fn installed(&self, pod: &str) {
        let now = Installed {
            since: SystemTime::now(),
            refused: 0,
        };
        self.known().pods.entry(pod.to_owned()).or_insert(now);
    }

    pub(super) fn gone(&self, pod: &str) {
        self.known().pods.remove(pod);
    }

    pub(super) fn attached<'a>(&'a self, pod: &'a str, query: NeighbourQuery) -> AttachedGuard<'a> {
        self.known().attached.insert(pod.to_owned(), query);
        AttachedGuard { register: self, pod }
    }

    /// By pod.
    pub(super) fn all_attached(&self) -> Vec<(String, NeighbourQuery)> {
        let known = self.known();
        let all = known.attached.iter();
        all.map(|(pod, query)| (pod.clone(), query.clone())).collect()
    }

    /// Until its cgroup is gone.
    pub(super) fn refuse(&self, uid: String, name: String, why: String) {
        let since = SystemTime::now();
        self.known().refused.insert(uid, Refused { name, why, since });
    }

    pub(super) fn readmit(&self, uid: &str) {
        self.known().refused.remove(uid);
    }

    pub(super) fn refused(&self) -> Vec<Refused> {
        self.known().refused.values().cloned().collect()
    }

    /// Somebody who is not the sidecar of the pod has asked for its session.
    pub(super) fn stranger(&self, pod: &str) {
        self.counts.strangers.fetch_add(1, Relaxed);
        if let Some(pod) = self.known().pods.get_mut(pod) {
            pod.refused += 1;
        }
    }

    pub(super) fn pods(&self) -> BTreeMap<String, Installed> {
        self.known().pods.clone()
    }

    /// Of these pods; the newest of a pod last.
    pub(super) fn sidecars(&self, pods: &Pods) -> Vec<Sidecar> {
        let known = self.known();
        let all = known.sidecars.values();
        all.filter(|sidecar| self.names.is_among(&sidecar.pod, pods))
            .cloned()
            .collect()
    }

    /// Changes with the sidecars.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// For moments only: who tells of flows waits for it.
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{file}", self.directory.as_raw_fd()))
    }
}

fn file_of(pod: &str, instance: u32) -> String {
    format!("{pod}.{instance}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn dir(name: &str) -> Dir {
        Dir(std::env::temp_dir().join(format!("outrigger-{}-register-{name}", std::process::id())))
    }

    #[test]
    fn sockets_are_private_and_an_agent_that_comes_later_finds_them() {
        let dir = dir("adopts");
        let register = Register::open(&dir.0, Limits::default()).unwrap();
        let pod = "a-pod.with.dots-and-a-name-that-no-socket-s-path-has-room-for";
        let serving = register.questions(pod).unwrap();
        drop(register.questions("ended").unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.0), 0o700);
        for entry in fs::read_dir(&dir.0).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }

        let after = Register::open(&dir.0, Limits::default()).unwrap();
        let found = after.sidecars(&Pods::named(pod));
        assert_eq!((found.len(), after.sidecars(&Pods::default()).len()), (1, 2));
        UnixStream::connect(&found[0].socket).unwrap();
        drop(serving);
        UnixStream::connect(&found[0].socket).unwrap_err();
        after.ended(&found[0]);
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
        assert!(after.sidecars(&Pods::named(pod)).is_empty());
    }

    #[test]
    fn a_stranger_is_counted_for_its_pod_and_in_all() {
        let dir = dir("strangers");
        let register = Register::open(&dir.0, Limits::default()).unwrap();
        register.installed("a");
        register.stranger("a");
        register.installed("a");
        register.stranger("unknown");
        assert_eq!(register.pods()["a"].refused, 1);
        assert_eq!(register.counts.strangers.load(Relaxed), 2);
        register.gone("a");
        assert!(register.pods().is_empty());
    }
}
