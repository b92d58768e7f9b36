//! The end of a pod whose sidecar has attached by itself: nobody but the sidecar removes what is pinned. Attaches nothing else.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;

use super::kernel::Kernel;
use super::own_pod::OwnPod;
use super::privileges::Kept;
use crate::datapath::Ending;
use crate::lifecycle::Privileges;
use crate::pods::PodCgroup;

/// Leaves the pod when it has ended, which takes capabilities: by a thread that keeps them, and does nothing else.
pub(super) struct Leaving {
    leave: Sender<()>,
    left: Receiver<anyhow::Result<Left>>,
}

enum Left {
    /// Nothing is pinned any more.
    Cleared,
    /// Containers of it run, or another sidecar serves it.
    Stays,
}

/// The sidecar's own container, and the sandbox where the runtime keeps a process in it.
const NOBODY: usize = 2;

impl Leaving {
    /// To be called by a thread that has the capabilities yet. `None`: it is another one's business.
    pub(super) fn begin(
        own: Option<&OwnPod>,
        kernel: Option<&Kernel>,
        kept: Kept,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(_), Some(kernel)) = (own, kernel) else {
            return Ok(None);
        };
        let Some(ending) = kernel.ending().transpose()? else {
            return Ok(None);
        };
        let pod = PodCgroup::open(kernel.pod().cgroup_path())?;
        let ((leave, asked), (tell, left)) = (channel(), channel());
        let run = move || {
            kept.also(Privileges::NET_ADMIN | Privileges::BPF);
            if asked.recv().is_ok() {
                let _ = tell.send(clear(&pod, &ending));
            }
        };
        let thread = thread::Builder::new().name("leaving".into());
        thread
            .spawn(run)
            .context("cannot start the thread that leaves the pod")?;
        Ok(Some(Self { leave, left }))
    }

    /// Blocks for some milliseconds. What is not cleared stays closed.
    pub(super) fn leave(self) {
        if self.leave.send(()).is_err() {
            return;
        }
        match self.left.recv() {
            Ok(Ok(Left::Cleared)) => tracing::info!("the pod has ended: nothing of it is pinned any more"),
            Ok(Ok(Left::Stays)) => tracing::info!("the pod goes on: what is pinned keeps it closed"),
            Ok(Err(error)) => tracing::warn!(
                error = format!("{error:#}"),
                "what is pinned stays; the next sidecar of this node that attaches by itself removes it when the pod is gone"
            ),
            Err(_) => {}
        }
    }
}

fn clear(pod: &PodCgroup, ending: &Ending) -> anyhow::Result<Left> {
    if pod.populated()? > NOBODY {
        return Ok(Left::Stays);
    }
    Ok(match ending.close()? {
        true => Left::Cleared,
        false => Left::Stays,
    })
}
