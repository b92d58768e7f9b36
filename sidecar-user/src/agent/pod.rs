//! One pod of the node, as it is installed: closed, until a sidecar has its session.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use super::caller::Home;
use super::leave::Gate;
use super::register::Register;
use crate::datapath::{Config, Node, PodTarget, Policy, close_on};
use crate::grant;
use crate::uplink::Share;

/// A pod that is installed.
pub(super) struct Pod {
    pub(super) node: Arc<Node>,
    pub(super) gate: Arc<Gate>,
    pub(super) target: PodTarget,
    pub(super) pins: PathBuf,
    pub(super) name: String,
    pub(super) register: Arc<Register>,
    pub(super) sidecar: Home,
    /// The process that was given the last session; 0: none, by this agent.
    pub(super) served_by: AtomicU32,
    /// Where its sidecars are found by the agent.
    pub(super) handover: PathBuf,
    /// Of whoever changes what is in force.
    pub(super) turn: Mutex<()>,
    /// By which its sidecars reach the control plane. `None`: this agent knows of none.
    pub(super) control: Option<Share>,
}

impl Pod {
    /// Attaches the programs. Connections are refused until a sidecar has its session; one that has it goes on.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        let _passed = self.gate.pass().context("the agent of this node ends")?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !close_on(&self.node, &self.closed(), self.target.clone())? {
            tracing::warn!(
                pod = self.name,
                "the programs of another version stay until its sidecar is restarted"
            );
        }
        tracing::info!(pod = self.name, cgroup = %self.target.cgroup_path().display(), "a pod is installed");
        Ok(())
    }

    /// For a sidecar that finds another one here. The lock of the pod says no more than that this agent took it.
    pub(super) fn owner(&self) -> String {
        match self.served_by.load(Relaxed) {
            0 => "a sidecar serves this pod that had its session before this agent started".into(),
            pid => format!("process {pid} serves this pod"),
        }
    }

    fn closed(&self) -> Config {
        Config {
            cgroup: self.target.cgroup_path().into(),
            netns: None,
            pins: self.pins.clone(),
            hbone_port: 15008,
            shards: 0,
            open_ports: Vec::new(),
            pod_addresses: Vec::new(),
            strict: false,
            allow_whole_host: false,
            policy: Policy::default(),
        }
    }

    /// As a sidecar wants it.
    pub(super) fn config(&self, ask: &grant::Ask) -> Config {
        Config {
            hbone_port: ask.hbone_port,
            shards: ask.shards,
            open_ports: ask.open_ports.clone(),
            pod_addresses: ask.addresses.clone(),
            strict: ask.strict,
            ..self.closed()
        }
    }
}
