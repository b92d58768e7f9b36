//! What a service manager is told, by sd_notify(3), and what the units of `deploy/systemd` promise: that a sidecar serves
//! with the rights that its unit leaves it, and that a slice's network comes up by its unit's commands.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::whole::Plan;
use harness::mesh::{Options, binaries, identity};
use harness::{Fabric, Mesh, wait};
use nix::sys::signal::Signal;

use crate::lone::Lone;

/// A service manager's socket, and what came.
struct Manager {
    socket: PathBuf,
    heard: Receiver<String>,
}

impl Manager {
    fn listen(socket: PathBuf) -> Result<Self> {
        let messages = UnixDatagram::bind(&socket)?;
        let (hear, heard) = mpsc::channel();
        // Ends with its process: nobody can wake it without a message.
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = messages.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if hear.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(Self { socket, heard })
    }

    /// All that came until a message with this line, which is the last.
    fn until(&self, line: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            let message = self.heard.recv_timeout(wait::patiently(wait::SOON));
            let message = message.with_context(|| format!("no {line} came, but {all:?}"))?;
            let is_last = message.lines().any(|said| said.starts_with(line));
            all.push(message);
            if is_last {
                return Ok(all);
            }
        }
    }
}

fn is_said(messages: &[String], line: &str) -> bool {
    messages
        .iter()
        .any(|message| message.lines().any(|said| said.starts_with(line)))
}

#[test]
fn a_sidecar_says_what_it_waits_for_when_it_is_ready_that_it_lives_and_that_it_ends() -> Result<()> {
    let fabric = Fabric::new("manager")?;
    let manager = Manager::listen(fabric.scratch().join("notify"))?;
    let token = fabric.scratch().join("token");
    let options = Options::new("server")
        .token(token.clone())
        .manager(manager.socket.clone(), Duration::from_millis(300));
    let mut lone = Lone::new("manager-pod", &options)?;
    let before = manager.until("STATUS=not ready: identity")?;
    assert!(!is_said(&before, "READY=1"), "{before:?}");
    assert!(!lone.sidecar.is_ready());

    fs::rename(lone.control.token(&identity("server"))?, &token)?;
    let ready = manager.until("READY=1")?;
    assert!(is_said(&ready[ready.len() - 1..], "STATUS=ready"), "{ready:?}");
    assert!(lone.sidecar.is_ready());
    manager.until("WATCHDOG=1")?;
    lone.sidecar.stop()?;
    let end = manager.until("STOPPING=1")?;
    assert!(!is_said(&end, "READY=1"), "only once: {end:?}");
    assert!(
        is_said(&end, "EXTEND_TIMEOUT_USEC=15000000"),
        "the drain and some: {end:?}"
    );
    Ok(())
}

#[test]
fn a_manager_that_reads_nothing_holds_up_nobody() -> Result<()> {
    let fabric = Fabric::new("deaf")?;
    let socket = fabric.scratch().join("notify");
    let _deaf = UnixDatagram::bind(&socket)?;
    let filler = UnixDatagram::unbound()?;
    filler.set_nonblocking(true)?;
    filler.connect(&socket)?;
    while filler.send(b"X=1").is_ok() {}
    let options = Options::new("server").manager(socket, Duration::from_millis(3));
    let mut lone = Lone::new("deaf-pod", &options)?;
    wait::until("it is ready", wait::SOON, || lone.sidecar.is_ready())?;
    // Its loop still turns, and ends in order.
    assert_eq!(lone.sidecar.flows()?["open"].as_array().map(Vec::len), Some(0));
    lone.sidecar.stop()
}

#[test]
fn the_authority_says_when_it_is_ready_and_that_it_ends() -> Result<()> {
    let fabric = Fabric::new("manager-ca")?;
    let manager = Manager::listen(fabric.scratch().join("notify"))?;
    let node = fabric.node();
    // As its unit starts it: all by variables.
    let mut command = node.command(binaries::path("outrigger")?);
    command
        .arg("control")
        .env("OUTRIGGER_STATE_DIR", fabric.scratch().join("state"));
    command
        .env("NOTIFY_SOCKET", &manager.socket)
        .env("WATCHDOG_USEC", "300000");
    let mut process = node.spawn(command)?;
    let ready = manager.until("READY=1")?;
    assert!(is_said(&ready, "STATUS=ready"), "{ready:?}");
    assert!(process.is_listening(15012));
    manager.until("WATCHDOG=1")?;
    process.signal(Signal::SIGTERM)?;
    manager.until("STOPPING=1")?;
    ensure!(process.wait(wait::SOON)?.success());
    Ok(())
}

#[test]
fn a_sidecar_serves_as_another_user_with_the_capabilities_of_its_unit_and_nobody_notices() -> Result<()> {
    let unit = unit("outrigger-sidecar@.service")?;
    let names = |setting: &str| -> Vec<String> {
        let values = values(&unit, setting);
        let words = values.iter().flat_map(|value| value.split(' '));
        words
            .map(|name| name.trim_start_matches("CAP_").to_lowercase())
            .collect()
    };
    let bounding = names("CapabilityBoundingSet");
    assert_eq!(bounding, names("AmbientCapabilities"));
    let plan = Plan {
        client: Options::new("client").only_capabilities(bounding.clone()),
        server: Options::new("server").only_capabilities(bounding),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("confined", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    let pid = mesh.client.sidecar.pid().context("it runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    assert!(
        status.contains("\nUid:\t65534\t") && status.contains("\nNoNewPrivs:\t1"),
        "{status}"
    );
    for vip in [mesh.vip4(80), mesh.vip6(80)] {
        apps::curl(&mesh.client.pod, &apps::url(vip))?.ok()?;
    }
    mesh.client
        .sidecar
        .until_flow("it went through the mesh", |flow| flow["direction"] == "outbound")?;
    let log = mesh.client.sidecar.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    // The next one takes over what a proxy of the same user has left.
    mesh.client.sidecar.kill();
    mesh.client.sidecar.restart()?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    Ok(())
}

#[test]
fn the_commands_of_the_network_unit_connect_a_slice_with_its_host() -> Result<()> {
    let fabric = Fabric::new("slice")?;
    let name = format!("t{}", std::process::id());
    let unit = unit("outrigger-network@.service")?;
    let run = |setting: &str| -> Result<()> {
        for line in values(&unit, setting) {
            let line = line.replace("%i", &name).replace("${ADDRESS}", "10.88.0.2");
            let line = line.replace("${GATEWAY}", "10.88.0.1");
            let may_fail = line.starts_with('-');
            let words: Vec<&str> = line.trim_start_matches('-').split(' ').collect();
            let ran = fabric.node().run(words[0], &words[1..])?;
            ensure!(may_fail || ran.status.success(), "{line}: {ran:?}");
        }
        Ok(())
    };
    let started = run("ExecStart");
    // Nobody listens there, so that the host's refusal is its answer.
    let dial = ["netns", "exec", &name, "curl", "-sv", "http://10.88.0.1:9/"];
    let answered = started.and_then(|()| fabric.node().run("ip", dial));
    let is_there = || Path::new("/run/netns").join(&name).exists();
    let was_there = is_there();
    run("ExecStopPost")?;
    assert!(was_there && !is_there());
    let answered = answered?;
    assert!(answered.stderr.contains("refused"), "{answered:?}");
    Ok(())
}

#[test]
fn a_service_of_a_slice_does_not_start_where_nothing_is_attached() -> Result<()> {
    let mesh = Mesh::start("gate")?;
    let (pod, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
    let gate = values(&unit("meshed.conf")?, "ExecStartPre").join("\n");
    let gate = gate
        .trim_start_matches('+')
        .replace("/run/outrigger/bpf/shop", &sidecar.pins().display().to_string());
    let gate = gate.replace("/sys/fs/cgroup/shop.slice", &pod.cgroup().display().to_string());
    let words: Vec<&str> = gate.split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/outrigger");
    let opens = || -> Result<bool> {
        let outrigger = binaries::path("outrigger")?;
        let output = mesh
            .fabric
            .node()
            .run(&outrigger.display().to_string(), &words[1..])?;
        Ok(output.status.success())
    };
    assert!(opens()?);
    sidecar.detach()?;
    assert!(!opens()?);
    Ok(())
}

/// What the page tells an operator to write is good, and it names every file that there is.
#[test]
fn the_page_for_hosts_shows_good_files_and_all_of_them() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/host.md"))?;
    let fabric = Fabric::new("page")?;
    let yaml: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(yaml.len(), 2, "a proxy's and a registry");
    for (n, text) in yaml.into_iter().enumerate() {
        let file = fabric.scratch().join(format!("{n}.yaml"));
        fs::write(&file, text)?;
        let mut command = fabric.node().command(binaries::path("outrigger")?);
        command.args(["config", "check"]).arg(&file);
        let said = fabric.node().run_within(command, wait::SOON)?.ok()?;
        assert!(said.contains(": ok ("), "{said}");
    }
    for file in fs::read_dir(root.join("deploy/systemd"))? {
        let name = file?.file_name().to_string_lossy().into_owned();
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/host.md does not name {name}"
        );
    }
    Ok(())
}

/// A unit as it is shipped.
fn unit(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy/systemd")
        .join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn values(unit: &str, setting: &str) -> Vec<String> {
    let value = |line: &str| line.strip_prefix(setting)?.strip_prefix('=').map(str::to_owned);
    unit.lines().filter_map(value).collect()
}
