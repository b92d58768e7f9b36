//! What is intercepted and what is left alone, changed while programs run, and explained by `outrigger why`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::whole::Member;
use harness::mesh::{Options, Plan, binaries, ports};
use harness::{Capture, Mesh, Sidecar, wait};
use serde_json::Value;

use crate::expect;

const TAKEN: &str = "a-payload-that-is-taken";
const LEFT: &str = "a-payload-left-alone----";

fn mesh(kind: &str, client: Options, server: Options) -> Result<Mesh> {
    let plan = Plan {
        client,
        server,
        ..Plan::default()
    };
    Mesh::of(kind, &plan)
}

fn with_client_policy(kind: &str, yaml: &str) -> Result<Mesh> {
    mesh(kind, Options::new("client").policy(yaml), Options::new("server"))
}

/// How often the kernel has decided so.
fn kernel_event(sidecar: &Sidecar, event: &str) -> Result<f64> {
    sidecar.metric("outrigger_kernel_events_total", &[&format!("event=\"{event}\"")])
}

#[test]
fn a_port_left_alone_is_plaintext_on_the_wire_and_a_taken_one_is_not() -> Result<()> {
    let mesh = with_client_policy(
        "left-port",
        "outbound: [{destinations: [10.99.0.0/16, \"fd99::/16\"], ports: [9001], action: leave}]",
    )?;
    let (client, server) = (&mesh.client.pod, &mesh.server().pod);
    let capture = Capture::start(&mesh.fabric)?;
    for ip in server.addresses() {
        for (port, payload) in [(9000, TAKEN), (9001, LEFT)] {
            let length = format!("recv:{}", payload.len());
            let listener = Dialogue::listen(server, port, &[&length, "close"])?;
            Dialogue::connect(client, (ip, port).into(), &[&format!("send:{payload}"), "close"])?.lines()?;
            assert_eq!(listener.lines()?[1], format!("recv {payload}"), "{ip} {port}");
        }
    }
    let recording = capture.stop()?;
    assert!(!recording.holds(TAKEN.as_bytes()), "it went over the bridge");
    let sent: Vec<SocketAddr> = recording
        .who_sent(LEFT.as_bytes())
        .into_iter()
        .map(|(_, to)| to)
        .collect();
    for ip in server.addresses() {
        assert!(sent.contains(&(ip, 9001).into()), "{ip}: {sent:?}");
    }
    for flow in mesh.client.sidecar.all_flows()? {
        let is_left = flow["originalDst"]
            .as_str()
            .is_some_and(|to| to.ends_with(":9001"));
        let transport = if is_left { "left_alone" } else { "hbone" };
        assert_eq!(flow["transport"], transport, "{flow:#}");
    }
    Ok(())
}

#[test]
fn an_edit_takes_effect_while_connections_run_and_a_bad_one_changes_nothing() -> Result<()> {
    let mut mesh = with_client_policy("edit", "outbound: []")?;
    mesh.serve(apps::nginx, 8080)?;
    let url = apps::url((mesh.server().pod.ipv4(), 8080));
    let sidecar = &mesh.client.sidecar;
    // Whether the kernel has left the next connection alone.
    let left_alone = || -> Result<bool> {
        let before = kernel_event(sidecar, "passed_policy")?;
        assert_eq!(apps::curl(&mesh.client.pod, &url)?.ok()?, "server-1\n");
        Ok(kernel_event(sidecar, "passed_policy")? > before)
    };
    let becomes = |left: bool| {
        wait::until("the edit is in force", wait::SOON, || {
            left_alone().is_ok_and(|now| now == left)
        })
    };
    let pid = sidecar.pid();
    assert!(!left_alone()?);

    // A connection through the proxy, which outlives every change.
    let go = mesh.fabric.scratch().join("go");
    let server = SocketAddr::from((mesh.server().pod.ipv4(), 9000));
    let listener = Dialogue::listen(&mesh.server().pod, 9000, &["recv:5", "recv:5", "close"])?;
    let wait = format!("await:{}", go.display());
    let through = Dialogue::connect(
        &mesh.client.pod,
        server,
        &["send:first", &wait, "send:after", "close"],
    )?;
    sidecar.until_flow("the connection", |flow| flow["originalDst"] == server.to_string())?;

    sidecar.write_policy("outbound: [{ports: [8080, 9000], action: leave}]")?;
    becomes(true)?;

    sidecar.write_policy("outbound:\n- {ports: [8080], action: leaf}\n")?;
    wait::until("the mistake is reported with its line", wait::SOON, || {
        sidecar.log().contains("policy.yaml:2:27: `outbound[0].action`")
    })?;
    assert!(left_alone()?, "the last good one stays in force");
    assert!(sidecar.is_ready());
    // The kernel has it a moment before it is counted.
    let counted = |generation: f64, errors: f64| {
        let metric = |name: &str| sidecar.metric(&format!("outrigger_interception_policy_{name}"), &[]);
        wait::until("generation and errors are counted", wait::SOON, || {
            metric("generation").is_ok_and(|is| is == generation)
                && metric("reload_errors_total").is_ok_and(|is| is == errors)
        })
    };
    counted(2.0, 1.0)?;

    sidecar.write_policy("outbound: [{ports: [22], action: leave}]")?;
    becomes(false)?;
    counted(3.0, 1.0)?;
    assert_eq!(sidecar.pid(), pid, "nothing was started or attached again");
    std::fs::write(&go, "")?;
    through.lines()?;
    assert_eq!(listener.lines()?[1..3], ["recv first", "recv after"]);
    Ok(())
}

#[test]
fn what_is_left_alone_inbound_reaches_the_application_of_a_strict_workload() -> Result<()> {
    let policy = "inbound: [{sources: [10.99.0.0/16, \"fd99::/16\"], ports: [8080], action: leave}]";
    let mut mesh = mesh(
        "left-inbound",
        Options::new("client"),
        Options::new("server").strict().policy(policy),
    )?;
    mesh.serve(apps::nginx, 8080)?;
    let _other = apps::nginx(&mesh.outside, 8081)?;
    let server = mesh.server();
    for ip in server.pod.addresses() {
        assert_eq!(
            apps::curl(&mesh.outside, &apps::url((ip, 8080)))?.ok()?,
            "server-1\n"
        );
        expect::connection_refused(&mesh.outside, (ip, 8081).into())?;
    }
    assert!(kernel_event(&server.sidecar, "inbound_passed_policy")? >= 2.0);
    Ok(())
}

#[test]
fn a_bad_policy_at_start_is_refused_with_all_its_mistakes() -> Result<()> {
    let mesh = Mesh::start("bad-policy")?;
    let bad = mesh.client.pod.scratch().join("bad.yaml");
    std::fs::write(
        &bad,
        "outbound:\n- {ports: [0], action: leave}\n- {action: leaf}\n",
    )?;
    let config = mesh.client.sidecar.config();
    let outrigger = |args: &[&str]| {
        let mut command = mesh.client.pod.command(binaries::path("outrigger")?);
        command.args(args);
        mesh.client.pod.run_within(command, wait::SOON)
    };
    let text = |path: &std::path::Path| path.display().to_string();
    for args in [
        vec![
            "proxy",
            "--config",
            &text(&config),
            "--interception-policy",
            &text(&bad),
        ],
        vec!["config", "check", &text(&bad)],
    ] {
        let output = outrigger(&args)?;
        assert_eq!(output.code(), Some(1), "{args:?}: {output:?}");
        for mistake in [
            "bad.yaml:2:12: `outbound[0].ports[0]`",
            "bad.yaml:3:12: `outbound[1].action`",
        ] {
            assert!(output.stderr.contains(mistake), "{args:?}: {}", output.stderr);
        }
    }
    assert!(
        mesh.client.sidecar.is_ready(),
        "the proxy that runs is not touched"
    );
    Ok(())
}

#[test]
fn dns_over_tcp_passes_under_registry_only() -> Result<()> {
    let mesh = mesh(
        "dns",
        Options::new("client").registry_only(),
        Options::new("server"),
    )?;
    let _dns = apps::nginx(&mesh.outside, 53)?;
    let _other = apps::nginx(&mesh.outside, 5353)?;
    for ip in mesh.outside.addresses() {
        assert_eq!(
            apps::curl(&mesh.client.pod, &apps::url((ip, 53)))?.ok()?,
            "outside\n",
            "{ip}"
        );
        expect::refused_for(&mesh.client, (ip, 5353).into(), "unknown_destination")?;
    }
    Ok(())
}

/// A question, the verdict, and a word that its reasons have to hold.
type Case<'c> = (&'c str, &'c [&'c str], &'c str, &'c str);

fn why(sidecar: &Sidecar, at: &str, flags: &[&str]) -> Result<Value> {
    let json = sidecar.why(&[&[at, "--json"], flags].concat())?.ok()?;
    serde_json::from_str(&json).with_context(|| format!("{at}: no JSON: {json}"))
}

fn agrees(report: &Value, (at, flags, verdict, word): &Case<'_>) {
    assert_eq!(report["verdict"], *verdict, "{at} {flags:?}: {report:#}");
    assert!(
        report["reasons"].to_string().contains(word),
        "{at} {flags:?} does not say `{word}`: {report:#}"
    );
}

#[test]
fn why_says_what_happens_to_connections_of_the_application() -> Result<()> {
    let mut mesh = with_client_policy(
        "why-outbound",
        "outbound:\n- destinations: [\"fd99::/16\", 10.99.0.0/16]\n  ports: [9001]\n  action: leave\n",
    )?;
    mesh.serve(apps::nginx, 8080)?;
    let sidecar = &mesh.client.sidecar;
    let [own4, own6] = mesh
        .client
        .pod
        .addresses()
        .map(|ip| SocketAddr::new(ip, 80).to_string());
    let [server4, server6] = mesh
        .server()
        .pod
        .addresses()
        .map(|ip| SocketAddr::new(ip, 8080).to_string());
    let outside = mesh.outside.addresses();
    let [direct, left] = [8080, 9001].map(|port| SocketAddr::new(outside[0], port).to_string());
    let left6 = SocketAddr::new(outside[1], 9001).to_string();
    let vip = |port: u16| (mesh.vip4(port).to_string(), mesh.vip6(port).to_string());
    let ((vip4, vip6), (closed, _)) = (vip(80), vip(81));
    let mapped = format!("[::ffff:{}]:9001", mesh.outside.ipv4());
    let cases: &[Case<'_>] = &[
        ("169.254.169.254:80", &[], "left_alone", "built-in default"),
        ("203.0.113.53:53", &["--udp"], "left_alone", "only TCP"),
        ("203.0.113.53:53", &[], "direct", "outbound: passthrough"),
        ("127.0.0.1:80", &[], "left_alone", "loopback"),
        (&own4, &[], "left_alone", "own addresses"),
        (&own6, &[], "left_alone", "own addresses"),
        (&vip4, &[], "mesh", "demo/server.demo.svc.cluster.local"),
        (&vip6, &[], "mesh", "demo/server.demo.svc.cluster.local"),
        (&closed, &[], "refused", "no healthy endpoint"),
        (&server4, &[], "mesh", "demo/server-1"),
        (&server6, &[], "mesh", "demo/server-1"),
        (&direct, &[], "direct", "no rule names it"),
        (&left, &[], "left_alone", "policy.yaml:2"),
        (&left6, &[], "left_alone", "policy.yaml:2"),
        (&mapped, &[], "left_alone", "policy.yaml:2"),
    ];
    for case in cases {
        let (at, flags, ..) = case;
        let report = why(sidecar, at, flags)?;
        agrees(&report, case);
        // And so it happens: the kernel counts it where it was said that it would.
        let event = report["kernelEvent"].as_str().context("the kernel's event")?;
        let before = kernel_event(sidecar, event)?;
        let to: SocketAddr = at.parse()?;
        connect(&mesh, to, flags.contains(&"--udp"))?;
        assert!(
            kernel_event(sidecar, event)? > before,
            "{at}: {event} was not counted"
        );
        let transport = match case.2 {
            "mesh" => "hbone",
            "direct" => "plain",
            _ => continue,
        };
        let at = SocketAddr::new(to.ip().to_canonical(), to.port()).to_string();
        let flow = sidecar.until_flow("the flow", |flow| flow["originalDst"] == at)?;
        if flow["chosenDst"].is_string() {
            assert_eq!(flow["transport"], transport, "{flow:#}");
            assert_eq!(report["endpoints"][0]["address"], flow["chosenDst"], "{flow:#}");
        }
    }
    let report = why(sidecar, &vip4, &[])?;
    assert_eq!(report["endpoints"][0]["address"], server4, "{report:#}");
    let people = sidecar.why(&[&vip4])?.ok()?;
    assert!(
        people.starts_with(&format!(
            "{vip4} goes through the mesh, encrypted, to {server4}\n"
        )),
        "{people}"
    );
    Ok(())
}

/// Opens a connection, or tries to; what comes of it is no matter.
fn connect(mesh: &Mesh, to: SocketAddr, udp: bool) -> Result<()> {
    const PROGRAM: &str = "import socket, sys\n\
        host, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n\
        family = socket.AF_INET6 if ':' in host else socket.AF_INET\n\
        s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)\n\
        s.settimeout(1)\n\
        try: s.connect((host, port))\n\
        except OSError: pass\n";
    let (ip, port) = (to.ip().to_string(), to.port().to_string());
    let kind = if udp { "udp" } else { "tcp" };
    mesh.client
        .pod
        .run("/usr/bin/python3", ["-c", PROGRAM, &ip, &port, kind])?
        .ok()?;
    Ok(())
}

#[test]
fn why_says_what_happens_to_those_who_dial_the_pod() -> Result<()> {
    let mesh = mesh(
        "why-inbound",
        Options::new("client"),
        Options::new("server")
            .strict()
            .policy("inbound: [{ports: [22], action: leave}]"),
    )?;
    let _app = apps::nginx(&mesh.client.pod, 8080)?;
    let at = |member: &Member, port: u16| SocketAddr::from((member.pod.ipv4(), port)).to_string();
    let outside = mesh.outside.ipv4().to_string();
    let from = ["--inbound", "--from", outside.as_str()];
    let probe = ["--inbound", "--from", "169.254.7.127"];
    let (client, server) = (&mesh.client, mesh.server());
    let cases: &[(&Member, u16, &[&str], &str, &str)] = &[
        (client, 8080, &from, "admitted", "steers it to the proxy"),
        (client, 8081, &from, "refused", "does not listen on this port"),
        (client, ports::HBONE, &from, "left_alone", "mesh peers"),
        (client, 8080, &probe, "left_alone", "probes of the kubelet"),
        (server, 8080, &from, "refused", "strict mode"),
        (server, 22, &from, "left_alone", "policy.yaml:1"),
        (server, 8080, &probe, "left_alone", "probes of the kubelet"),
    ];
    for (member, port, flags, verdict, word) in cases {
        let at = at(member, *port);
        agrees(&why(&member.sidecar, &at, flags)?, &(&at, flags, verdict, word));
    }
    let elsewhere = server
        .sidecar
        .why(&["203.0.113.1:80", "--inbound", "--from", "10.99.0.1"])?;
    assert_eq!(elsewhere.code(), Some(1));
    assert!(
        elsewhere.stderr.contains("203.0.113.1 is no address of this pod"),
        "{}",
        elsewhere.stderr
    );
    let mut nobody = mesh.outside.command(binaries::path("outrigger")?);
    nobody.args(["why", "10.0.0.1:80"]);
    let output = mesh.outside.run_within(nobody, wait::SOON)?;
    assert!(
        output.stderr.contains("127.0.0.1:15000 does not answer") && output.stderr.contains("--address"),
        "{}",
        output.stderr
    );
    Ok(())
}
