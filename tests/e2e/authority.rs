//! The certificate authority: strangers keep nobody from it, its root is replaced while everything runs, and a token can be
//! taken back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::apps::{self, Background, Strangers};
use harness::mesh::{Options, Plan, identity};
use harness::{Mesh, Sidecar, wait};

use crate::hbone::client::{Client, connect, leaf_of};
use crate::hbone::testing::authority::Leaf;

/// Long enough for a renewal on a busy machine, short enough to see several.
const LEAVES: &str = "12s";
/// A step of a rotation waits for the end of certificates: their life, an eighth of it, and rounding.
const A_LIFE: Duration = Duration::from_secs(60);

#[test]
fn strangers_at_the_authority_keep_nobody_from_a_certificate() -> Result<()> {
    const SILENT: usize = 5000;
    const HANDSHAKES: usize = 200;
    const PODS: usize = 3;
    let plan = Plan {
        leaf_ttl: LEAVES.into(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("authority-crowd", &plan)?;
    let mut strangers = Vec::new();
    for n in 0..PODS {
        // Each pod comes from two addresses, one of either family.
        let pod = mesh.fabric.pod(&format!("crowd-{n}"))?;
        let at = mesh.control.listeners();
        strangers.push(Strangers::start(&pod, &at, SILENT / PODS, HANDSHAKES / PODS)?);
    }
    for crowd in &mut strangers {
        crowd.until_ready()?;
    }

    let late = mesh.fabric.pod("late")?;
    mesh.registry.update(|registry| {
        registry.add_member(&late, "late", &[]);
    })?;
    let _late = Sidecar::start(&late, &mesh.control, &mesh.registry, &Options::new("late"))?;
    let renewals = |sidecar: &Sidecar| sidecar.metric("outrigger_identity_expiry_timestamp_seconds", &[]);
    let before = renewals(&mesh.client.sidecar)?;
    wait::until("a certificate is renewed", wait::SOON, || {
        renewals(&mesh.client.sidecar).is_ok_and(|now| now > before)
    })
    .with_context(|| mesh.client.sidecar.log())?;
    assert_eq!(mesh.control.status_page("/readyz")?.0, 200);
    let ended = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        mesh.control
            .metric("outrigger_ca_connections_ended_total", &[&label])
    };
    assert!(
        ended("source_quota")? > 0.0,
        "{}",
        mesh.control.status_page("/metrics")?.1
    );
    let unproved = mesh
        .control
        .metric("outrigger_ca_connections_open", &["state=\"unproved\""])?;
    assert!(unproved <= 1024.0, "{unproved}");
    let mut handshakes = 0;
    for crowd in strangers {
        handshakes += crowd.stop()?;
    }
    assert!(handshakes > 0, "they reach the authority");
    Ok(())
}

#[test]
fn the_root_is_replaced_while_traffic_runs() -> Result<()> {
    let plan = Plan {
        leaf_ttl: LEAVES.into(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("authority-rotation", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    let old_root = fs::read_to_string(mesh.control.root())?;
    let old_leaf = leaf_of(&mesh.control, &identity("client"))?;
    let mut load = Background::load(&mesh.client.pod, &apps::url(mesh.vip4(80)))?;
    load.until("has answers", |lines| lines.len() > 3)?;
    assert!(lets_in(&mesh, &old_leaf));

    mesh.control.rotate(&["begin"])?.ok()?;
    let both = fs::read_to_string(mesh.control.root())?;
    assert!(
        both.starts_with(&old_root) && both.len() > old_root.len(),
        "{both}"
    );
    for (step, after) in [("switch", "begin"), ("finish", "switch")] {
        let early = mesh.control.rotate(&[step])?;
        assert!(
            !early.status.success(),
            "{step} comes right after {after}: {early:?}"
        );
        assert!(
            early.stderr.contains(&format!("{step} is too early")),
            "{early:?}"
        );
        assert!(lets_in(&mesh, &old_leaf), "before {step}");
        wait::until(step, A_LIFE, || {
            mesh.control
                .rotate(&[step])
                .is_ok_and(|output| output.status.success())
        })?;
    }
    let new_root = fs::read_to_string(mesh.control.root())?;
    assert!(
        !new_root.contains(&old_root) && both.contains(&new_root),
        "{new_root}"
    );

    wait::until("nobody trusts the old root any more", A_LIFE, || {
        !lets_in(&mesh, &old_leaf)
    })?;
    let new_leaf = leaf_of(&mesh.control, &identity("client"))?;
    assert!(lets_in(&mesh, &new_leaf));
    let answers = load.stop()?;
    let bad: Vec<_> = answers.iter().filter(|line| line.contains("error")).collect();
    assert!(bad.is_empty(), "{} of {}: {bad:?}", bad.len(), answers.len());

    // Nor does a restart bring it back.
    mesh.control.restart()?;
    assert_eq!(fs::read_to_string(mesh.control.root())?, new_root);
    let late = mesh.fabric.pod("late")?;
    Sidecar::start(&late, &mesh.control, &mesh.registry, &Options::new("late"))?;
    Ok(())
}

/// The server's sidecar makes a tunnel for whoever has this leaf.
fn lets_in(mesh: &Mesh, leaf: &Leaf) -> bool {
    let server = mesh.server().pod.ipv4();
    let authority = format!("{server}:8080");
    connect(
        mesh,
        Client::with(leaf),
        server.into(),
        &authority,
        b"GET / HTTP/1.0\r\n\r\n",
    )
    .is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_token_is_listed_expires_and_can_be_taken_back() -> Result<()> {
    let mesh = Mesh::start("authority-tokens")?;
    let control = &mesh.control;
    let file = control.dir().join("mine");
    let path = file.to_string_lossy();
    let who = identity("late");
    let create =
        |options: &[&str]| control.command(&["token", "create"], &[&["--identity", &who], options].concat());
    let created = create(&["--label", "mine", "--out", &path])?.ok()?;
    assert_eq!(created, "", "the secret is in the file only");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o7777, 0o600);
    create(&["--label", "short", "--expires", "1s"])?.ok()?;
    wait::until("the list says that it has expired", wait::SOON, || {
        let list = control.command(&["token", "list"], &[]);
        list.and_then(|list| list.ok()).is_ok_and(|list| {
            let line = |label: &str| {
                list.lines()
                    .find(|line| line.starts_with(label))
                    .map(str::to_owned)
            };
            line("short").is_some_and(|line| line.contains("expired"))
                && line("mine").is_some_and(|line| line.contains(&who) && line.contains("never"))
        })
    })?;

    let pod = mesh.fabric.pod("late")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let options = Options::new("late").token(file.clone());
    let mut sidecar = Sidecar::start(&pod, control, &mesh.registry, &options)?;
    assert!(
        sidecar.log().contains(&format!("chmod 0600 {path}")),
        "{}",
        sidecar.log()
    );
    let log = control.log();
    let issued = log
        .lines()
        .find(|line| line.contains("certificate issued") && line.contains(&who));
    let told = issued.is_some_and(|line| {
        ["mine", "serial", "not_after"]
            .iter()
            .all(|word| line.contains(word))
    });
    assert!(told, "{log}");

    sidecar.stop()?;
    control.command(&["token", "revoke", "mine"], &[])?.ok()?;
    let sidecar = Sidecar::start_unready(&pod, control, &mesh.registry, &options)?;
    wait::until("the refusal is reported", wait::SOON, || {
        sidecar.log().contains("unknown or revoked")
    })?;
    assert!(!sidecar.is_ready());
    let refused = control.metric(
        "outrigger_ca_requests_refused_total",
        &["reason=\"unknown_token\""],
    )?;
    assert!(refused > 0.0);
    Ok(())
}
