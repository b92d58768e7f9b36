//! `outrigger control`: the certificate authority, on the node's side of the bridge.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::fabric::Fabric;
use crate::mesh::{TRUST_DOMAIN, binaries, ports};
use crate::pod::Pod;
use crate::process::Process;

#[derive(Debug)]
pub struct Control {
    node: Pod,
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl Control {
    pub fn start(fabric: &Fabric) -> Result<Self> {
        Self::start_another(fabric, "control", ports::CONTROL)
    }

    /// A second authority with a root of its own, which the first one's clients do not know.
    pub fn start_another(fabric: &Fabric, name: &str, port: u16) -> Result<Self> {
        let dir = fabric.scratch().join(name);
        fs::create_dir_all(dir.join("tokens"))?;
        let mut control = Self {
            node: fabric.node().clone(),
            dir,
            port,
            process: None,
        };
        let config = format!(
            "listen: \"[::]:{port}\"\n\
             stateDir: {}\n\
             trustDomain: {TRUST_DOMAIN}\n\
             serverNames: [control.outrigger, {}]\n",
            control.state().display(),
            control.node.ipv4(),
        );
        fs::write(control.config(), config)?;
        control.restart()?;
        Ok(control)
    }

    /// Starts it again after [`Control::stop`], with the state it had.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = self.node.command(binaries::path("outrigger")?);
        command.arg("control").arg("--config").arg(self.config());
        let mut process = self.node.spawn(command)?.until_listening(self.port)?;
        let root = self.root();
        process.until("writes its root certificate", |_| root.exists())?;
        self.process = Some(process);
        Ok(())
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    /// A file with a new bootstrap token for this identity.
    pub fn token(&self, identity: &str) -> Result<PathBuf> {
        let output = Command::new(binaries::path("outrigger")?)
            .args(["token", "create", "--identity", identity, "--state-dir"])
            .arg(self.state())
            .output()?;
        anyhow::ensure!(
            output.status.success(),
            "outrigger token create: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let name = identity.replace(['/', ':'], "-");
        let file = self.dir.join("tokens").join(name);
        fs::write(&file, output.stdout.trim_ascii()).with_context(|| format!("write {}", file.display()))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// What a proxy's `identity.authority` must say.
    pub fn authority(&self) -> String {
        format!("https://{}:{}", self.node.ipv4(), self.port)
    }

    pub fn root(&self) -> PathBuf {
        self.state().join("root-cert.pem")
    }

    /// The authority's private state.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    fn config(&self) -> PathBuf {
        self.dir.join("control.yaml")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
