//! connect() tells the truth: it answers what it would answer without a sidecar, and when.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use harness::apps::{self, Connects, Dialogue};
use harness::mesh::{Options, Plan};
use harness::pod::Pod;
use harness::{Mesh, wait};

/// Half of the places of each of two shards, by the rule of fairness.
const HELD_BY_ONE_DESTINATION: usize = 2 * 4096 / 2;

/// Nobody has these addresses, and a neighbour entry that leads nowhere keeps the kernel from finding out.
const SILENT: [&str; 2] = ["10.99.0.200", "fd99::200"];

/// Frames to these addresses leave the pod and reach nobody.
fn silence(pod: &Pod) -> Result<[SocketAddr; 2]> {
    for ip in SILENT {
        pod.netns()
            .ip_batch(&format!("neigh replace {ip} lladdr 02:00:00:00:0f:0f dev eth0\n"))?;
    }
    Ok(SILENT.map(|ip| SocketAddr::new(ip.parse().expect("a constant address"), 9000)))
}

fn connect(client: &Pod, to: SocketAddr) -> Result<Vec<String>> {
    Dialogue::connect(client, to, &[])?.lines()
}

/// Connections that are held and not answered yet.
fn pending(mesh: &Mesh) -> usize {
    let flows = mesh.client.sidecar.all_flows().unwrap_or_default();
    flows.iter().filter(|flow| flow["closed"].is_null()).count()
}

fn held(mesh: &Mesh, event: &str) -> Result<f64> {
    let event = format!("event=\"{event}\"");
    mesh.client
        .sidecar
        .metric("outrigger_kernel_events_total", &[&event])
}

#[test]
fn a_port_that_nobody_listens_on_refuses_connect_itself() -> Result<()> {
    let mesh = Mesh::start("truth-refused")?;
    let server = &mesh.server().pod;
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), 9000),
        v6 => SocketAddr::new(v6, 9000),
    };
    for to in [
        mesh.vip4(9000),
        mesh.vip6(9000),
        (server.ipv4(), 9000).into(),
        (server.ipv6(), 9000).into(),
        mapped(server.ipv4().into()),
        (mesh.outside.ipv4(), 9000).into(),
        (mesh.outside.ipv6(), 9000).into(),
        mapped(mesh.outside.ipv4().into()),
    ] {
        assert_eq!(
            connect(&mesh.client.pod, to)?,
            ["connect errno ECONNREFUSED"],
            "{to}"
        );
    }
    mesh.client.sidecar.until_flow("a refused flow", |flow| {
        flow["closeCause"] == "connection_refused"
    })?;
    Ok(())
}

/// The kernel keeps nothing of a SYN that it answers with a cookie: what is held, where it goes and who called is found
/// again by the acknowledgement.
#[test]
fn syn_cookies_change_nothing() -> Result<()> {
    let mut mesh = Mesh::start("truth-cookies")?;
    mesh.serve(apps::echo, 9000)?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let (client, server) = (mesh.client.pod.clone(), mesh.server().pod.clone());
    for pod in [&client, &server] {
        pod.sysctl("net/ipv4/tcp_syncookies", "2")?;
    }
    let everywhere = [mesh.vip4(9000), mesh.vip6(9000)]
        .into_iter()
        .chain(mesh.outside.addresses().map(|ip| SocketAddr::new(ip, 9000)));
    for to in everywhere {
        assert_eq!(apps::crowd(&client, to, 50)?, 50, "{to}");
    }
    for to in server.addresses().map(|ip| SocketAddr::new(ip, 9000)) {
        assert_eq!(apps::crowd(&mesh.outside, to, 50)?, 50, "{to}");
    }
    for to in [mesh.vip4(9001), mesh.vip6(9001)] {
        assert_eq!(connect(&client, to)?, ["connect errno ECONNREFUSED"], "{to}");
        crate::addresses::the_client_is_seen(&mesh, to)?;
    }
    let sent = server.run_in(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))??;
    assert!(cookies(&sent).is_some_and(|sent| sent > 0), "{sent}");
    let flows = mesh.client.sidecar.all_flows()?;
    let lost = flows
        .iter()
        .find(|flow| flow["closeCause"] == "no_original_destination");
    assert_eq!(lost, None);
    Ok(())
}

/// SyncookiesSent of `/proc/net/netstat`: a line of names, and one of numbers.
fn cookies(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "SyncookiesSent")?;
    numbers.split(' ').nth(at)?.parse().ok()
}

#[test]
fn what_policy_or_identity_forbids_refuses_connect_itself() -> Result<()> {
    let mut mesh = Mesh::of(
        "truth-forbidden",
        &Plan {
            client: Options::new("client").registry_only(),
            ..Plan::default()
        },
    )?;
    let unknown = (mesh.outside.ipv4(), 9000).into();
    let _listener = apps::echo(&mesh.outside, 9000)?;
    assert_eq!(
        connect(&mesh.client.pod, unknown)?,
        ["connect errno ECONNREFUSED"]
    );
    // The server proves another identity than the registry now says.
    let _echo = apps::echo(&mesh.server().pod, 9000)?;
    mesh.registry.update(|registry| {
        registry
            .workload("server-1")
            .expect("it is there")
            .service_account = "somebody-else".into();
    })?;
    let at = mesh.vip4(9000);
    wait::until("the wrong identity is refused", wait::SOON, || {
        connect(&mesh.client.pod, at).is_ok_and(|lines| lines == ["connect errno ECONNREFUSED"])
    })?;
    Ok(())
}

#[test]
fn when_an_endpoint_refuses_another_is_tried_and_the_application_sees_a_success() -> Result<()> {
    let mesh = Mesh::with_servers("truth-retry", 3)?;
    // Only one of three listens, from the start.
    let _echo = apps::echo(&mesh.servers[2].pod, 9000)?;
    for _ in 0..20 {
        for to in [mesh.vip4(9000), mesh.vip6(9000)] {
            assert_eq!(
                Dialogue::connect(&mesh.client.pod, to, &["send:x", "recv:1"])?.lines()?,
                ["connect ok", "send ok", "recv x"],
                "{to}"
            );
        }
    }
    // Each was held once, let in once, and refused never.
    wait::until("the counters are read", wait::SOON, || {
        held(&mesh, "held").is_ok_and(|n| n == 40.0) && held(&mesh, "approved").is_ok_and(|n| n == 40.0)
    })?;
    Ok(())
}

#[test]
fn a_host_that_does_not_answer_leaves_the_application_to_its_own_patience() -> Result<()> {
    let mesh = Mesh::start("truth-silent")?;
    for to in silence(&mesh.client.pod)? {
        let stop = mesh.client.pod.scratch().join(format!("stop-{}", to.is_ipv4()));
        let mut waiting = Connects::start(&mesh.client.pod, to, 3, &stop)?;
        waiting.until_started()?;
        wait::until("all are held", wait::SOON, || pending(&mesh) == 3)?;
        // Its kernel asks again, and is not answered either.
        let again = held(&mesh, "held_again")?;
        wait::until("the SYNs come again", wait::SOON, || {
            held(&mesh, "held_again").is_ok_and(|now| now >= again + 3.0)
        })?;
        assert_eq!(waiting.stop()?, ["waiting 3"], "{to}");
        wait::until("those who gave up leave nothing", wait::SOON, || {
            pending(&mesh) == 0
        })?;
    }
    assert_eq!(held(&mesh, "approved")?, 0.0);
    Ok(())
}

#[test]
fn a_host_that_answers_late_is_connected_when_it_answers() -> Result<()> {
    let mesh = Mesh::start("truth-late")?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    for to in silence(&mesh.client.pod)? {
        let own = if to.is_ipv4() { "/16" } else { "/64 nodad" };
        mesh.outside
            .netns()
            .ip_batch(&format!("address add {}{own} dev eth0\n", to.ip()))?;
        let stop = mesh.client.pod.scratch().join(format!("stop-{}", to.is_ipv4()));
        let mut waiting = Connects::start(&mesh.client.pod, to, 5, &stop)?;
        waiting.until_started()?;
        wait::until("all are held", wait::SOON, || pending(&mesh) == 5)?;
        mesh.client
            .pod
            .netns()
            .ip_batch(&format!("neigh del {} dev eth0\n", to.ip()))?;
        assert_eq!(waiting.finish()?, ["connected 5"], "{to}");
    }
    Ok(())
}

#[test]
fn a_flood_of_held_connects_is_bounded_and_starves_nobody() -> Result<()> {
    let mesh = Mesh::of(
        "truth-flood",
        &Plan {
            client: Options::new("client").workers(2),
            ..Plan::default()
        },
    )?;
    let _echo = apps::echo(&mesh.server().pod, 9000)?;
    let client = &mesh.client.pod;
    let [silent, _] = silence(client)?;
    // Lives through the flood.
    let mut early = Dialogue::connect(
        client,
        mesh.vip4(9000),
        &["send:a", "recv:1", "await:go", "send:b", "recv:1"],
    )?;
    early.result("recv")?;

    let stop = client.scratch().join("stop-flood");
    let mut flood = Connects::start(client, silent, 6000, &stop)?;
    flood.until_started()?;
    // Those that a full ring has delayed come again after a second. What is refused is told to the application.
    let refused = || {
        let labels = ["cause=\"limit_reached\"", "direction=\"outbound\""];
        let closed = "outrigger_tcp_connections_closed_total";
        mesh.client.sidecar.metric(closed, &labels)
    };
    wait::until("the bound is reached", wait::SOON, || {
        refused().is_ok_and(|n| n >= (6000 - HELD_BY_ONE_DESTINATION) as f64)
    })?;
    for to in [mesh.vip4(9000), mesh.vip6(9000)] {
        let lines = Dialogue::connect(client, to, &["send:x", "recv:1"])?.lines()?;
        assert_eq!(lines, ["connect ok", "send ok", "recv x"], "{to}");
    }
    std::fs::write(client.scratch().join("go"), "")?;
    assert_eq!(early.lines()?.last().map(String::as_str), Some("recv b"));

    let results = flood.stop()?;
    let count = |name: &str| -> usize {
        let line = results.iter().find_map(|line| line.strip_prefix(name));
        line.and_then(|n| n.trim().parse().ok()).unwrap_or_default()
    };
    assert_eq!(count("waiting") + count("ECONNREFUSED"), 6000, "{results:?}");
    assert!(
        (1..=HELD_BY_ONE_DESTINATION).contains(&count("waiting")),
        "{results:?}"
    );
    wait::until("the flood leaves nothing", wait::SOON, || pending(&mesh) == 0)?;
    Ok(())
}

#[test]
fn without_the_raw_socket_connect_is_optimistic_and_the_log_says_so() -> Result<()> {
    let mesh = Mesh::of(
        "truth-optimistic",
        &Plan {
            client: Options::new("client").without_capability("net_raw"),
            ..Plan::default()
        },
    )?;
    let lines = Dialogue::connect(&mesh.client.pod, mesh.vip4(9000), &["recv:1"])?.lines()?;
    assert_eq!(lines, ["connect ok", "recv errno ECONNRESET"]);
    assert!(mesh.client.sidecar.log().contains("CAP_NET_RAW"));
    let _echo = apps::echo(&mesh.server().pod, 9000)?;
    let lines = Dialogue::connect(&mesh.client.pod, mesh.vip4(9000), &["send:x", "recv:1"])?.lines()?;
    assert_eq!(lines, ["connect ok", "send ok", "recv x"]);
    Ok(())
}

#[test]
fn a_held_connect_is_refused_when_the_proxy_ends() -> Result<()> {
    let mut mesh = Mesh::start("truth-end")?;
    let [silent, _] = silence(&mesh.client.pod)?;
    let stop = mesh.client.pod.scratch().join("stop");
    let mut waiting = Connects::start(&mesh.client.pod, silent, 5, &stop)?;
    waiting.until_started()?;
    wait::until("all are held", wait::SOON, || pending(&mesh) == 5)?;
    mesh.client.sidecar.stop()?;
    assert_eq!(waiting.finish()?, ["ECONNREFUSED 5"]);
    Ok(())
}
