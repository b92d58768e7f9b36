//! One agent with many pods: what each takes of the agent. What it takes of the kernel is counted where its maps are made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::mesh::binaries;
use harness::{Fabric, Process, cgroup, wait};

/// Kilobytes of the agent's own memory for a pod: a debug build takes 60, and most of that for the threads that install.
const MOST: u64 = 150;

#[test]
fn an_agent_takes_little_memory_for_each_of_many_pods() -> Result<()> {
    let figures = Figures::of(40)?;
    ensure!(
        figures.memory <= MOST * 40,
        "{} kB are too many for 40 pods",
        figures.memory
    );
    Ok(())
}

#[test]
#[ignore = "a measurement"]
#[allow(
    clippy::disallowed_methods,
    reason = "nothing happens for as long as is measured"
)]
fn figures_of_an_agent_with_250_pods() -> Result<()> {
    let pods = 250;
    let mut figures = Figures::of(pods)?;
    let a_pod = f64::from(u32::try_from(pods)?);
    println!("installed in {:?}", figures.took);
    println!("CPU a pod: {:.1} ms", figures.cpu.as_secs_f64() * 1e3 / a_pod);
    println!(
        "Pss: {} kB before the first pod, and {} kB for all",
        figures.empty, figures.memory
    );
    let window = Duration::from_secs(60);
    let before = cpu(figures.agent.id())?;
    std::thread::sleep(window);
    let idle = cpu(figures.agent.id())? - before;
    println!(
        "idle: {:.3} % of a core",
        idle.as_secs_f64() / window.as_secs_f64() * 100.0
    );
    figures.agent.kill();
    Ok(())
}

struct Figures {
    agent: Process,
    took: Duration,
    cpu: Duration,
    /// Kilobytes of Pss without pods.
    empty: u64,
    /// And for all of the pods.
    memory: u64,
    _pods: Vec<Process>,
    _fabric: Fabric,
}

impl Figures {
    fn of(pods: usize) -> Result<Self> {
        let fabric = Fabric::new("many")?;
        let found = cgroup::mount()?.join(fabric.name()).join("found");
        cgroup::create(&found)?;
        let pins = fabric.bpffs().join("many");
        let mut agent = start(&fabric, &found, &pins)?;
        agent.until("serves the node", |agent| {
            agent.log().contains("the agent serves this node")
        })?;
        let (empty, before, begun) = (pss(agent.id())?, cpu(agent.id())?, Instant::now());

        let all: Vec<Process> = (0..pods)
            .map(|n| fabric.node().spawn(pod(&found.join(format!("pod{n}")))?))
            .collect::<Result<_>>()?;
        let last = |n: usize| pins.join(format!("pods/pod{n}/links/or_connect6"));
        wait::until(
            "every pod is installed",
            wait::patiently(Duration::from_secs(60)),
            || (0..pods).all(|n| last(n).exists()),
        )?;
        Ok(Self {
            took: begun.elapsed(),
            cpu: cpu(agent.id())? - before,
            empty,
            memory: pss(agent.id())?.saturating_sub(empty),
            agent,
            _pods: all,
            _fabric: fabric,
        })
    }
}

fn start(fabric: &Fabric, found: &Path, pins: &Path) -> Result<Process> {
    let mut command = Command::new(binaries::path("outrigger")?);
    let socket: PathBuf = fabric.scratch().join("many.sock");
    command
        .arg("agent")
        .arg("--pins")
        .arg(pins)
        .arg("--pods")
        .arg(found);
    command.arg("--socket").arg(socket);
    fabric.node().spawn(command)
}

/// A process with a network namespace of its own, which enters the pod's cgroup.
fn pod(at: &Path) -> Result<Command> {
    cgroup::create(at)?;
    let enter = format!("echo $$ > {}/cgroup.procs; exec sleep 1000", at.display());
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &enter]);
    Ok(command)
}

/// Of the process, in kilobytes.
fn pss(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.context("no Pss")?.parse()?)
}

/// That a process has had, in user space and in the kernel.
fn cpu(pid: u32) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .context("no name")?
        .split_whitespace()
        .collect();
    let ticks = |at: usize| -> Result<u32> { Ok(fields.get(at).context("a field")?.parse()?) };
    Ok(TICK * (ticks(11)? + ticks(12)?))
}
