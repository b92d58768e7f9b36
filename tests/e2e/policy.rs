//! What the registry's policies forbid stays out, whichever way it comes.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::{self, Dialogue};
use harness::{Mesh, Pod, wait};

/// Denies port 9000 of the server's namespace to everybody.
const DENY: &str = "policies:\n- {name: closed, namespace: demo, scope: Namespace, action: Deny, dryRun: false, \
                    rules: [[[{destinationPorts: [9000]}]]]}\n";

fn answers(pod: &Pod, server: SocketAddr) -> Result<bool> {
    let lines = Dialogue::connect(pod, server, &["send:ping", "recv:4"])?.lines()?;
    Ok(lines.last().is_some_and(|line| line == "recv ping"))
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
