//! What the demo is made of: three pods in the mesh, one outside, and unmodified programs in them.

use anyhow::{Context, Result};
use harness::apps;
use harness::mesh::Plan;
use harness::{Mesh, Pod, Process};

pub(super) const HTTP: u16 = 8080;
pub(super) const REDIS: u16 = 6379;
pub(super) const SMTP: u16 = 2525;

/// Everything of the demo; gone when dropped.
pub(super) struct Stage {
    /// nginx of each server pod, in their order: one of them is killed.
    pub(super) web: Vec<Process>,
    _others: Vec<Process>,
    pub(super) mesh: Mesh,
    /// One agent installs interception for all pods.
    pub(super) by_agent: bool,
}

impl Stage {
    pub(super) fn build(by_agent: bool) -> Result<Self> {
        let sidecars = match by_agent {
            true => Plan::by_agent(),
            false => Plan::privileged(),
        };
        let plan = Plan {
            servers: 2,
            ..sidecars
        };
        let mesh = Mesh::of("demo", &plan)?;
        let mut web = Vec::new();
        let mut others = vec![apps::nginx(&mesh.outside, HTTP)?];
        for member in &mesh.servers {
            web.push(apps::nginx(&member.pod, HTTP)?);
            others.push(apps::redis(&member.pod, REDIS)?);
            others.push(apps::smtp(&member.pod, SMTP)?);
        }
        Ok(Self {
            web,
            _others: others,
            mesh,
            by_agent,
        })
    }

    pub(super) fn client(&self) -> &Pod {
        &self.mesh.client.pod
    }

    /// Starts the web server of a server pod again.
    pub(super) fn revive(&mut self, server: usize) -> Result<()> {
        let member = self.mesh.servers.get(server).context("no such server pod")?;
        self.web[server] = apps::nginx(&member.pod, HTTP)?;
        Ok(())
    }
}
