//! `outrigger control`: the certificate authority, on the node's side of the bridge.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use anyhow::Result;

use crate::fabric::Fabric;
use crate::mesh::metrics::sum;
use crate::mesh::{TRUST_DOMAIN, binaries, ports};
use crate::pod::Pod;
use crate::process::{Output, Process};
use crate::{http, wait};

#[derive(Debug)]
pub struct Control {
    node: Pod,
    dir: PathBuf,
    port: u16,
    process: Option<Process>,
    /// Of its root certificate, each with its owner.
    copies: Mutex<Vec<(PathBuf, u32)>>,
}

impl Control {
    pub fn start(fabric: &Fabric) -> Result<Self> {
        Self::with_leaves(fabric, "24h")
    }

    /// One whose certificates live no longer than that.
    pub fn with_leaves(fabric: &Fabric, ttl: &str) -> Result<Self> {
        Self::start_as(fabric, "control", ports::CONTROL, ttl)
    }

    /// A second authority with a root of its own, which the first one's clients do not know.
    pub fn start_another(fabric: &Fabric, name: &str, port: u16) -> Result<Self> {
        Self::start_as(fabric, name, port, "24h")
    }

    fn start_as(fabric: &Fabric, name: &str, port: u16, leaf_ttl: &str) -> Result<Self> {
        let dir = fabric.scratch().join(name);
        fs::create_dir_all(dir.join("tokens"))?;
        let mut control = Self {
            node: fabric.node().clone(),
            dir,
            port,
            process: None,
            copies: Mutex::default(),
        };
        let config = format!(
            "listen: \"[::]:{port}\"\n\
             stateDir: {}\n\
             trustDomain: {TRUST_DOMAIN}\n\
             leafTtl: {leaf_ttl}\n\
             serverNames: [control.outrigger, {}]\n\
             status: \"[::]:{}\"\n",
            control.state().display(),
            control.node.ipv4(),
            control.status_address().port(),
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
        let file = self.dir.join("tokens").join(identity.replace(['/', ':'], "-"));
        let path = file.to_string_lossy();
        self.command(&["token", "create"], &["--identity", identity, "--out", &path])?
            .ok()?;
        Ok(file)
    }

    /// A command on the authority's state directory, such as `token list`.
    pub fn command(&self, words: &[&str], options: &[&str]) -> Result<Output> {
        let mut command = Command::new(binaries::path("outrigger")?);
        command
            .args(words)
            .arg("--state-dir")
            .arg(self.state())
            .args(options);
        Output::of(command, wait::SOON)
    }

    /// Takes a step of replacing the root, and brings the copies up to date. It may be too early.
    pub fn rotate(&self, step: &[&str]) -> Result<Output> {
        let output = self.command(&[&["ca", "rotate"], step].concat(), &[])?;
        for (copy, owner) in &*self.copies() {
            self.copy_root(copy, *owner)?;
        }
        Ok(output)
    }

    /// Keeps a copy of its root certificate there, for a user who may not look into its directory.
    pub(crate) fn publish_root(&self, to: &Path, owner: u32) -> Result<()> {
        self.copy_root(to, owner)?;
        self.copies().push((to.to_owned(), owner));
        Ok(())
    }

    /// As a whole, so that no reader sees half of it.
    fn copy_root(&self, to: &Path, owner: u32) -> Result<()> {
        let new = to.with_extension("new");
        fs::copy(self.root(), &new)?;
        chown(&new, Some(owner), Some(owner))?;
        Ok(fs::rename(&new, to)?)
    }

    fn copies(&self) -> MutexGuard<'_, Vec<(PathBuf, u32)>> {
        self.copies.lock().expect("no test panics with it")
    }

    /// Status and body of a page of the status endpoint.
    pub fn status_page(&self, path: &str) -> Result<(u16, String)> {
        http::get(self.node.netns(), self.status_address(), path)
    }

    /// The sum of all series of a metric whose labels hold all the given `name="value"` texts.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let (status, text) = self.status_page("/metrics")?;
        anyhow::ensure!(status == 200, "/metrics answered {status}: {text}");
        Ok(sum(&text, name, labels))
    }

    /// Where it listens, over both families.
    pub fn listeners(&self) -> [SocketAddr; 2] {
        self.node.addresses().map(|ip| (ip, self.port).into())
    }

    fn status_address(&self) -> SocketAddr {
        // Away from its own port by as much as another authority on the same node from the first.
        (self.node.ipv4(), self.port + 1000).into()
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
