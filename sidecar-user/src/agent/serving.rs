//! One pod is served: found, installed, closed, and its sidecars answered at its door, until this is dropped. What fails is tried
//! again. Dropping it takes nothing off the pod.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::caller::Home;
use super::leave::Gate;
use super::pod::Pod;
use super::register::Register;
use super::{door, probes};
use crate::datapath::{NeighbourQuery, Node, PodTarget};
use crate::pods::{Finder, PodCgroup};
use crate::uplink::Share;
use crate::{budget, error_chain};

/// How long a pod may be in several namespaces, or in the host's, before that is an error: a runtime starts processes on the
/// host and moves them.
const SETTLING: Duration = Duration::from_secs(10);
/// Before a failure is tried again.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) struct Serving {
    pub(super) finder: Arc<Finder>,
    pub(super) node: Arc<Node>,
    pub(super) gate: Arc<Gate>,
    pub(super) register: Arc<Register>,
    pub(super) control: Option<Share>,
    pub(super) cgroup: PodCgroup,
    pub(super) name: String,
    pub(super) pins: PathBuf,
    /// Where sidecars are found by the agent.
    pub(super) handover: PathBuf,
    pub(super) sidecar: Home,
    /// Somebody asks for the pod, which may be installed already.
    pub(super) again: Arc<Notify>,
}

/// Until the pod's last process has ended, or none of its processes says where the pod is.
pub(super) async fn serve(serving: Serving) {
    let Serving { finder, cgroup, .. } = &serving;
    let pod = cgroup.path().display();
    loop {
        let addresses = serving.sidecar.addresses();
        let target = match finder.settled(cgroup, &addresses, SETTLING).await {
            Ok(Some(target)) => target,
            // Whoever comes next is told of.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%pod, error = error_chain(&error), "a pod is not installed");
                return;
            }
        };
        if let Err(error) = serving.once(target).await {
            tracing::warn!(%pod, error = format!("{error:#}"), "a pod is not served; tried again");
        }
        let _ = tokio::time::timeout(AGAIN, serving.again.notified()).await;
    }
}

impl Serving {
    async fn once(&self, target: PodTarget) -> anyhow::Result<()> {
        let pod = Arc::new(Pod {
            node: self.node.clone(),
            gate: self.gate.clone(),
            sidecar: self.sidecar.clone(),
            name: self.name.clone(),
            register: self.register.clone(),
            target,
            pins: self.pins.clone(),
            served_by: AtomicU32::new(0),
            handover: self.handover.clone(),
            turn: Mutex::default(),
            control: self.control.clone(),
        });
        close(&pod).await?;
        self.register.installed(&self.name);
        let query = NeighbourQuery::new(pod.target.clone(), self.pins.clone());
        let _attached = self.register.attached(&self.name, query);
        tokio::select! {
            served = door::serve(pod.clone()) => served.map_err(io::Error::into),
            () = probes::follow_ports(pod.clone()) => Ok(()),
            () = self.register.names.follow(&self.name, &self.sidecar) => Ok(()),
            closed = self.close_again(&pod) => closed.map(|never| match never {}),
        }
    }

    /// Whenever somebody asks for the pod, until that fails. Programs that were taken off are put back.
    async fn close_again(&self, pod: &Arc<Pod>) -> anyhow::Result<Infallible> {
        loop {
            self.again.notified().await;
            close(pod).await?;
        }
    }
}

async fn close(pod: &Arc<Pod>) -> anyhow::Result<()> {
    let closing = pod.clone();
    tokio::task::spawn_blocking(move || closing.close()).await??;
    // Of the object that was loaded.
    budget::trim();
    Ok(())
}
