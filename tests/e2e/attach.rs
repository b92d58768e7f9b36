//! Where a proxy is attached: one that is not in the pod's cgroup, or that intercepts nothing, does not say that it is
//! ready, and shows no application a wrong client.

use std::fs;

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::{Options, Plan, binaries};
use harness::{Capture, Mesh, Sidecar, cgroup, wait};

use crate::expect;
use crate::lone::Lone;

impl Lone {
    /// Waits until interception alone is what is missing.
    fn until_unready(&self, reason: &str) -> Result<()> {
        let mut seen = String::new();
        wait::until("nothing but interception is missing", wait::SOON, || {
            self.sidecar.readiness().is_ok_and(|(code, body)| {
                let only = body.lines().filter(|line| line.contains(": ")).count() == 1;
                let reasoned =
                    code == 503 && only && body.starts_with("interception: ") && body.contains(reason);
                seen = body;
                reasoned
            })
        })
        .with_context(|| seen.clone())
    }
}

#[test]
fn a_proxy_outside_of_the_cgroup_is_not_ready_and_no_application_takes_it_for_a_client() -> Result<()> {
    let lone = Lone::new(
        "outside-cgroup",
        &Options::new("server").cgroup_below("container"),
    )?;
    lone.until_unready("does not run in the cgroup that interception.cgroup names")?;
    let (_, body) = lone.sidecar.readiness()?;
    assert!(!body.contains("/sys"), "no path for strangers: {body}");
    let log = lone.sidecar.log();
    let cgroup = lone.pod.cgroup().join("container").display().to_string();
    assert!(
        log.contains(&cgroup),
        "whoever reads the log is told which one: {log}"
    );
    assert_eq!(
        log.matches("do not see this proxy's own sockets").count(),
        1,
        "once: {log}"
    );

    // One that everybody can reach in the pod itself, and nobody through the proxy.
    let _app = apps::nginx(&lone.pod, 8080)?;
    for ip in lone.pod.addresses() {
        expect::refused(&lone.outside, (ip, 8080).into())?;
    }
    let listener = Dialogue::listen(&lone.pod, 9000, &["accepted", "close"])?;
    expect::refused(&lone.outside, (lone.pod.ipv4(), 9000).into())?;
    let own =
        Dialogue::connect(&lone.pod, (lone.pod.ipv4(), 9000).into(), &["sockname", "close"])?.lines()?;
    let came = listener.lines()?;
    let port = |lines: &[String], step: &str| {
        let line = lines.iter().find(|line| line.starts_with(step));
        let port = line.and_then(|line| line.split(' ').next_back().map(str::to_owned));
        port.with_context(|| format!("no {step}: {lines:?}"))
    };
    assert_eq!(
        port(&came, "accepted")?,
        port(&own, "sockname")?,
        "nobody came before"
    );
    Ok(())
}

#[test]
fn a_strict_proxy_that_intercepts_nothing_is_not_ready() -> Result<()> {
    let lone = Lone::new(
        "strict-nothing",
        &Options::new("server").strict().intercept_nothing(),
    )?;
    lone.until_unready("`interception: none`")?;
    assert!(
        lone.sidecar.log().contains("does not become ready"),
        "{}",
        lone.sidecar.log()
    );
    let mut check = lone.pod.command(binaries::path("outrigger")?);
    check.args(["config", "check"]).arg(lone.sidecar.config());
    let check = lone.pod.run_within(check, wait::SOON)?;
    let said = check.ok()?;
    assert!(
        said.contains("intercepts nothing") && said.contains("never becomes ready"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_permissive_proxy_that_intercepts_nothing_is_ready() -> Result<()> {
    let lone = Lone::new("permissive-nothing", &Options::new("server").intercept_nothing())?;
    wait::until("it is ready", wait::SOON, || lone.sidecar.is_ready())?;
    Ok(())
}

#[test]
fn a_proxy_that_is_given_the_root_cgroup_ends_and_attaches_nothing() -> Result<()> {
    let mut lone = Lone::new("root-cgroup", &Options::new("server").intercept_nothing())?;
    lone.sidecar.stop()?;
    let (root, pins) = (cgroup::mount()?, lone.sidecar.pins());
    let root = root.display().to_string();
    let target = format!("interception: {{cgroup: {root}, pins: {}}}", pins.display());
    let config = fs::read_to_string(lone.sidecar.config())?.replace("interception: none", &target);
    fs::write(lone.sidecar.config(), config)?;
    let mut proxy = lone.pod.command(binaries::path("outrigger")?);
    proxy.arg("proxy").arg("--config").arg(lone.sidecar.config());
    let ended = lone.pod.run_within(proxy, wait::SOON)?;
    let said = ended.stdout + &ended.stderr;
    assert!(!ended.status.success(), "{said}");
    for part in [
        &*root,
        "is the root of all cgroups",
        "interception.allowWholeHost",
    ] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    assert!(!pins.exists(), "nothing was attached");
    Ok(())
}

const PROVEN: &str = "outrigger_interception_proven";

#[test]
fn interception_is_proven_without_a_raw_socket_too() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").without_capability("net_raw"),
        ..Plan::default()
    };
    let mesh = Mesh::of("proven-no-raw", &plan)?;
    let sidecar = &mesh.client.sidecar;
    assert_eq!(proven(sidecar)?, 4);
    sidecar.detach_by_force()?;
    wait::until("it is not ready", wait::SOON, || !sidecar.is_ready())?;
    assert_eq!(proven(sidecar)?, 0);
    Ok(())
}

/// How many of the two directions of the two families are proven.
fn proven(sidecar: &Sidecar) -> Result<usize> {
    Ok(sidecar.metric(PROVEN, &[])? as usize)
}

#[test]
fn what_a_proxy_dials_to_prove_interception_is_no_flow_and_no_event() -> Result<()> {
    let mesh = Mesh::start("proven")?;
    for sidecar in [&mesh.client.sidecar, &mesh.server().sidecar] {
        for direction in ["inbound", "outbound"] {
            for family in ["ipv4", "ipv6"] {
                let labels = [
                    format!("direction=\"{direction}\""),
                    format!("family=\"{family}\""),
                ];
                let labels = labels.each_ref().map(String::as_str);
                assert_eq!(sidecar.metric(PROVEN, &labels)?, 1.0, "{labels:?}");
            }
        }
        assert_eq!(sidecar.all_flows()?, Vec::<serde_json::Value>::new());
        assert_eq!(
            sidecar.metric("outrigger_tcp_connections_opened_total", &[])?,
            0.0
        );
        for event in ["redirected", "claimed", "unclaimed", "steered", "denied_probe"] {
            let event = format!("event=\"{event}\"");
            assert_eq!(
                sidecar.metric("outrigger_kernel_events_total", &[&event])?,
                0.0,
                "{event}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_proxy_whose_programs_are_taken_off_while_it_runs_is_not_ready_until_it_attaches_again() -> Result<()> {
    let mut mesh = Mesh::start("taken-off")?;
    assert_eq!(proven(&mesh.client.sidecar)?, 4);
    let capture = Capture::start(&mesh.fabric)?;
    let sidecar = &mut mesh.client.sidecar;
    sidecar.detach_by_force()?;
    wait::until("it is not ready", wait::SOON, || {
        sidecar.readiness().is_ok_and(|(code, body)| {
            code == 503 && body.starts_with("interception: connections do not get to this proxy")
        })
    })?;
    assert_eq!(proven(sidecar)?, 0, "neither direction of either family");
    wait::until("the log says so", wait::SOON, || {
        sidecar.log().contains("do not get back to it")
    })?;
    let log = sidecar.log();
    assert_eq!(log.matches("do not get back to it").count(), 1, "once: {log}");
    assert!(log.contains("outbound ipv4"), "{log}");

    // Nobody of these is dialled, also where no program redirects it.
    let documentation = |to: std::net::SocketAddr| match to.ip() {
        std::net::IpAddr::V4(ip) => ip.is_documentation(),
        std::net::IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0xdb8],
    };
    let recording = capture.stop()?;
    let left: Vec<_> = recording
        .segments()
        .iter()
        .map(|s| s.to)
        .filter(|to| documentation(*to))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    sidecar.restart()?;
    assert_eq!(proven(sidecar)?, 4);
    Ok(())
}
