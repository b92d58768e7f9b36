//! What is told of a pod over time.

use super::PodCgroup;

#[derive(Clone, Debug)]
pub enum Event {
    /// Its cgroup was made, or was there at the start. Attaching now is early: no process is in it, unless the next event of
    /// this pod says so.
    Appeared(PodCgroup),
    /// Processes are in it. Told again whenever they may be others than before, because a pod whose sandbox is made anew has
    /// another network namespace.
    Populated(PodCgroup),
    /// The last process has left it.
    Emptied(PodCgroup),
    /// Its cgroup was removed.
    Gone(PodCgroup),
}
