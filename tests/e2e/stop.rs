//! The end of a sidecar: whom it still serves, what it refuses, when it cuts, and that it ends with 0.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::whole::Member;
use harness::mesh::{Options, Plan};
use harness::pod::Pod;
use harness::{Mesh, Sidecar, wait};
use nix::sys::signal::Signal;

use crate::expect;

/// A connection that stays open until the test lets it say its last word.
struct Held {
    dialogue: Dialogue,
    word: PathBuf,
}

impl Held {
    fn open(client: &Pod, server: SocketAddr, name: &str) -> Result<Self> {
        let word = client.scratch().join(format!("{name}.word"));
        let steps = [
            "send:ping",
            "recv:4",
            &format!("await:{}", word.display()),
            "send:pong",
            "recv:4",
            "close",
        ];
        let mut dialogue = Dialogue::connect(client, server, &steps)?;
        assert_eq!(dialogue.result("recv")?, "ping");
        Ok(Self { dialogue, word })
    }

    /// Goes on to its end, and says whether it was served as if nothing had happened.
    fn finish(self) -> Result<()> {
        fs::write(&self.word, "")?;
        let lines = self.dialogue.lines()?;
        assert_eq!(lines.last().map(String::as_str), Some("close ok"), "{lines:?}");
        Ok(())
    }

    /// Sees that it has been reset.
    fn see_reset(self) -> Result<()> {
        fs::write(&self.word, "")?;
        let lines = self.dialogue.lines()?;
        let last = lines.last().map(String::as_str).unwrap_or_default();
        assert!(last.contains("ECONNRESET") || last.contains("EPIPE"), "{lines:?}");
        Ok(())
    }
}

fn served(client: &Pod, server: SocketAddr) -> Result<()> {
    let lines = Dialogue::connect(client, server, &["send:ping", "recv:4"])?.lines()?;
    assert_eq!(
        lines,
        ["connect ok", "send ok", "recv ping"],
        "{} to {server}",
        client.name()
    );
    Ok(())
}

/// The state is published first, and each shard acts on it a moment later.
fn until_refused(client: &Pod, server: SocketAddr) -> Result<()> {
    let mut lines = Vec::new();
    wait::until_some(&format!("{server} refuses newcomers"), wait::SOON, || {
        lines = Dialogue::connect(client, server, &["send:ping", "recv:4"])?.lines()?;
        Ok((lines == ["connect errno ECONNREFUSED"]).then_some(()))
    })
    .with_context(|| format!("{lines:?}"))
}

fn until_state(sidecar: &Sidecar, state: &str) -> Result<()> {
    let label = format!("state=\"{state}\"");
    let is = || sidecar.metric("outrigger_proxy_state", &[&label]);
    wait::until(&format!("the state is {state}"), wait::SOON, || {
        is().is_ok_and(|is| is == 1.0)
    })
    .with_context(|| sidecar.log())
}

/// A client and a server with an echo service, both of whose sidecars end like this; one more echo outside.
fn mesh(name: &str, minimum: &str, deadline: &str) -> Result<Mesh> {
    let plan = Plan {
        // One shard, which is there until the last connection has ended, and refuses for itself.
        client: Options::new("client").workers(1).drain(minimum, deadline),
        server: Options::new("server").drain(minimum, deadline),
        ..Plan::default()
    };
    let mut mesh = Mesh::of(name, &plan)?;
    mesh.serve(apps::echo, 9000)?;
    mesh.programs.push(apps::echo(&mesh.outside, 9000)?);
    Ok(mesh)
}

fn ends_well(member: &mut Member) -> Result<()> {
    let (status, log) = member.sidecar.wait(wait::SOON)?;
    assert!(status.success(), "{status}\n{log}");
    Ok(())
}

#[test]
fn newcomers_of_both_directions_are_served_at_first_and_a_second_signal_ends_it() -> Result<()> {
    let mut mesh = mesh("lame-duck", "1h", "2h")?;
    let (client, server) = (&mesh.client, mesh.server());
    let held = Held::open(&client.pod, mesh.vip4(9000), "mesh")?;
    let inbound = Held::open(&mesh.outside, (server.pod.ipv4(), 9000).into(), "plain")?;
    for member in [client, server] {
        member.sidecar.signal(Signal::SIGTERM)?;
        until_state(&member.sidecar, "lame-duck")?;
        let (code, body) = member.sidecar.readiness()?;
        assert!(code == 503 && body.contains("draining"), "{code} {body}");
    }
    // The client's sidecar takes an application's connection, and the server's one of a peer.
    for to in [mesh.vip4(9000), mesh.vip6(9000)] {
        served(&client.pod, to)?;
    }
    for ip in mesh.outside.addresses() {
        served(&client.pod, (ip, 9000).into())?;
    }
    for ip in server.pod.addresses() {
        served(&mesh.outside, (ip, 9000).into())?;
    }
    mesh.client.sidecar.signal(Signal::SIGTERM)?;
    ends_well(&mut mesh.client)?;
    mesh.servers[0].sidecar.signal(Signal::SIGINT)?;
    ends_well(&mut mesh.servers[0])?;
    held.see_reset()?;
    inbound.see_reset()
}

#[test]
fn then_newcomers_are_refused_and_open_connections_go_on_until_they_end() -> Result<()> {
    let mut mesh = mesh("closed", "0s", "1h")?;
    let (client, server) = (&mesh.client, mesh.server());
    let plain: SocketAddr = (mesh.outside.ipv4(), 9000).into();
    let held = Held::open(&client.pod, plain, "outbound")?;
    let inbound = Held::open(&mesh.outside, (server.pod.ipv4(), 9000).into(), "inbound")?;
    let tunnelled = Held::open(&client.pod, mesh.vip4(9000), "tunnelled")?;

    server.sidecar.signal(Signal::SIGTERM)?;
    until_state(&server.sidecar, "draining")?;
    for ip in server.pod.addresses() {
        until_refused(&mesh.outside, (ip, 9000).into())?;
    }
    until_refused(&client.pod, mesh.vip4(9000))?;
    until_refused(&client.pod, mesh.vip6(9000))?;
    served(&client.pod, plain)?;

    client.sidecar.signal(Signal::SIGTERM)?;
    until_state(&client.sidecar, "draining")?;
    for ip in mesh.outside.addresses() {
        expect::refused_for(client, (ip, 9000).into(), "shutdown")?;
    }
    for held in [held, inbound, tunnelled] {
        held.finish()?;
    }
    ends_well(&mut mesh.client)?;
    ends_well(&mut mesh.servers[0])
}

/// Without the right to answer a SYN by itself, the sidecar has only its listener to close.
#[test]
fn where_connect_is_optimistic_newcomers_are_refused_as_well() -> Result<()> {
    let plan = Plan {
        client: Options::new("client")
            .without_capability("net_raw")
            .drain("0s", "1h"),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("closed-optimist", &plan)?;
    mesh.programs.push(apps::echo(&mesh.outside, 9000)?);
    let plain: SocketAddr = (mesh.outside.ipv4(), 9000).into();
    let held = Held::open(&mesh.client.pod, plain, "outbound")?;
    mesh.client.sidecar.signal(Signal::SIGTERM)?;
    until_state(&mesh.client.sidecar, "draining")?;
    until_refused(&mesh.client.pod, plain)?;
    held.finish()?;
    ends_well(&mut mesh.client)
}

#[test]
fn a_connection_that_outlives_the_deadline_is_cut_and_looks_so() -> Result<()> {
    let mut mesh = mesh("drain", "0s", "1s")?;
    let mut held = Dialogue::connect(
        &mesh.client.pod,
        mesh.vip4(9000),
        &["send:ping", "recv:4", "recv:1"],
    )?;
    held.result("recv")?;
    mesh.client.sidecar.stop()?;
    assert_eq!(
        held.lines()?,
        ["connect ok", "send ok", "recv ping", "recv errno ECONNRESET"]
    );
    Ok(())
}

#[test]
fn drain_returns_at_once_or_waits_for_the_end() -> Result<()> {
    let mut mesh = mesh("drain-verb", "0s", "1h")?;
    let held = Held::open(&mesh.client.pod, mesh.vip4(9000), "held")?;
    let (client, pod) = (&mesh.client.sidecar, &mesh.client.pod);
    let at_once = pod.run_within(client.drain(&[])?, wait::SOON)?.ok()?;
    assert_eq!(at_once, "draining\n");
    let late = pod.run_within(client.drain(&["--wait", "--timeout", "100ms"])?, wait::SOON)?;
    assert_eq!(late.code(), Some(1));
    assert!(
        late.stderr.contains("has not ended within 100ms"),
        "{}",
        late.stderr
    );

    // SIGTERM comes after the hook, and is no second request.
    client.signal(Signal::SIGTERM)?;
    let mut waiting = pod.spawn(client.drain(&["--wait", "--timeout", "1m"])?)?;
    waiting.until("has asked", |hook| hook.log() == "draining\n")?;
    held.finish()?;
    let status = waiting.wait(wait::SOON)?;
    assert!(status.success(), "{}", waiting.log());
    assert_eq!(waiting.log(), "draining\ndrained\n");
    ends_well(&mut mesh.client)
}

/// The client's sidecar ends with its application, and would drain for an hour.
fn job(name: &str) -> Result<Mesh> {
    let plan = Plan {
        client: Options::new("client").drain("0s", "1h").with_application(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of(name, &plan)?;
    mesh.serve(apps::echo, 9000)?;
    Ok(mesh)
}

#[test]
fn the_sidecar_of_a_job_ends_by_itself_when_the_job_has() -> Result<()> {
    let mut mesh = job("job")?;
    let held = Held::open(&mesh.client.pod, mesh.vip4(9000), "job")?;
    wait::until("the sidecar has seen its application", wait::SOON, || {
        mesh.client.sidecar.log().contains("ends with the last one")
    })?;
    assert!(mesh.client.sidecar.is_ready());
    held.finish()?;
    ends_well(&mut mesh.client)
}

#[test]
fn the_sidecar_of_a_job_serves_its_last_words_whatever_comes_first() -> Result<()> {
    let mut mesh = job("last-words")?;
    let held = Held::open(&mesh.client.pod, mesh.vip4(9000), "job")?;
    let client = &mesh.client;
    client.sidecar.signal(Signal::SIGTERM)?;
    until_state(&client.sidecar, "lame-duck")?;
    // Nor does it wait for whoever waits for it.
    let mut hook = client.pod.spawn(client.sidecar.drain(&["--wait"])?)?;
    hook.until("has asked", |hook| hook.log() == "draining\n")?;
    served(&client.pod, mesh.vip4(9000))?;
    held.finish()?;
    ends_well(&mut mesh.client)?;
    assert!(hook.wait(wait::SOON)?.success(), "{}", hook.log());
    Ok(())
}
