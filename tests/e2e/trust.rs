//! The roots that a mesh trusts change while connections are open: what leads to none of them ends.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::{self, Dialogue, Keep};
use harness::mesh::identity;
use harness::{Mesh, Sidecar, wait};
use serde_json::Value;

use crate::hbone::client::{Client, leaf_of, until_reset};

fn renewals(sidecar: &Sidecar) -> Result<f64> {
    sidecar.metric("outrigger_identity_renewals_total", &[])
}

/// Takes a step of the rotation, and waits until both sidecars have asked the authority again.
fn step(mesh: &Mesh, step: &[&str]) -> Result<()> {
    let sidecars = [&mesh.client.sidecar, &mesh.server().sidecar];
    let before = [renewals(sidecars[0])?, renewals(sidecars[1])?];
    mesh.control.rotate(step)?.ok()?;
    for (sidecar, before) in sidecars.into_iter().zip(before) {
        wait::until("it has asked again", wait::SOON, || {
            renewals(sidecar).is_ok_and(|now| now > before)
        })?;
    }
    Ok(())
}

fn is_cut(flow: &Value) -> bool {
    flow["transport"] == "hbone" && flow["closedBy"] == "policy" && flow["closeCause"] == "denied"
}

#[test]
fn tunnels_whose_root_is_withdrawn_end_and_take_their_connections_along() -> Result<()> {
    let mut mesh = Mesh::start("trust")?;
    mesh.serve(apps::echo, 9001)?;
    let listener = Dialogue::listen(&mesh.server().pod, 9000, &["recv:4", "send:pong", "recv:1"])?;
    let steps = ["send:ping", "recv:4", "recv:1"];
    let mut open = Dialogue::connect(&mesh.client.pod, mesh.vip4(9000), &steps)?;
    assert_eq!(open.result("recv")?, "pong");

    let old_leaf = leaf_of(&mesh.control, &identity("client"))?;

    // Both roots are trusted: the old certificates are good, and so are tunnels that were made with them.
    step(&mesh, &["begin"])?;
    mesh.control.rotate(&["switch", "--force"])?.ok()?;
    let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9001)], 3)?;
    assert_eq!(opened.get("ok"), Some(&3), "{opened:?}");
    assert_eq!(kept.close()?, 3);
    let ended = |reason: &str| {
        let reason = format!("reason=\"{reason}\"");
        mesh.server()
            .sidecar
            .metric("outrigger_inbound_tunnels_ended_total", &[&reason])
    };
    assert_eq!(ended("untrusted")?, 0.0);

    // A peer that has a certificate of the old root, and a stream on a tunnel that was made with it.
    let to = SocketAddr::from((mesh.server().pod.ipv4(), 9001));
    let finish = || mesh.control.rotate(&["finish", "--force"])?.ok().map(drop);
    let told = until_reset(&mesh, Client::with(&old_leaf), to, finish)?;
    assert_eq!(told, Some(h2::Reason::CANCEL));
    mesh.server().sidecar.until_flow("the flow says why", is_cut)?;
    assert!(ended("untrusted")? >= 1.0);

    // Between two proxies the one ends the tunnel that hears of it first.
    let reset = Some("recv errno ECONNRESET");
    assert_eq!(open.lines()?.last().map(String::as_str), reset);
    assert_eq!(listener.lines()?.last().map(String::as_str), reset);
    let client = mesh.client.sidecar.all_flows()?.into_iter();
    let server = mesh.server().sidecar.all_flows()?.into_iter();
    let cut = client.chain(server).filter(is_cut);
    assert!(cut.count() >= 2, "that peer's, and the one between the proxies");
    // Forced, the step did not wait until everybody had a certificate of the new root.
    wait::until_some("new tunnels lead to the new root", wait::SOON, || {
        let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9001)], 3)?;
        kept.close()?;
        Ok((opened.get("ok") == Some(&3)).then_some(()))
    })
}
