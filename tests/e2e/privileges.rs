//! What a sidecar may still do once it serves. Of one that an agent serves `agent.rs` says it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Result, ensure};
use harness::apps;
use harness::mesh::{Options, Plan};
use harness::{Mesh, Sidecar, wait};

const NONE: &str = "0000000000000000";
/// CAP_NET_ADMIN alone.
const NET_ADMIN: &str = "0000000000001000";

/// Each thread that there is, and that the sidecar has the one that may ask who else is attached.
fn has_given_up(sidecar: &Sidecar) -> Result<()> {
    let threads = sidecar.threads()?;
    for thread in &threads {
        let kept = match thread.name.as_str() {
            "neighbours" => NET_ADMIN,
            _ => NONE,
        };
        for (set, wanted) in [
            ("CapInh", NONE),
            ("CapPrm", kept),
            ("CapEff", kept),
            ("CapBnd", NONE),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
        ] {
            let found = thread.field(set);
            ensure!(
                found == wanted,
                "{set} of {:?} is {found:?}, not {wanted}",
                thread.name
            );
        }
    }
    let there = |name: &str| threads.iter().any(|thread| thread.name.starts_with(name));
    for name in ["outrigger", "log", "shard-0", "prover", "neighbours", "tokio"] {
        ensure!(there(name), "{name:?} is not among {threads:?}");
    }
    Ok(())
}

#[test]
fn a_sidecar_that_installs_by_itself_keeps_no_capability_once_it_serves_and_a_second_one_takes_over()
-> Result<()> {
    let mut mesh = Mesh::of("gives-up", &Plan::privileged())?;
    mesh.serve(apps::nginx, 8080)?;
    for _ in 0..2 {
        for at in [mesh.vip4(80), mesh.vip6(80)] {
            apps::curl(&mesh.client.pod, &apps::url(at))?.ok()?;
        }
        has_given_up(&mesh.client.sidecar)?;
        has_given_up(&mesh.servers[0].sidecar)?;
        // The one before drains without them, and this one starts with them.
        let mut before = mesh.client.sidecar.take_over()?;
        ensure!(before.wait(wait::SOON)?.success(), "{}", before.log());
    }
    mesh.client.sidecar.stop()?;
    mesh.client.sidecar.detach()
}

#[test]
fn a_file_that_only_a_capability_could_read_is_refused_and_what_was_in_force_stays() -> Result<()> {
    let plan = Plan {
        client: Options::new("client")
            .privileged()
            .policy("outbound: [{ports: [22], action: leave}]"),
        ..Plan::privileged()
    };
    let mesh = Mesh::of("not-readable", &plan)?;
    let sidecar = &mesh.client.sidecar;
    let taken = |port: u16| -> Result<bool> {
        let to = format!("{}:{port}", mesh.server().pod.ipv4());
        Ok(!sidecar.why(&[&to])?.ok()?.contains("left alone"))
    };
    ensure!(taken(8080)? && !taken(22)?);

    let nobodys = sidecar.dir().join("policy.nobodys");
    fs::write(&nobodys, "outbound: [{ports: [8080], action: leave}]")?;
    fs::set_permissions(&nobodys, Permissions::from_mode(0o600))?;
    chown(&nobodys, Some(65534), None)?;
    fs::rename(&nobodys, sidecar.policy())?;
    sidecar.until_log("Permission denied")?;
    ensure!(taken(8080)? && !taken(22)?, "what was in force stays");
    let errors = "outrigger_interception_policy_reload_errors_total";
    wait::until("it is counted", wait::SOON, || {
        sidecar.metric(errors, &[]).is_ok_and(|errors| errors == 1.0)
    })?;

    sidecar.write_policy("outbound: [{ports: [8080], action: leave}]")?;
    wait::until("one that it may read is in force", wait::SOON, || {
        taken(8080).is_ok_and(|taken| !taken)
    })
}
