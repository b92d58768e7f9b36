//! The end of an agent that is told to end. What is pinned of a pod stays, and with it what pods share, for the next agent;
//! where nothing is pinned of any pod, nothing of this agent stays either. Takes no program off a pod.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::datapath::{Lease, detach_own};
use crate::error_chain;
use crate::pods::{SELF_ATTACHED, sweep};

/// How long the end waits for cgroups without a process: the kubelet removes that of a pod some moments after its last process has
/// ended. Less than an agent is given to end (`terminationGracePeriodSeconds`).
pub(super) const EMPTIED: Duration = Duration::from_secs(5);

/// How long it waits for those who are about to install a pod: programs are loaded in some tens of milliseconds. A sidecar that does
/// not take what it is told must not keep the agent.
const INSIDE: Duration = Duration::from_secs(2);

/// Whoever makes the directory of a pod below the pins passes it, and nobody does once the agent leaves. So nothing is pinned
/// of a pod that works with what was removed.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    inside: usize,
}

/// Held until the directory is there.
#[derive(Debug)]
pub(super) struct Passed<'g>(&'g Gate);

impl Gate {
    /// `None`: the agent leaves.
    pub(super) fn pass(&self) -> Option<Passed<'_>> {
        let mut state = self.state();
        if state.is_shut {
            return None;
        }
        state.inside += 1;
        Some(Passed(self))
    }

    /// Waits for those who have passed. False: some are inside still.
    pub(super) fn shut(&self) -> bool {
        let mut state = self.state();
        state.is_shut = true;
        let waited = self
            .left
            .wait_timeout_while(state, INSIDE, |state| state.inside > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.inside == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        self.0.state().inside -= 1;
        self.0.left.notify_all();
    }
}

/// Where an agent has what is its own.
pub(super) struct Own<'c> {
    pub(super) pins: &'c Path,
    pub(super) socket: &'c Path,
    /// With sockets of sidecars.
    pub(super) of_sidecars: [PathBuf; 2],
}

/// The sockets go first: without its lease the next agent of the node does not bind them, and the directory of the lease goes
/// last, with the lease.
pub(super) fn leave(own: &Own<'_>, gate: &Gate, lease: Lease) {
    let _ = fs::remove_file(own.socket);
    if !gate.shut() {
        return tracing::warn!(
            "what is pinned stays for the next agent of this node: a pod is about to be installed"
        );
    }
    let by_themselves = own.pins.join(SELF_ATTACHED);
    sweep(&by_themselves, None);
    // One that serves has its directory there.
    let _ = fs::remove_dir(&by_themselves);
    match fs::remove_dir(own.pins.join("pods")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return tracing::info!("what is pinned stays for the next agent of this node");
        }
        _ => {}
    }
    // Of sidecars whose pods are gone.
    own.of_sidecars
        .iter()
        .for_each(|directory| remove_sockets(directory));
    match detach_own(lease) {
        Ok(_) => {
            // It may be somebody else's, too.
            let _ = fs::remove_dir(own.pins);
            tracing::info!("nothing of this agent stays on the node: no pod is installed");
        }
        Err(error) => tracing::warn!(
            error = error_chain(&error),
            "what is pinned of the node stays, which no pod uses; the next agent removes it when it ends"
        ),
    }
}

/// And the directory, where nothing else is in it.
fn remove_sockets(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_shut_gate_lets_nobody_pass_and_shutting_it_waits_for_those_inside() {
        let gate = Gate::default();
        let inside = gate.pass().unwrap();
        thread::scope(|scope| {
            let (tell, shut) = mpsc::channel();
            let gate = &gate;
            scope.spawn(move || {
                tell.send(gate.shut()).unwrap();
            });
            shut.recv_timeout(Duration::from_millis(50)).unwrap_err();
            assert!(gate.pass().is_none());
            drop(inside);
            assert!(shut.recv().unwrap());
        });
        assert!(gate.pass().is_none());
    }
}
