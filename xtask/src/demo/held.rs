//! A demo that is held: what it tells other processes (`demo exec`, `demo status`), and how they reach it.
//!
//! One at a time: its description is in one well-known file. A description whose process has died counts as none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::{Context, Result, bail};
use harness::mesh::whole::{SERVICE, SERVICE_PORTS};
use harness::{Pod, pod};
use serde::{Deserialize, Serialize};

use super::stage::{HTTP, REDIS, SMTP, Stage};

const STATE: &str = "/run/outrigger-demo/state.json";

/// What `demo status --json` prints.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    /// The process that holds the demo.
    pid: u32,
    fabric: String,
    pods: Vec<PodState>,
    services: Vec<ServiceState>,
}

#[derive(Serialize, Deserialize)]
struct PodState {
    name: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    /// As `ip netns exec` wants it.
    netns: String,
    cgroup: PathBuf,
    /// The sidecar's admin socket; none outside the mesh.
    admin: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct ServiceState {
    name: String,
    vips: Vec<IpAddr>,
    /// Service port to the port of the application.
    ports: BTreeMap<u16, u16>,
}

/// Takes the description away when the demo ends.
pub(super) struct Held;

/// Tells others about the demo, and the user what to try.
pub(super) fn announce(stage: &Stage) -> Result<Held> {
    let state = State::of(stage);
    let file = Path::new(STATE);
    fs::create_dir_all(file.parent().unwrap_or(file))
        .with_context(|| format!("make the directory of {STATE}"))?;
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_string_pretty(&state)?)
        .with_context(|| format!("write {}", new.display()))?;
    let held = Held;
    fs::rename(&new, file).with_context(|| format!("write {STATE}"))?;

    let (http, redis, smtp) = (stage.mesh.vip4(80), stage.mesh.vip4(REDIS), stage.mesh.vip4(SMTP));
    let socket = stage.mesh.client.sidecar.admin_socket();
    println!("\nHeld until Ctrl-C. In another terminal:\n");
    for line in [
        "cargo xtask demo status".into(),
        format!("cargo xtask demo exec client -- curl -s http://{http}/"),
        format!(
            "cargo xtask demo exec client -- redis-cli -h {} -p {}",
            redis.ip(),
            redis.port()
        ),
        format!("cargo xtask demo exec client -- curl -v smtp://{smtp}"),
        format!(
            "cargo xtask demo exec client -- curl -s http://{}:{HTTP}/",
            stage.mesh.outside.ipv4()
        ),
        "cargo xtask demo exec server-1 -- bash".into(),
        format!(
            "target/release/kubectl-outrigger flows --unix {}",
            socket.display()
        ),
    ] {
        println!("  {line}");
    }
    println!();
    io::stdout().flush()?;
    Ok(held)
}

impl Drop for Held {
    fn drop(&mut self) {
        let file = Path::new(STATE);
        let _ = fs::remove_file(file);
        let _ = fs::remove_dir(file.parent().unwrap_or(file));
    }
}

/// An error if a demo is held already.
pub(super) fn demand_none() -> Result<()> {
    match State::read()? {
        Some(state) => bail!(
            "process {} holds a demo already; end it there with Ctrl-C",
            state.pid
        ),
        None => Ok(()),
    }
}

/// Becomes the program, in the pod: its terminal, its exit status and its signals are the caller's.
pub(super) fn exec(name: &str, command: &[OsString]) -> Result<ExitCode> {
    let state = State::demand()?;
    if !state.pods.iter().any(|pod| pod.name == name) {
        let names: Vec<&str> = state.pods.iter().map(|pod| pod.name.as_str()).collect();
        bail!("the demo has no pod {name:?}; it has {}", names.join(", "));
    }
    let (program, args) = command.split_first().context("no program is given")?;
    let error = pod::command_in(&state.fabric, name, program)?.args(args).exec();
    eprintln!(
        "error: cannot run {} in pod {name}: {error}",
        program.to_string_lossy()
    );
    // As shells answer.
    Ok(ExitCode::from(if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }))
}

pub(super) fn status(json: bool) -> Result<ExitCode> {
    let state = State::demand()?;
    let text = if json {
        serde_json::to_string_pretty(&state)? + "\n"
    } else {
        state.to_string()
    };
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.context("print the status")?,
    }
    Ok(ExitCode::SUCCESS)
}

impl State {
    fn of(stage: &Stage) -> Self {
        let mesh = &stage.mesh;
        let members = [&mesh.client].into_iter().chain(&mesh.servers);
        let mut pods: Vec<PodState> = members
            .map(|member| PodState::of(&member.pod, Some(member.sidecar.admin_socket())))
            .collect();
        pods.push(PodState::of(&mesh.outside, None));
        let served = [80, REDIS, SMTP];
        let service = ServiceState {
            name: SERVICE.into(),
            vips: vec![mesh.vip4(0).ip(), mesh.vip6(0).ip()],
            ports: SERVICE_PORTS
                .iter()
                .copied()
                .filter(|(port, _)| served.contains(port))
                .collect(),
        };
        Self {
            pid: process::id(),
            fabric: mesh.fabric.name().into(),
            pods,
            services: vec![service],
        }
    }

    /// The demo that is held now. A description left by a process that was killed is removed.
    fn read() -> Result<Option<Self>> {
        let text = match fs::read_to_string(STATE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {STATE}")),
        };
        let state: Self =
            serde_json::from_str(&text).with_context(|| format!("{STATE} is damaged; remove it"))?;
        let alive = Path::new("/proc").join(state.pid.to_string()).exists();
        if !alive {
            drop(Held);
        }
        Ok(alive.then_some(state))
    }

    fn demand() -> Result<Self> {
        Self::read()?.context("no demo is held; start one in another terminal: cargo xtask demo --hold")
    }
}

impl PodState {
    fn of(pod: &Pod, admin: Option<PathBuf>) -> Self {
        Self {
            name: pod.name().into(),
            ipv4: pod.ipv4(),
            ipv6: pod.ipv6(),
            netns: pod.netns().name().into(),
            cgroup: pod.cgroup().into(),
            admin,
        }
    }
}

/// Tables for people.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:<12} {:<10} {:<32} ADMIN SOCKET",
            "POD", "IPV4", "IPV6", "NETNS"
        )?;
        for PodState {
            name,
            ipv4,
            ipv6,
            netns,
            admin,
            ..
        } in &self.pods
        {
            let admin = admin
                .as_ref()
                .map_or("-".into(), |path| path.display().to_string());
            writeln!(f, "{name:<10} {ipv4:<12} {ipv6:<10} {netns:<32} {admin}")?;
        }
        for ServiceState { name, vips, ports } in &self.services {
            let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
            let ports: Vec<String> = ports
                .iter()
                .map(|(port, target)| format!("{port}->{target}"))
                .collect();
            writeln!(
                f,
                "\nservice {name} at {}, ports {}",
                vips.join(" and "),
                ports.join(" ")
            )?;
        }
        writeln!(f, "\nheld by process {}", self.pid)
    }
}
