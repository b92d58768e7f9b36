//! The steps from nothing to a cluster that is ready, in order, each with its time.

use std::fs::{self, File, OpenOptions};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use harness::cluster::{self, Cluster, DIRECTORY, NAME};

use super::pki::Authority;
use super::{Parts, control_plane, dns, node, sweep, worker};
use crate::workspace::announce;

/// For one step, on a machine that does other things too. The first start after a build reads programs from disk.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// A cluster that is taken away on drop, unless it is to be kept.
pub(super) struct Running {
    pub(super) cluster: Option<Cluster>,
    /// Nobody else brings one up or down meanwhile.
    _turn: Turn,
}

impl Running {
    /// It outlives this process.
    pub(super) fn keep(mut self) {
        self.cluster = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.cluster.is_some() {
            sweep::remove();
        }
    }
}

/// The right to bring a cluster up or down: one at a time on a machine. Held by an abstract socket, which leaves nothing behind.
pub(super) struct Turn {
    _socket: UnixListener,
}

impl Turn {
    pub(super) fn take() -> Result<Self> {
        Self::at(NAME)
    }

    fn at(name: &str) -> Result<Self> {
        let address = SocketAddr::from_abstract_name(name)?;
        let socket = UnixListener::bind_addr(&address).map_err(|error| {
            anyhow!("another `cargo xtask cluster` is at work on this machine ({error}); wait for it, or end it with Ctrl-C")
        })?;
        Ok(Self { _socket: socket })
    }
}

pub(super) fn bring_up(parts: &Parts) -> Result<Running> {
    let turn = Turn::take()?;
    sweep::remove();
    sweep::demand_nothing_left()?;
    let mut guard = Sweep { armed: true };
    let cluster = make(parts).inspect_err(|_| show_logs())?;
    guard.armed = false;
    Ok(Running {
        cluster: Some(cluster),
        _turn: turn,
    })
}

struct Sweep {
    armed: bool,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        if self.armed {
            sweep::remove();
        }
    }
}

fn make(parts: &Parts) -> Result<Cluster> {
    let begun = Instant::now();
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory.join("logs")).with_context(|| format!("make {DIRECTORY}"))?;
    announce("two nodes and a link between them");
    let authority = Authority::create(&directory.join("keys"))?;
    let cluster = Cluster {
        programs: parts.programs.dir.clone(),
        kubeconfig: control_plane::administrator(&authority)?,
        nodes: node::create_all()?,
    };
    announce("API server and containerd");
    control_plane::start_api(&cluster, &authority)?;
    for number in 0..cluster.nodes.len() {
        worker::start_runtime(&cluster, number)?;
    }
    thread::scope(|scope| -> Result<()> {
        let imports: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| scope.spawn(|| worker::import_images(&cluster, node, &parts.images)))
            .collect();
        control_plane::await_api(&cluster)?;
        announce(&format!("API server ready after {} s", begun.elapsed().as_secs()));
        control_plane::start_controllers(&cluster, &authority)?;
        dns::apply(&cluster)?;
        for import in imports {
            import
                .join()
                .map_err(|_| anyhow!("a thread that imports images has died"))??;
        }
        Ok(())
    })?;
    announce(&format!("images imported after {} s", begun.elapsed().as_secs()));
    for number in 0..cluster.nodes.len() {
        worker::start_kubelet(&cluster, number, &authority)?;
    }
    await_nodes(&cluster)?;
    dns::await_ready(&cluster)?;
    describe(&cluster)?;
    announce(&format!("up after {} s", begun.elapsed().as_secs()));
    Ok(cluster)
}

fn await_nodes(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    for node in &cluster.nodes {
        harness::wait::until("the node registers", LIMIT, || {
            kubectl.get(&["node", &node.name]).is_ok()
        })?;
        kubectl.wait("default", &format!("node/{}", node.name), "condition=Ready")?;
    }
    Ok(())
}

fn describe(cluster: &Cluster) -> Result<()> {
    let path = cluster::description();
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_string_pretty(cluster)?)?;
    fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))
}

/// Where a program of the cluster writes what it has to say.
pub(super) fn log_path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join("logs").join(format!("{name}.log"))
}

pub(super) fn log(name: &str) -> Result<File> {
    let path = log_path(name);
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))
}

/// The ends of all logs, before they are removed.
pub(super) fn show_logs() {
    const LINES: usize = 12;
    let logs = fs::read_dir(Path::new(DIRECTORY).join("logs"))
        .into_iter()
        .flatten()
        .flatten();
    for path in logs.map(|entry| entry.path()) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            continue;
        }
        eprintln!("---- the end of {}", path.display());
        for line in &lines[lines.len().saturating_sub(LINES)..] {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cluster_is_brought_up_or_down_at_a_time() {
        let name = format!("{NAME}-test-{}", std::process::id());
        let turn = Turn::at(&name).unwrap();
        let refused = Turn::at(&name).err().unwrap().to_string();
        assert!(refused.contains("is at work"), "{refused}");
        drop(turn);
        // A program that another test is starting holds a copy of the socket between fork() and execve().
        harness::wait::until("the turn is free", harness::wait::SOON, || {
            Turn::at(&name).is_ok()
        })
        .unwrap();
    }
}
