//! No descriptors, no ports, no memory: new connections fail cleanly and are counted, established ones live on.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::script::Results;
use harness::apps::{self, Dialogue, Keep};
use harness::mesh::{Options, Plan};
use harness::pod::Pod;
use harness::{Mesh, Sidecar, wait};
use serde_json::Value;

/// The words of the log's one line for a burst of refusals.
const LINE: &str = "new connections are refused";

fn results<const N: usize>(expected: [(&str, usize); N]) -> Results {
    expected.map(|(result, count)| (result.to_owned(), count)).into()
}

fn all_ok(pod: &Pod, to: SocketAddr) -> Result<()> {
    let (kept, opened) = Keep::open(pod, &[to], 3)?;
    assert_eq!(opened, results([("ok", 3)]), "{to}");
    assert_eq!(kept.close()?, 3, "{to}");
    Ok(())
}

/// Closed connections free what they had a moment later.
fn works_again(pod: &Pod, to: SocketAddr) -> Result<()> {
    wait::until_some("connections are let in again", wait::SOON, || {
        let (kept, opened) = Keep::open(pod, &[to], 3)?;
        kept.close()?;
        Ok((opened == results([("ok", 3)])).then_some(()))
    })
}

/// Connections that the proxy refused for lack of something.
fn refused(sidecar: &Sidecar, direction: &str) -> Result<f64> {
    let direction = format!("direction=\"{direction}\"");
    let labels = ["by=\"us\"", "cause=\"limit_reached\"", &direction];
    sidecar.metric("outrigger_tcp_connections_closed_total", &labels)
}

fn is_for_lack(flow: &Value) -> bool {
    flow["closedBy"] == "us" && flow["closeCause"] == "limit_reached"
}

fn lines(sidecar: &Sidecar, lacking: &str) -> usize {
    let log = sidecar.log();
    log.lines()
        .filter(|line| line.contains(LINE) && line.contains(lacking))
        .count()
}

#[test]
fn without_descriptors_connect_is_refused_and_open_connections_live_on() -> Result<()> {
    let mut mesh = Mesh::start("limits-fds")?;
    mesh.serve(apps::echo, 9000)?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let (client, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
    // Through a tunnel that exists, where only the application's side takes one, and in plaintext, where both do.
    let ways = [
        mesh.vip4(9000),
        mesh.vip6(9000),
        (mesh.outside.ipv4(), 9000).into(),
    ];
    let (early, opened) = Keep::open(client, &ways, 5)?;
    assert_eq!(opened, results([("ok", 15)]));

    sidecar.exhaust_files()?;
    let (late, opened) = Keep::open(client, &ways, 20)?;
    assert_eq!(opened, results([("connect ECONNREFUSED", 60)]));
    assert_eq!(late.close()?, 0);
    assert_eq!(early.close()?, 15);

    sidecar.set_open_files(10_000)?;
    for to in ways {
        all_ok(client, to)?;
    }
    assert_eq!(refused(sidecar, "outbound")?, 60.0);
    let flow = sidecar.until_flow("a refused flow", is_for_lack)?;
    assert!(flow["originalDst"].is_string(), "{flow:#}");
    assert_eq!(lines(sidecar, "Descriptors"), 1, "{}", sidecar.log());
    Ok(())
}

#[test]
fn without_descriptors_a_server_s_proxy_refuses_every_way_in_and_open_connections_live_on() -> Result<()> {
    let mut mesh = Mesh::start("limits-server-fds")?;
    mesh.serve(apps::echo, 9000)?;
    let vip = mesh.vip4(9000);
    let direct = SocketAddr::new(mesh.server().pod.ipv4().into(), 9000);
    let (tunnelled, opened) = Keep::open(&mesh.client.pod, &[vip], 5)?;
    assert_eq!(opened, results([("ok", 5)]));
    let (plain, opened) = Keep::open(&mesh.outside, &[direct], 5)?;
    assert_eq!(opened, results([("ok", 5)]));

    let server = &mesh.servers[0].sidecar;
    server.exhaust_files()?;
    // Through the tunnel that is there the answer is told before connect() returns.
    let (late, opened) = Keep::open(&mesh.client.pod, &[vip], 20)?;
    assert_eq!(opened, results([("connect ECONNREFUSED", 20)]));
    late.close()?;
    // Plaintext is accepted by the kernel before the proxy is asked, so that a reset is what is left.
    let (late, opened) = Keep::open(&mesh.outside, &[direct], 20)?;
    assert_eq!(opened, results([("reset", 20)]));
    late.close()?;
    assert_eq!(tunnelled.close()?, 5);
    assert_eq!(plain.close()?, 5);
    // A new tunnel.
    mesh.client.sidecar.stop()?;
    server.exhaust_files()?;
    mesh.client.sidecar.restart()?;
    let (late, opened) = Keep::open(&mesh.client.pod, &[vip], 20)?;
    assert_eq!(opened, results([("connect ECONNREFUSED", 20)]));
    late.close()?;

    server.set_open_files(10_000)?;
    all_ok(&mesh.client.pod, vip)?;
    all_ok(&mesh.outside, direct)?;
    for transport in ["plain", "hbone"] {
        server.until_flow("a refused flow", |flow| {
            is_for_lack(flow) && flow["transport"] == transport
        })?;
    }
    // A tunnel is refused before anybody has proved who it is, and once for all who wait for it.
    server.until_flow("the refused tunnel", |flow| {
        is_for_lack(flow) && flow["transport"] == "hbone" && flow["sourceIdentity"].is_null()
    })?;
    // Those of the first twenty that found a tunnel of their shard, each; those that did not, once for all.
    let by_transport = |transport: &str| {
        let transport = format!("transport=\"{transport}\"");
        let labels = [
            "by=\"us\"",
            "cause=\"limit_reached\"",
            "direction=\"inbound\"",
            &transport,
        ];
        server.metric("outrigger_tcp_connections_closed_total", &labels)
    };
    assert_eq!(by_transport("plain")?, 20.0);
    assert!(by_transport("hbone")? >= 2.0, "of a stream, and of a tunnel");
    assert_eq!(lines(server, "Descriptors"), 1, "{}", server.log());
    Ok(())
}

#[test]
fn connections_leave_descriptors_for_those_who_ask_why_they_are_refused() -> Result<()> {
    for optimistic in [false, true] {
        let mut client = Options::new("client").open_files(256);
        if optimistic {
            client = client.without_capability("net_raw");
        }
        let plan = Plan {
            client,
            ..Plan::default()
        };
        let mut mesh = Mesh::of(if optimistic { "limits-few-o" } else { "limits-few" }, &plan)?;
        mesh.serve(apps::echo, 9000)?;
        let (pod, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
        let vip = mesh.vip4(9000);
        let (kept, opened) = Keep::open(pod, &[vip], 400)?;
        let denial = match optimistic {
            true => "reset",
            false => "connect ECONNREFUSED",
        };
        let count = |result: &str| opened.get(result).copied().unwrap_or_default();
        assert_eq!(count("ok") + count(denial), 400, "{opened:?}");
        assert!(count("ok") > 0 && count(denial) > 100, "{opened:?}");
        // On its way in a connection takes more than it needs later: until those are back, more are refused than must be.
        let (mut denied, mut served, mut more) = (count(denial), count("ok"), Vec::new());
        loop {
            let (late, again) = Keep::open(pod, &[vip], 20)?;
            let let_in = again.get("ok").copied().unwrap_or_default();
            denied += 20 - let_in;
            served += let_in;
            assert!(more.len() < 20, "there is no end of descriptors");
            match let_in {
                0 => break assert_eq!(late.close()?, 0),
                _ => more.push(late),
            }
        }
        // Half of the 256 are for connections, and a few more or less: those that are on their way take several.
        assert!(served > 120, "{served} at once");
        // While not one more is let in.
        assert_eq!(refused(sidecar, "outbound")?, denied as f64);
        sidecar.until_flow("a refused flow", is_for_lack)?;
        assert_eq!(lines(sidecar, "Descriptors"), 1, "{}", sidecar.log());

        assert_eq!(kept.close()?, count("ok"));
        works_again(pod, vip)?;
    }
    Ok(())
}

#[test]
fn an_application_has_as_many_ports_as_bare() -> Result<()> {
    let mut mesh = Mesh::start("limits-ports")?;
    for port in [9000, 9001, 9002] {
        mesh.serve(apps::echo, port)?;
    }
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let server = &mesh.server().pod;
    let bare = mesh.fabric.pod("bare")?;
    for pod in [&mesh.client.pod, &bare] {
        pod.sysctl("net/ipv4/ip_local_port_range", "40000 40019")?;
    }
    // To one destination: as many as there are ports.
    for ip in server.addresses() {
        // No destination of those below: its connections linger for a while.
        let to = SocketAddr::new(ip, 9002);
        for pod in [&bare, &mesh.client.pod] {
            let (kept, opened) = Keep::open(pod, &[to], 25)?;
            let expected = results([("connect EADDRNOTAVAIL", 5), ("ok", 20)]);
            assert_eq!(opened, expected, "{} to {to}", pod.name());
            assert_eq!(kept.close()?, 20);
        }
    }
    // To several: as many for each.
    let several = [
        mesh.vip4(9000),
        mesh.vip4(9001),
        (server.ipv4(), 9000).into(),
        (server.ipv4(), 9001).into(),
        (mesh.outside.ipv4(), 9000).into(),
    ];
    let (kept, opened) = Keep::open(&mesh.client.pod, &several, 20)?;
    assert_eq!(opened, results([("ok", 100)]));
    assert_eq!(kept.close()?, 100);
    Ok(())
}

#[test]
fn a_port_that_lingers_for_one_server_outside_serves_for_another() -> Result<()> {
    let mesh = Mesh::start("limits-linger")?;
    let _servers = [apps::echo(&mesh.outside, 9000)?, apps::echo(&mesh.outside, 9001)?];
    let client = &mesh.client;
    client.pod.sysctl("net/ipv4/ip_local_port_range", "40000 40199")?;
    // The client closes first: its port rests for a minute, for that server.
    for port in [9000, 9001] {
        let (kept, opened) = Keep::open(&client.pod, &[(mesh.outside.ipv4(), port).into()], 150)?;
        assert_eq!(opened, results([("ok", 150)]), "{port}");
        assert_eq!(kept.close()?, 150);
    }
    let changed = client
        .sidecar
        .metric("outrigger_outbound_client_ports_changed_total", &[])?;
    assert_eq!(changed, 0.0, "the servers have seen the application's own ports");
    Ok(())
}

/// By IPv4 the proxy has other addresses to dial from, which nobody is shown; by IPv6 it has none.
#[test]
fn without_ports_towards_the_application_others_are_taken_or_new_connections_are_refused() -> Result<()> {
    let mut mesh = Mesh::start("limits-server-ports")?;
    mesh.serve(apps::echo, 9000)?;
    let (server, sidecar) = (&mesh.server().pod, &mesh.server().sidecar);
    server.sysctl("net/ipv4/ip_local_port_range", "40000 40019")?;
    let (kept4, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 50)?;
    assert_eq!(opened, results([("ok", 50)]));
    let (kept6, opened) = Keep::open(&mesh.client.pod, &[mesh.vip6(9000)], 30)?;
    assert_eq!(opened, results([("connect ECONNREFUSED", 10), ("ok", 20)]));
    let [direct4, direct6] = server.addresses().map(|ip| SocketAddr::new(ip, 9000));
    all_ok(&mesh.outside, direct4)?;
    let (late, opened) = Keep::open(&mesh.outside, &[direct6], 5)?;
    assert_eq!(opened, results([("reset", 5)]));
    late.close()?;
    assert_eq!(refused(sidecar, "inbound")?, 15.0);
    sidecar.until_flow("a refused flow", is_for_lack)?;
    assert_eq!(lines(sidecar, "Ports"), 1, "{}", sidecar.log());
    // Each shard goes on from the other addresses for a while, and the application still sees who calls.
    for _ in 0..8 {
        crate::addresses::the_client_is_seen(&mesh, mesh.vip4(9001))?;
    }
    assert_eq!(kept4.close()?, 50);
    assert_eq!(kept6.close()?, 20);
    // The proxy closes its side first where the client did, and that port rests for a minute otherwise.
    server.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
    works_again(&mesh.client.pod, mesh.vip4(9000))?;
    works_again(&mesh.client.pod, mesh.vip6(9000))
}

#[test]
fn without_memory_for_the_original_destination_connect_is_denied_and_open_connections_live_on() -> Result<()>
{
    let mut mesh = Mesh::start("limits-storage")?;
    mesh.serve(apps::echo, 9000)?;
    let (client, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
    let (kept, opened) = Keep::open(client, &[mesh.vip4(9000), mesh.vip6(9000)], 5)?;
    assert_eq!(opened, results([("ok", 10)]));
    client.sysctl("net/core/optmem_max", "0")?;
    for to in [
        mesh.vip4(9000),
        mesh.vip6(9000),
        (mesh.outside.ipv4(), 9000).into(),
    ] {
        let lines = Dialogue::connect(client, to, &[])?.lines()?;
        assert_eq!(lines, ["connect errno EPERM"], "{to}");
    }
    wait::until("the refusals are counted", wait::SOON, || {
        let event = ["event=\"denied_storage\""];
        sidecar
            .metric("outrigger_kernel_events_total", &event)
            .is_ok_and(|n| n == 3.0)
    })?;
    assert_eq!(kept.close()?, 10);
    client.sysctl("net/core/optmem_max", "131072")?;
    all_ok(client, mesh.vip4(9000))
}

#[test]
fn a_server_s_proxy_without_memory_for_its_sockets_refuses_new_connections() -> Result<()> {
    let mut mesh = Mesh::start("limits-server-storage")?;
    mesh.serve(apps::echo, 9000)?;
    let (server, sidecar) = (&mesh.server().pod, &mesh.server().sidecar);
    let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 5)?;
    assert_eq!(opened, results([("ok", 5)]));
    server.sysctl("net/core/optmem_max", "0")?;
    let (late, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000), mesh.vip6(9000)], 5)?;
    assert_eq!(opened, results([("connect ECONNREFUSED", 10)]));
    late.close()?;
    assert_eq!(refused(sidecar, "inbound")?, 10.0);
    assert_eq!(lines(sidecar, "Memory"), 1, "{}", sidecar.log());
    assert_eq!(kept.close()?, 5);
    server.sysctl("net/core/optmem_max", "131072")?;
    all_ok(&mesh.client.pod, mesh.vip4(9000))
}

#[test]
fn connections_that_send_nothing_take_little_memory_and_leave_none_behind() -> Result<()> {
    const MANY: usize = 1500;
    /// Some 3.5 kB in a build for production (docs/performance.md); the futures of this one are larger.
    const EACH: u64 = 10 * 1024;
    let mut mesh = Mesh::start("limits-memory")?;
    mesh.serve(apps::echo, 9000)?;
    let (server, hbone) = (mesh.server(), harness::mesh::ports::HBONE);
    let ways = [
        (&mesh.client.pod, mesh.vip4(9000)),
        (&mesh.outside, (server.pod.ipv4(), 9000).into()),
        // No TLS handshake ever comes.
        (&mesh.outside, (server.pod.ipv4(), hbone).into()),
    ];
    for (pod, to) in ways {
        all_ok(&mesh.client.pod, mesh.vip4(9000))?;
        let before = [mesh.client.sidecar.resident()?, server.sidecar.resident()?];
        for round in 1..=3 {
            let (kept, _) = Keep::silent(pod, &[to], MANY)?;
            for (sidecar, before) in [&mesh.client.sidecar, &server.sidecar].into_iter().zip(before) {
                let grown = sidecar.resident()?.saturating_sub(before);
                assert!(
                    grown < EACH * MANY as u64,
                    "{} grew by {} for each connection to {to} in round {round}",
                    sidecar.pod().name(),
                    grown / MANY as u64
                );
            }
            all_ok(&mesh.client.pod, mesh.vip4(9000))?;
            kept.close()?;
        }
    }
    Ok(())
}
