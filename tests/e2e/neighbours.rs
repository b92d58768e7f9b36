//! eBPF programs of other owners on the pod's cgroup: they are named, in the order in which they run, and one that takes
//! connections away from the proxy makes it not ready.

use std::time::Duration;

use anyhow::Result;
use harness::apps;
use harness::mesh::{Options, Plan, binaries};
use harness::{Mesh, Sidecar, wait};

fn programs(sidecar: &Sidecar, order: &str) -> Result<f64> {
    let order = format!("order=\"{order}\"");
    sidecar.metric("outrigger_interception_foreign_programs", &[&order])
}

fn proven(sidecar: &Sidecar) -> Result<f64> {
    sidecar.metric("outrigger_interception_proven", &[])
}

/// What `check` says of the cgroup.
fn checked(sidecar: &Sidecar) -> Result<String> {
    let pod = sidecar.pod();
    let mut command = pod.command(binaries::path("outrigger")?);
    command.arg("check").arg("--cgroup").arg(pod.cgroup());
    let said = pod.run_within(command, Duration::from_secs(30))?.ok()?;
    let named = |line: &&str| line.split_whitespace().nth(1) == Some("neighbours");
    let line = said.lines().find(named);
    Ok(line.unwrap_or_default().to_owned())
}

#[test]
fn a_program_of_another_owner_is_named_with_its_place_while_everything_works() -> Result<()> {
    // One of an agent may not ask who else is attached, which takes CAP_NET_ADMIN: the agent asks, see below.
    let mut mesh = Mesh::of("neighbours", &Plan::privileged())?;
    mesh.serve(apps::nginx, 8080)?;
    let sidecar = &mesh.client.sidecar;
    let works = || -> Result<()> {
        let page = apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
        assert_eq!(page, "server-1\n");
        Ok(())
    };
    assert!(checked(sidecar)?.starts_with("ok"), "{}", checked(sidecar)?);
    for (name, place, mark) in [
        ("other_after", "after", "ok"),
        ("other_before", "before", "degraded"),
    ] {
        let Some(other) = apps::neighbour(&mesh.client.pod, name, "allow", place)? else {
            continue;
        };
        wait::until("it is noticed", wait::SOON, || {
            programs(sidecar, place).is_ok_and(|n| n == 1.0)
        })?;
        // The log is written behind. It has the number alone: the name takes CAP_SYS_ADMIN, which a proxy that serves has not.
        wait::until("the log says so", wait::SOON, || {
            sidecar.log().contains(&format!("runs {place} this proxy's"))
        })?;
        let said = checked(sidecar)?;
        assert!(said.starts_with(mark), "{said}");
        assert!(said.contains(&format!("`{name}` {place} the proxy's")), "{said}");
        works()?;
        assert!(sidecar.is_ready());
        drop(other);
        wait::until("it is gone", wait::SOON, || {
            programs(sidecar, place).is_ok_and(|n| n == 0.0)
        })?;
    }
    Ok(())
}

#[test]
fn the_agent_names_programs_of_another_owner_when_it_gives_a_session() -> Result<()> {
    let plan = Plan {
        client: Options::new("client").by_agent(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("agents-neighbours", &plan)?;
    let named = |log: String, name: &str, order: &str| {
        let order = format!("order=\"{order}\"");
        let mut lines = log.lines();
        lines.any(|line| line.contains("another owner") && line.contains(name) && line.contains(&order))
    };
    for (name, place) in [("other_after", "after"), ("other_before", "before")] {
        let Some(other) = apps::neighbour(&mesh.client.pod, name, "allow", place)? else {
            continue;
        };
        assert!(!named(mesh.fabric.agent_log(), name, place));
        let old = mesh.client.sidecar.take_over()?;
        wait::until("the log names it", wait::SOON, || {
            named(mesh.fabric.agent_log(), name, place)
        })?;
        drop((old, other));
    }
    Ok(())
}

#[test]
fn a_program_of_another_owner_that_takes_connections_away_makes_the_proxy_unready() -> Result<()> {
    let mesh = Mesh::start("takes-away")?;
    let sidecar = &mesh.client.sidecar;
    for (does, place) in [("deny", "after"), ("rewrite", "after"), ("rewrite", "before")] {
        assert_eq!(proven(sidecar)?, 4.0);
        let Some(other) = apps::neighbour(&mesh.client.pod, "other", does, place)? else {
            continue;
        };
        wait::until("it is not ready", wait::SOON, || !sidecar.is_ready())?;
        // A look may come between the two: the program is attached while they are dialled.
        let what = format!("IPv6 is as it was, {does} {place}");
        wait::until(&what, wait::SOON, || proven(sidecar).is_ok_and(|n| n == 2.0))?;
        // Of the look that has found it out first.
        wait::until("the log says which", wait::SOON, || {
            let log = sidecar.log();
            let mut lines = log.lines().filter(|line| line.contains("lost="));
            lines.any(|line| line.contains("bound ipv4") && !line.contains("bound ipv6"))
        })?;
        let event = ["event=\"denied_probe\""];
        let changed = sidecar.metric("outrigger_kernel_events_total", &event)? > 0.0;
        assert_eq!(
            changed,
            (does, place) == ("rewrite", "before"),
            "it became nobody's connection"
        );
        assert!(sidecar.all_flows()?.is_empty());
        drop(other);
        wait::until("it is ready again", wait::SOON, || sidecar.is_ready())?;
    }
    Ok(())
}
