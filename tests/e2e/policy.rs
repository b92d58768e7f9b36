//! What the registry's policies forbid stays out, whichever way it comes, and goes when it is in already.

#[path = "policy/live.rs"]
mod live; // what is open when a policy comes

#[path = "policy/standing.rs"]
mod standing; // which policies hold for a workload that shares its address, or that the registry does not list

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use harness::apps::{self, Dialogue};
use harness::mesh::whole::Member;
use harness::mesh::{Sidecar, identity};
use harness::{Mesh, Pod, wait};
use serde_json::Value;

/// Denies port 9000 of the server's namespace to everybody.
const DENY: &str = "policies:\n- {name: closed, namespace: demo, scope: Namespace, action: Deny, dryRun: false, \
                    rules: [[[{destinationPorts: [9000]}]]]}\n";

fn answers(pod: &Pod, server: SocketAddr) -> Result<bool> {
    let lines = Dialogue::connect(pod, server, &["send:ping", "recv:4"])?.lines()?;
    Ok(lines.last().is_some_and(|line| line == "recv ping"))
}

/// A policy of the mesh's namespace.
fn policy(name: &str, scope: &str, action: &str, matches: &str) -> String {
    format!("{{name: {name}, namespace: demo, scope: {scope}, action: {action}, rules: [[[{matches}]]]}}")
}

/// Waits until every sidecar has the registry as it was written last, so that what is asked next is asked of that.
fn in_force(mesh: &mut Mesh, change: impl FnOnce(&mut harness::mesh::Registry)) -> Result<()> {
    let generation = |member: &Member| member.sidecar.metric("outrigger_registry_generation", &[]);
    let members = || mesh.servers.iter().chain([&mesh.client]);
    let before = members().map(generation).collect::<Result<Vec<_>>>()?;
    mesh.registry.update(change)?;
    for (member, before) in mesh.servers.iter().chain([&mesh.client]).zip(before) {
        wait::until("the registry is read again", wait::SOON, || {
            generation(member).is_ok_and(|now| now > before)
        })?;
    }
    Ok(())
}

fn why(sidecar: &Sidecar, to: SocketAddr, from: IpAddr, identity: Option<&str>) -> Result<Value> {
    let (to, from) = (to.to_string(), from.to_string());
    let mut args = vec![to.as_str(), "--json", "--inbound", "--from", &from];
    args.extend(identity.iter().flat_map(|identity| ["--identity", identity]));
    let json = sidecar.why(&args)?.ok()?;
    serde_json::from_str(&json).with_context(|| format!("no JSON: {json}"))
}

/// The second address is one that the registry does not list: it must be no way around the policy.
#[test]
fn a_policy_holds_on_every_address_of_the_pod_through_tunnels_and_in_plaintext() -> Result<()> {
    let mut mesh = Mesh::start("policy")?;
    mesh.serve(apps::echo, 9000)?;
    let addresses = mesh.server().pod.addresses();
    for ip in addresses {
        assert!(
            answers(&mesh.outside, (ip, 9000).into())?,
            "{ip} is open at first"
        );
    }
    assert!(answers(&mesh.client.pod, mesh.vip4(9000))?);
    let mut text = String::new();
    mesh.registry.update(|registry| {
        if let Some(server) = registry.workload("server-1") {
            server.addresses.truncate(1);
        }
        text = registry.to_string();
    })?;
    mesh.registry.write_raw(&(text + DENY))?;
    wait::until("the policy is in force", wait::SOON, || {
        !answers(&mesh.client.pod, mesh.vip4(9000)).unwrap_or(true)
    })?;
    for ip in addresses {
        let server = SocketAddr::from((ip, 9000));
        wait::until("plaintext is denied, too", wait::SOON, || {
            !answers(&mesh.outside, server).unwrap_or(true)
        })?;
    }
    Ok(())
}

/// Who gets in under an Allow, and what `why` says of each.
#[test]
fn an_allow_lets_in_whom_it_names_and_nobody_else() -> Result<()> {
    let mut mesh = Mesh::with_servers("policy-allow", 2)?;
    mesh.serve(apps::echo, 9000)?;
    let server: SocketAddr = (mesh.servers[0].pod.ipv4(), 9000).into();
    let (client, neighbour) = (identity("client"), identity("server"));
    let principal = client.trim_start_matches("spiffe://");
    for (n, (matches, may)) in [
        (
            format!("{{principals: [!Exact \"{principal}\"]}}"),
            [true, false, false],
        ),
        ("{namespaces: [!Exact demo]}".into(), [true, true, false]),
        ("{namespaces: [!Exact other]}".into(), [false, false, false]),
        (
            "{serviceAccounts: [{namespace: demo, serviceAccount: server}]}".into(),
            [false, true, false],
        ),
        ("{notNamespaces: [!Exact other]}".into(), [true, true, true]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("p{n}");
        in_force(&mut mesh, |registry| {
            registry.policies = vec![policy(&name, "Namespace", "Allow", &matches)];
        })?;
        let askers = [
            (&mesh.client.pod, Some(client.as_str())),
            (&mesh.servers[1].pod, Some(neighbour.as_str())),
            (&mesh.outside, None),
        ];
        for ((pod, id), may) in askers.into_iter().zip(may) {
            let asked = format!("{matches}, {}", pod.name());
            assert_eq!(answers(pod, server)?, may, "{asked}");
            let report = why(&mesh.servers[0].sidecar, server, pod.ipv4().into(), id)?;
            let (verdict, reason) = match may {
                true => (
                    "admitted",
                    format!("the Allow policy demo/{name} by its rules[0] allows it"),
                ),
                false => ("refused", format!("do not allow it: demo/{name}")),
            };
            assert_eq!(report["verdict"], verdict, "{asked}: {report:#}");
            assert!(
                report["reasons"].to_string().contains(&reason),
                "{asked}: {report:#}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_source_is_the_same_by_either_family() -> Result<()> {
    let mut mesh = Mesh::start("policy-families")?;
    mesh.serve(apps::echo, 9000)?;
    let own = mesh.client.pod.ipv4();
    let vips = [mesh.vip4(9000), mesh.vip6(9000)];
    for (action, may) in [("Allow", true), ("Deny", false)] {
        in_force(&mut mesh, |registry| {
            let matches = format!("{{sourceIps: [{own}/32]}}");
            registry.policies = vec![policy("by-address", "Namespace", action, &matches)];
        })?;
        for vip in vips {
            assert_eq!(answers(&mesh.client.pod, vip)?, may, "{action}: {vip}");
        }
    }
    Ok(())
}

#[test]
fn a_dry_run_is_counted_and_logged_and_not_obeyed() -> Result<()> {
    let mut mesh = Mesh::start("policy-dry-run")?;
    mesh.serve(apps::echo, 9000)?;
    in_force(&mut mesh, |registry| {
        let deny = policy("rehearsal", "Namespace", "Deny", "{destinationPorts: [9000]}");
        registry.policies = vec![deny.replace("name:", "dryRun: true, name:")];
    })?;
    let server = SocketAddr::from((mesh.server().pod.ipv4(), 9000));
    let sidecar = &mesh.server().sidecar;
    for (n, (pod, to)) in [(&mesh.client.pod, mesh.vip4(9000)), (&mesh.outside, server)]
        .iter()
        .enumerate()
    {
        assert!(answers(pod, *to)?, "{to}");
        let counted = sidecar.metric("outrigger_inbound_dry_run_total", &["verdict=\"deny\""])?;
        assert_eq!(counted, (n + 1) as f64, "{to}");
    }
    assert_eq!(
        sidecar.metric("outrigger_inbound_dry_run_total", &["verdict=\"allow\""])?,
        0.0
    );
    let told = "dry run: would be denied";
    wait::until("it is logged", wait::SOON, || {
        sidecar
            .log()
            .lines()
            .any(|line| line.contains(told) && line.contains("demo/rehearsal by its rules[0]"))
    })?;
    let report = why(sidecar, server, mesh.outside.ipv4().into(), None)?;
    assert_eq!(report["verdict"], "admitted", "{report:#}");
    let reasons = report["reasons"].to_string();
    assert!(
        reasons.contains("if the policies with `dryRun` were obeyed: it would be denied"),
        "{report:#}"
    );
    Ok(())
}
