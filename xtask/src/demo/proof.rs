//! What the demo proves, and how. Each proof would fail if what it shows were not so.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::agent::SIDECAR_USER;
use harness::mesh::{identity, ports};
use harness::{Capture, netfilter, pcap, wait};
use serde_json::Value;

use super::kernel;
use super::look;
use super::report::Report;
use super::stage::{HTTP, REDIS, SMTP, Stage};

/// Sent as the query of a request, to be looked for on the wire.
const SECRET: &str = "this-is-nobody-elses-business";

/// What is proved, in this order. One more where there is an agent.
#[cfg(test)]
pub(super) const TITLES: [&str; 9] = [
    "requests",
    "protocols",
    "encryption",
    "identities",
    "no netfilter",
    "failover",
    "flows",
    "edges",
    "kernel",
];

pub(super) fn all(stage: &mut Stage, report: &mut Report) {
    // From the first request on, so that it sees every handshake.
    let capture = Capture::start(&stage.mesh.fabric);
    report.prove("requests", || requests(stage));
    report.prove("protocols", || protocols(stage));
    report.prove("encryption", || encryption(stage, capture));
    report.prove("identities", || identities(stage));
    if stage.by_agent {
        report.prove("no privilege", || no_privilege(stage));
    }
    report.prove("no netfilter", || no_netfilter(stage));
    report.prove("failover", || failover(stage));
    report.prove("flows", || look::flows(stage));
    report.prove("edges", || look::edges(stage));
    report.prove("kernel", || kernel::figures(stage));
}

fn requests(stage: &Stage) -> Result<Vec<String>> {
    const EACH: usize = 20;
    let mut facts = Vec::new();
    for vip in [stage.mesh.vip4(80), stage.mesh.vip6(80)] {
        let answers = ask(stage, &apps::url(vip), EACH)?;
        // With a fair choice 20 requests miss one of two servers once in half a million runs.
        ensure!(
            answers.len() == 2,
            "only one server answered {EACH} requests: {answers:?}"
        );
        let share: Vec<String> = answers
            .iter()
            .map(|(name, count)| format!("{name} answered {count}"))
            .collect();
        facts.push(format!(
            "{EACH} x curl {:<22} {}",
            apps::url(vip),
            share.join(", ")
        ));
    }
    Ok(facts)
}

/// Which body came how often.
fn ask(stage: &Stage, url: &str, times: usize) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let body = apps::curl(stage.client(), url)?.ok()?;
        *answers.entry(body.trim().to_owned()).or_default() += 1;
    }
    Ok(answers)
}

fn protocols(stage: &Stage) -> Result<Vec<String>> {
    let redis = stage.mesh.vip4(REDIS);
    let pong = apps::redis_cli(stage.client(), redis, &["PING"])?.ok()?;
    ensure!(pong.trim() == "PONG", "redis-cli PING: {pong}");
    let smtp = stage.mesh.vip4(SMTP);
    let help = apps::curl(stage.client(), &format!("smtp://{smtp}"))?.ok()?;
    ensure!(help.contains("HELP"), "curl smtp://{smtp}: {help}");
    Ok(vec![
        format!("redis-cli PING to {redis}: PONG (the server is silent until asked)"),
        format!("curl smtp://{smtp}: greeted (the server speaks first)"),
    ])
}

fn encryption(stage: &Stage, capture: Result<Capture>) -> Result<Vec<String>> {
    let mesh = &stage.mesh;
    let outside = mesh.outside.ipv4();
    for server in mesh
        .servers
        .iter()
        .map(|server| server.pod.ipv4())
        .chain([outside])
    {
        let url = apps::url((server, HTTP));
        apps::curl(stage.client(), &format!("{url}?{SECRET}"))?.ok()?;
    }
    let recording = capture?.stop()?;

    let readable = recording.who_sent(SECRET.as_bytes());
    ensure!(
        readable.iter().any(|(_, to)| to.ip() == outside),
        "the capture does not even show the plain request, so it proves nothing"
    );
    let leaks: Vec<_> = readable.iter().filter(|(_, to)| to.ip() != outside).collect();
    ensure!(
        leaks.is_empty(),
        "the payload is readable between pods of the mesh: {leaks:?}"
    );

    let client = stage.client().addresses();
    let servers = mesh.servers.iter().flat_map(|server| server.pod.addresses());
    let pairs = servers.flat_map(|server| client.map(|client| (client, server)));
    let segments: Vec<_> = pairs.flat_map(|(a, b)| recording.between(a, b)).collect();
    for segment in &segments {
        let ends = [segment.from.port(), segment.to.port()];
        ensure!(
            ends.contains(&ports::HBONE),
            "beside the tunnels: {} to {}",
            segment.from,
            segment.to
        );
    }
    let bytes: usize = segments.iter().map(|segment| segment.payload.len()).sum();
    let versions = recording.tls_versions(ports::HBONE);
    ensure!(
        !versions.is_empty() && versions.iter().all(|version| *version == pcap::TLS13),
        "TLS versions on the wire: {versions:x?}"
    );
    Ok(vec![
        format!(
            "between mesh pods: {bytes} bytes in {} tunnels on port {}, all TLS 1.3",
            versions.len(),
            ports::HBONE
        ),
        "none of the payload in them; to the server outside, the same capture shows it".into(),
    ])
}

fn identities(stage: &Stage) -> Result<Vec<String>> {
    let mesh = &stage.mesh;
    let expected = (identity("client"), identity("server"));
    let both = |flow: &Value| {
        flow["sourceIdentity"] == expected.0
            && flow["destinationIdentity"] == expected.1
            && flow["tls"]["version"] == "TLSv1.3"
    };
    let seen = mesh
        .client
        .sidecar
        .until_flow("a flow with both identities", both)?;
    for server in &mesh.servers {
        server.sidecar.until_flow("a flow with both identities", both)?;
    }
    let tls = |key: &str| seen["tls"][key].as_str().unwrap_or("?").to_owned();
    Ok(vec![
        format!("the client verified {}", expected.1),
        format!("both servers verified {}", expected.0),
        format!("{}, {}, {}", tls("version"), tls("cipher"), tls("keyExchange")),
    ])
}

/// What the kernel says of each sidecar's process.
fn no_privilege(stage: &Stage) -> Result<Vec<String>> {
    let mesh = &stage.mesh;
    for member in mesh.servers.iter().chain([&mesh.client]) {
        let pid = member.sidecar.pid().context("a sidecar has ended")?;
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let none = "0000000000000000";
        for (field, wanted) in [
            ("CapPrm", none),
            ("CapEff", none),
            ("CapBnd", none),
            ("CapAmb", none),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let line = format!("{field}:\t{wanted}");
            ensure!(
                status.lines().any(|said| said == line),
                "{}: no {line:?} in\n{status}",
                member.pod.name()
            );
        }
        ensure!(
            status.contains(&format!("\nUid:\t{SIDECAR_USER}\t")),
            "{}: {status}",
            member.pod.name()
        );
    }
    Ok(vec![format!(
        "each sidecar runs as uid {SIDECAR_USER}: no capability, none to be had, and a seccomp filter"
    )])
}

fn no_netfilter(stage: &Stage) -> Result<Vec<String>> {
    let mesh = &stage.mesh;
    let pods = [
        &mesh.client.pod,
        &mesh.servers[0].pod,
        &mesh.servers[1].pod,
        &mesh.outside,
        mesh.fabric.node(),
    ];
    for pod in pods {
        let tables = netfilter::tables(pod.netns())?;
        ensure!(tables == 0, "{} has {tables} netfilter tables", pod.name());
    }
    Ok(vec![
        "no nftables and no iptables table in any of the network namespaces".into(),
    ])
}

fn failover(stage: &mut Stage) -> Result<Vec<String>> {
    const REQUESTS: usize = 10;
    stage.web[0].kill();
    let answers = ask(stage, &apps::url(stage.mesh.vip4(80)), REQUESTS)?;
    stage.revive(0)?;
    ensure!(
        answers.len() == 1 && answers.contains_key("server-2"),
        "after nginx on server-1 was killed: {answers:?}"
    );
    let url = apps::url(stage.mesh.vip4(80));
    wait::until("server-1 answers again", wait::SOON, || {
        apps::curl(stage.client(), &url).is_ok_and(|output| output.stdout.trim() == "server-1")
    })?;
    Ok(vec![
        format!("nginx on server-1 killed: server-2 answered all {REQUESTS} requests, none failed"),
        "nginx on server-1 started again: it takes part".into(),
    ])
}
