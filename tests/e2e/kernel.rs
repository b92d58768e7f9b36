//! What the kernel knows of each connection stands in its flow, and the one who makes a flow slow is named.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use harness::apps::hold::{self, Stuck};
use harness::apps::{self, Dialogue};
use harness::mesh::{Options, Plan};
use harness::{Mesh, Sidecar};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::expect::{connection_refused, inbound, outbound};

/// Waits for the verdict about a flow that is open, and gives the flow.
fn until_verdict(sidecar: &Sidecar, verdict: &str, of: fn(&Value) -> bool) -> Result<Value> {
    sidecar.until_flow(&format!("a flow slowed by the {verdict}"), |flow| {
        of(flow) && flow["bottleneck"] == verdict
    })
}

/// Waits until something is noticeably held up.
fn until_blocked(sidecar: &Sidecar, towards: &str, of: fn(&Value) -> bool) -> Result<Value> {
    sidecar.until_flow(&format!("a flow that is {towards}"), |flow| {
        of(flow) && flow[towards].as_f64().is_some_and(|seconds| seconds > 0.2)
    })
}

fn closed(flow: &Value) -> bool {
    flow["state"] == "closed"
}

#[test]
fn a_closed_flow_has_the_kernel_s_figures_of_both_its_connections() -> Result<()> {
    const BYTES: u64 = 3_000_000;
    let mut mesh = Mesh::start("kernel-facts")?;
    mesh.serve(apps::nginx, 8080)?;
    let pod = &mesh.server().pod;
    let (files, plain) = (pod.scratch().join("www"), (mesh.outside.ipv4(), 8080).into());
    std::fs::create_dir_all(&files)?;
    std::fs::write(files.join("big"), vec![b'x'; BYTES as usize])?;
    let outside = mesh.outside.scratch().join("www");
    std::fs::create_dir_all(&outside)?;
    std::fs::write(outside.join("big"), vec![b'x'; BYTES as usize])?;
    let _nginx = apps::nginx(&mesh.outside, 8080)?;
    for server in [mesh.vip4(80), plain] {
        let url = format!("{}files/big", apps::url(server));
        apps::curl(&mesh.client.pod, &url)?.ok()?;
    }
    let flow = |sidecar: &Sidecar, of: fn(&Value) -> bool, transport: &str| {
        sidecar.until_flow("a closed flow", |flow| {
            of(flow) && closed(flow) && flow["transport"] == transport
        })
    };
    let client = &mesh.client.sidecar;
    for (flow, peer, is_tunnel) in [
        (flow(client, outbound, "hbone")?, "upstream", true),
        (flow(client, outbound, "plain")?, "upstream", false),
        (flow(&mesh.server().sidecar, inbound, "hbone")?, "client", true),
    ] {
        let own = if peer == "client" { "upstream" } else { "client" };
        for (leg, tunnel) in [(peer, is_tunnel), (own, false)] {
            let leg = &flow["tcp"][leg];
            let number = |name: &str| leg[name].as_f64().with_context(|| format!("{name} of {leg}"));
            assert_eq!(leg["tunnel"], tunnel, "{flow}");
            let moved = number("bytesSent")?.max(number("bytesReceived")?);
            assert!(moved >= BYTES as f64, "{flow}");
            assert!(
                number("minRttSeconds")? > 0.0 && number("minRttSeconds")? <= number("rttSeconds")?,
                "{flow}"
            );
            for name in [
                "segmentsSent",
                "segmentsReceived",
                "congestionWindowSegments",
                "segmentBytes",
            ] {
                assert!(number(name)? > 0.0, "{name}: {flow}");
            }
            assert!(
                number("segmentsRetransmitted")? <= number("segmentsSent")?,
                "{flow}"
            );
        }
        assert!(
            flow["connectSeconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0),
            "{flow}"
        );
    }
    for transport in ["transport=\"hbone\"", "transport=\"plain\""] {
        for name in [
            "outrigger_tcp_rtt_seconds_count",
            "outrigger_tcp_retransmit_ratio_count",
        ] {
            assert_eq!(
                client.metric(name, &["direction=\"outbound\"", transport])?,
                1.0,
                "{name}"
            );
        }
    }
    Ok(())
}

/// By the policy, in either direction, and where nobody listens.
#[test]
fn connections_that_never_come_to_the_proxy_are_flows_all_the_same() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").policy("outbound: [{ports: [9000, 9009], action: leave}]"),
        server: Options::new("server").policy("inbound: [{ports: [9000], action: leave}]"),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("kernel-left-alone", &plan)?;
    mesh.serve(apps::echo, 9000)?;
    let _echo = apps::echo(&mesh.outside, 9000)?;
    let server = mesh.server().pod.clone();
    let left = |sidecar: &Sidecar, to: SocketAddr| {
        let to = to.to_string();
        sidecar.until_flow("a closed flow", |flow| {
            flow["transport"] == "left_alone" && flow["originalDst"] == *to && closed(flow)
        })
    };
    for outside in mesh.outside.addresses() {
        let to = SocketAddr::new(outside, 9000);
        let lines = Dialogue::connect(&mesh.client.pod, to, &["send:ping", "recv:4", "close"])?.lines()?;
        assert!(lines.iter().any(|line| line.contains("ping")), "{lines:?}");
        let flow = left(&mesh.client.sidecar, to)?;
        assert_eq!(
            (&flow["direction"], &flow["standing"]),
            (&"outbound".into(), &"own".into()),
            "{flow}"
        );
        assert_eq!(
            (&flow["closeCause"], &flow["tcp"]["client"]),
            (&"eof".into(), &Value::Null),
            "{flow}"
        );
        let leg = &flow["tcp"]["upstream"];
        // SYN and FIN count.
        assert!(
            (4..=6).contains(&leg["bytesAcked"].as_u64().unwrap_or_default()),
            "{flow}"
        );
        assert!(
            (4..=5).contains(&leg["bytesReceived"].as_u64().unwrap_or_default()),
            "{flow}"
        );
        assert!(
            leg["minRttSeconds"].as_f64().is_some_and(|rtt| rtt > 0.0),
            "{flow}"
        );
        assert!(leg["segmentsSent"].as_u64() >= Some(3), "{flow}");
        assert!(
            flow["connectSeconds"].as_f64().is_some_and(|time| time > 0.0),
            "{flow}"
        );

        let nobody = SocketAddr::new(outside, 9009);
        connection_refused(&mesh.client.pod, nobody)?;
        let flow = left(&mesh.client.sidecar, nobody)?;
        assert_eq!(
            (&flow["closeCause"], &flow["closedBy"], &flow["connectSeconds"]),
            (&"connection_refused".into(), &"upstream".into(), &Value::Null),
            "{flow}"
        );
    }
    for own in server.addresses() {
        let to = SocketAddr::new(own, 9000);
        Dialogue::connect(&mesh.outside, to, &["send:ping", "recv:4", "close"])?.lines()?;
        let flow = left(&mesh.server().sidecar, to)?;
        assert_eq!(
            (&flow["direction"], &flow["standing"]),
            (&"inbound".into(), &"plaintext".into()),
            "{flow}"
        );
        assert_eq!(flow["tcp"]["client"]["segmentsRetransmitted"], 0, "{flow}");
    }
    // Neither the proxies' own connections nor those inside of a pod are among them.
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        let strangers = sidecar.all_flows()?.into_iter().filter(|flow| {
            let port = flow["originalDst"].as_str().and_then(|to| to.rsplit(':').next());
            flow["transport"] == "left_alone" && !matches!(port, Some("9000" | "9009"))
        });
        assert_eq!(strangers.collect::<Vec<_>>(), Vec::<Value>::new());
        let lost = sidecar.metric("outrigger_kernel_events_total", &["event=\"facts_lost\""])?;
        assert_eq!(lost, 0.0);
    }
    Ok(())
}

#[test]
fn a_connection_that_was_left_alone_and_lasts_is_an_open_flow_with_the_kernel_s_figures() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").policy("outbound: [{ports: [9002], action: leave}]"),
        server: Options::new("server").policy("inbound: [{ports: [9002], action: leave}]"),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("kernel-lasting", &plan)?;
    mesh.serve(hold::drain, 9002)?;
    let ip = mesh.server().pod.ipv4();
    let _stream = hold::stream(&mesh.client.pod, (ip, 9002).into())?;
    for (sidecar, leg, moved) in [
        (&mesh.client.sidecar, "upstream", "bytesAcked"),
        (&mesh.server().sidecar, "client", "bytesReceived"),
    ] {
        let flow = sidecar.until_flow("an open flow with figures", |flow| {
            flow["transport"] == "left_alone" && flow["tcp"][leg][moved].as_u64() > Some(1 << 20)
        })?;
        assert_eq!(
            (&flow["state"], &flow["service"]),
            (&"open".into(), &Value::Null),
            "{flow}"
        );
        assert!(flow["bytesSent"].as_u64() > Some(1 << 20), "{flow}");
        let active = sidecar.metric("outrigger_tcp_connections_active", &["transport=\"left_alone\""])?;
        assert_eq!(active, 1.0);
    }
    Ok(())
}

#[test]
fn an_application_that_does_not_read_is_named_on_both_sides() -> Result<()> {
    let mut mesh = Mesh::start("culprit-app")?;
    mesh.serve(hold::fire, 9001)?;
    mesh.serve(hold::sink, 9002)?;
    let (client, server) = (&mesh.client.sidecar, &mesh.server().sidecar);

    let reader = Stuck::readers(&mesh.client.pod, mesh.vip4(9001), 1, 0)?;
    until_blocked(client, "blockedToClientSeconds", outbound)?;
    until_blocked(server, "blockedToClientSeconds", inbound)?;
    reader.close()?;
    let verdict = |sidecar: &Sidecar| {
        let flow = sidecar.until_flow("a closed flow", closed)?;
        anyhow::Ok(flow["bottleneck"].clone())
    };
    assert_eq!(verdict(client)?, "application", "the reader is the client's own");
    assert_eq!(verdict(server)?, "peer_application", "and the server's peer");

    let _writer = Stuck::writers(&mesh.client.pod, mesh.vip4(9002), 1, 65_536)?;
    until_verdict(client, "peer_application", |flow| outbound(flow) && !closed(flow))?;
    until_verdict(server, "application", |flow| inbound(flow) && !closed(flow))?;
    let named = client.metric("outrigger_tcp_bottlenecks_total", &["bottleneck=\"application\""])?;
    assert_eq!(named, 1.0, "what has closed is counted");
    Ok(())
}

#[test]
fn a_peer_without_a_proxy_that_does_not_read_is_named() -> Result<()> {
    let mesh = Mesh::start("culprit-plain")?;
    let _sink = hold::sink(&mesh.outside, 9002)?;
    let to = (mesh.outside.ipv4(), 9002).into();
    let _writer = Stuck::writers(&mesh.client.pod, to, 1, 65_536)?;
    until_verdict(&mesh.client.sidecar, "peer_application", outbound)?;
    Ok(())
}

#[test]
fn a_link_that_is_slow_is_named_in_a_tunnel_and_without_one() -> Result<()> {
    let mut mesh = Mesh::start("culprit-link")?;
    mesh.serve(hold::drain, 9002)?;
    let _drain = hold::drain(&mesh.outside, 9002)?;
    let pod = &mesh.client.pod;
    let slow = [
        "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "4mbit", "burst", "16k", "latency", "50ms",
    ];
    pod.run("tc", slow)?.ok()?;
    let _streams = [mesh.vip4(9002), (mesh.outside.ipv4(), 9002).into()].map(|to| hold::stream(pod, to));
    for of in [
        |flow: &Value| outbound(flow) && flow["transport"] == "hbone",
        |flow: &Value| outbound(flow) && flow["transport"] == "plain",
    ] {
        let flow = until_verdict(&mesh.client.sidecar, "network", of)?;
        assert_eq!(flow["state"], "open", "nobody has to wait for the end: {flow}");
    }
    Ok(())
}

#[test]
fn a_peer_s_proxy_that_stands_still_is_named() -> Result<()> {
    let mut mesh = Mesh::start("culprit-proxy")?;
    mesh.serve(hold::drain, 9002)?;
    let _stream = hold::stream(&mesh.client.pod, mesh.vip4(9002))?;
    mesh.client.sidecar.until_flow("bytes", |flow| {
        outbound(flow) && flow["bytesSent"].as_u64() > Some(1 << 20)
    })?;
    mesh.server().sidecar.signal(Signal::SIGSTOP)?;
    let named = until_verdict(&mesh.client.sidecar, "peer_proxy", outbound);
    mesh.server().sidecar.signal(Signal::SIGCONT)?;
    named?;
    Ok(())
}
