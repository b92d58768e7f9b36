//! Neighbours that do not read, that give up, or that stand at the door and say nothing: what they can hold is bounded,
//! and nobody else notices them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::apps::hold::{self, Stuck};
use harness::apps::{self, Keep};
use harness::mesh::{Options, Plan, ports};
use harness::pod::Pod;
use harness::{Mesh, Sidecar, wait};

/// All of these connections exchange a message, now and again at the end.
struct Bystanders(Keep, usize);

impl Bystanders {
    fn open(pod: &Pod, to: &[SocketAddr], each: usize) -> Result<Self> {
        let (kept, opened) = Keep::open(pod, to, each)?;
        let all = to.len() * each;
        assert_eq!(opened.get("ok"), Some(&all), "{opened:?}");
        Ok(Self(kept, all))
    }

    fn live_on(self) -> Result<()> {
        assert_eq!(self.0.close()?, self.1);
        Ok(())
    }
}

fn serves(pod: &Pod, to: SocketAddr) -> Result<()> {
    Bystanders::open(pod, &[to], 3)?.live_on()
}

fn buffered(sidecar: &Sidecar) -> Result<f64> {
    sidecar.metric("outrigger_buffer_memory_bytes", &[])
}

/// What the kernel holds for the sockets of a pod, in bytes: received, to be sent, and set aside for either.
fn socket_memory(pod: &Pod) -> Result<u64> {
    let listing = pod.run("ss", ["-tmOnH"])?.ok()?;
    let held = listing.lines().filter_map(|line| {
        let memory = line.split("skmem:(").nth(1)?.split(')').next()?;
        let field = |name: char| -> u64 {
            let value = memory
                .split(',')
                .find_map(|field| field.strip_prefix(name)?.parse().ok());
            value.unwrap_or_default()
        };
        Some(field('r') + field('w') + field('f'))
    });
    Ok(held.sum())
}

#[test]
fn connects_that_are_given_up_end_nobody_else_s_connection_and_leave_nothing_behind() -> Result<()> {
    let mut mesh = Mesh::start("given-up")?;
    mesh.serve(apps::echo, 9000)?;
    let (client, to) = (&mesh.client.pod, [mesh.vip4(9000), mesh.vip6(9000)]);
    let bystanders = Bystanders::open(client, &to, 10)?;
    let files = |sidecar: &Sidecar| sidecar.metric("process_open_fds", &[]);
    let before = [files(&mesh.client.sidecar)?, files(&mesh.server().sidecar)?];
    for to in to {
        for after in [0, 1, 3] {
            hold::abandon(client, to, 500, 4, Duration::from_millis(after))?;
        }
    }
    // Whole programs that are killed while they connect.
    for _ in 0..10 {
        let command = hold::abandoning(client, to[0], 300, 1, Duration::from_secs(60))?;
        let mut process = client.spawn(command)?;
        let pid = process.id();
        wait::until("it connects", wait::SOON, || {
            std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) > 100
        })?;
        process.kill();
    }
    bystanders.live_on()?;
    let ended = mesh
        .server()
        .sidecar
        .metric("outrigger_inbound_tunnels_ended_total", &[])?;
    assert_eq!(ended, 0.0, "no tunnel was ended for it");
    for (sidecar, before) in [&mesh.client.sidecar, &mesh.server().sidecar]
        .into_iter()
        .zip(before)
    {
        wait::until("what was dialled is closed", wait::SOON, || {
            files(sidecar).is_ok_and(|now| now <= before + 5.0)
        })?;
    }
    Ok(())
}

/// Some read nothing, some stop half-way. Bare is the same on two pods without sidecars.
#[test]
fn clients_that_do_not_read_take_at_most_three_times_the_kernel_memory_they_take_bare() -> Result<()> {
    const MANY: usize = 50;
    let mut mesh = Mesh::start("readers")?;
    mesh.serve(hold::fire, 9001)?;
    mesh.serve(apps::echo, 9000)?;
    let (bare, _fire) = (mesh.fabric.pod("bare")?, hold::fire(&mesh.outside, 9001)?);
    let measure = |pods: [&Pod; 2], to: SocketAddr| -> Result<u64> {
        let nothing = Stuck::readers(pods[0], to, MANY, 0)?;
        let some = Stuck::readers(pods[0], to, MANY, 300_000)?;
        let held = socket_memory(pods[0])? + socket_memory(pods[1])?;
        for stuck in [nothing, some] {
            assert_eq!(stuck.close()?, MANY, "to {to}");
        }
        Ok(held)
    };
    let direct = measure([&bare, &mesh.outside], (mesh.outside.ipv4(), 9001).into())?;
    let server = &mesh.server().pod;
    let meshed = measure([&mesh.client.pod, server], mesh.vip4(9001))?;
    assert!(meshed <= 3 * direct, "{meshed} in the mesh, {direct} bare");
    let plain = measure([&bare, server], (server.ipv4(), 9001).into())?;
    assert!(plain <= 3 * direct, "{plain} in plaintext, {direct} bare");
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        let of = |what: &str| sidecar.metric(&format!("outrigger_buffer_memory_{what}_bytes"), &[]);
        assert!(of("peak")? <= of("limit")?);
        wait::until("nothing waits any more", wait::SOON, || {
            buffered(sidecar).is_ok_and(|bytes| bytes < 65_536.0)
        })?;
    }
    serves(&mesh.client.pod, mesh.vip4(9000))
}

#[test]
fn uploads_to_a_stopped_server_stay_within_the_memory_that_is_set_and_others_are_served() -> Result<()> {
    const MEMORY: f64 = 8.0 * 1024.0 * 1024.0;
    /// Beside the buffers: 200 connections with their tasks and tables, and what the allocator keeps.
    const BESIDE: u64 = 24 << 20;
    let plan = Plan {
        client: Options::new("client").buffer_memory("8MiB"),
        server: Options::new("server").buffer_memory("8MiB"),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("uploads", &plan)?;
    let sink = hold::sink(&mesh.server().pod, 9001)?;
    mesh.serve(apps::echo, 9000)?;
    let client = &mesh.client.pod;
    serves(client, mesh.vip4(9000))?;
    let sidecars = [&mesh.client.sidecar, &mesh.server().sidecar];
    let before = [sidecars[0].resident()?, sidecars[1].resident()?];
    let stuck = Stuck::writers(client, mesh.vip4(9001), 200, 65_536)?;
    for (sidecar, before) in sidecars.into_iter().zip(before) {
        let peak = sidecar.metric("outrigger_buffer_memory_peak_bytes", &[])?;
        assert!(peak <= MEMORY, "{} buffered {peak}", sidecar.pod().name());
        let grown = sidecar.resident()?.saturating_sub(before);
        assert!(
            grown < MEMORY as u64 + BESIDE,
            "{} grew by {grown}",
            sidecar.pod().name()
        );
    }
    assert!(buffered(sidecars[1])? > 65_536.0, "something does wait");
    serves(client, mesh.vip4(9000))?;
    assert_eq!(stuck.close()?, 200);
    // Until then what was sent may still be read.
    drop(sink);
    for sidecar in sidecars {
        wait::until("nothing waits any more", wait::SOON, || {
            buffered(sidecar).is_ok_and(|bytes| bytes < 65_536.0)
        })?;
    }
    Ok(())
}

/// Each byte is a write, so that what waits for the server is as many pieces as bytes.
#[test]
fn a_program_that_writes_byte_by_byte_to_a_stopped_server_takes_what_its_bytes_take() -> Result<()> {
    const LITTLE: u64 = 16 << 20;
    let mut mesh = Mesh::start("bytes")?;
    mesh.serve(hold::sink, 9001)?;
    mesh.serve(apps::echo, 9000)?;
    let client = &mesh.client.pod;
    serves(client, mesh.vip4(9000))?;
    let sidecars = [&mesh.client.sidecar, &mesh.server().sidecar];
    let before = [sidecars[0].resident()?, sidecars[1].resident()?];
    let stuck = Stuck::writers(client, mesh.vip4(9001), 1, 1)?;
    assert!(stuck.moved() > 100_000, "{} bytes", stuck.moved());
    for (sidecar, before) in sidecars.into_iter().zip(before) {
        let grown = sidecar.resident()?.saturating_sub(before);
        assert!(grown < LITTLE, "{} grew by {grown}", sidecar.pod().name());
    }
    serves(client, mesh.vip4(9000))?;
    assert_eq!(stuck.close()?, 1);
    Ok(())
}

#[test]
fn strangers_that_say_nothing_yield_their_places_to_peers() -> Result<()> {
    let mut mesh = Mesh::start("silent-strangers")?;
    mesh.serve(apps::echo, 9000)?;
    let hbone = SocketAddr::new(mesh.server().pod.ipv4().into(), ports::HBONE);
    let (strangers, _) = Keep::silent(&mesh.outside, &[hbone], 3000)?;
    // New tunnels, from another source and from the strangers' own.
    mesh.client.sidecar.stop()?;
    mesh.client.sidecar.restart()?;
    serves(&mesh.client.pod, mesh.vip4(9000))?;
    let leaf = crate::hbone::client::leaf_of(&mesh.control, &harness::mesh::identity("client"))?;
    let answer = crate::hbone::client::connect(
        &mesh,
        crate::hbone::client::Client::with(&leaf),
        hbone.ip(),
        &format!("{}:9000", hbone.ip()),
        b"ping",
    )?;
    assert_eq!((answer.status, &*answer.body), (200, &b"ping"[..]));
    let server = &mesh.server().sidecar;
    let door = |name: &str| server.metric(name, &["door=\"hbone\""]);
    assert!(door("outrigger_admission_evicted_by_quota_total")? > 1000.0);
    assert!(door("outrigger_admission_waiting")? <= door("outrigger_admission_places")? / 4.0);
    drop(strangers);
    Ok(())
}

/// Few descriptors, so that there are few places: 128 for plaintext connections that have sent nothing, 64 of a source.
#[test]
fn plaintext_connections_that_never_sent_a_byte_yield_and_those_that_did_stay() -> Result<()> {
    let plan = Plan {
        server: Options::new("server").open_files(1024),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("silent-plaintext", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let direct = SocketAddr::new(mesh.server().pod.ipv4().into(), 9000);
    let talkers = Bystanders::open(&mesh.outside, &[direct], 30)?;
    let (silent, opened) = Keep::silent(&mesh.outside, &[direct], 300)?;
    assert_eq!(opened.values().sum::<usize>(), 300, "{opened:?}");
    let server = &mesh.server().sidecar;
    let evicted = ["door=\"plaintext\""];
    wait::until("the oldest silent ones have gone", wait::SOON, || {
        server
            .metric("outrigger_admission_evicted_by_quota_total", &evicted)
            .is_ok_and(|n| n >= 230.0)
    })?;
    let flow = server.until_flow("one that had to go", |flow| {
        flow["closedBy"] == "us" && flow["closeCause"] == "limit_reached"
    })?;
    assert_eq!(flow["transport"], "plain", "{flow:#}");
    serves(&mesh.outside, direct)?;
    talkers.live_on()?;
    silent.close().context("the silent program")?;
    Ok(())
}
