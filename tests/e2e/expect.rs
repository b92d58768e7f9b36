//! Expectations that several tests share.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::Dialogue;
use harness::mesh::whole::Member;
use harness::pod::Pod;
use harness::{Sidecar, wait};
use serde_json::Value;

/// A connection that must fail, and must be seen to fail: refused at once, or reset. Never an empty success.
#[track_caller]
pub(crate) fn refused(client: &Pod, server: SocketAddr) -> Result<()> {
    let lines = Dialogue::connect(client, server, &["recv:1"])?.lines()?;
    let honest = ["connect errno ECONNREFUSED", "recv errno ECONNRESET"];
    let last = lines.last().map(String::as_str).unwrap_or_default();
    assert!(honest.contains(&last), "{} to {server}: {lines:?}", client.name());
    Ok(())
}

/// As [`refused`], by this pod's proxy and for this cause: a crash looks the same to an application.
#[track_caller]
pub(crate) fn refused_for(client: &Member, server: SocketAddr, cause: &str) -> Result<()> {
    let to = server.to_string();
    let causes = |sidecar: &Sidecar| -> Result<usize> {
        let flows = sidecar.all_flows()?;
        let wanted = |flow: &&Value| flow["originalDst"] == *to && flow["closeCause"] == cause;
        Ok(flows.iter().filter(wanted).count())
    };
    let before = causes(&client.sidecar)?;
    refused(&client.pod, server)?;
    wait::until(&format!("a flow to {to} ends by {cause}"), wait::SOON, || {
        causes(&client.sidecar).is_ok_and(|now| now > before)
    })
}

/// A connection from outside the mesh that the kernel refuses.
#[track_caller]
pub(crate) fn connection_refused(client: &Pod, server: SocketAddr) -> Result<()> {
    let lines = Dialogue::connect(client, server, &[])?.lines()?;
    assert_eq!(
        lines,
        ["connect errno ECONNREFUSED"],
        "{} to {server}",
        client.name()
    );
    Ok(())
}

pub(crate) fn outbound(flow: &Value) -> bool {
    flow["direction"] == "outbound"
}

pub(crate) fn inbound(flow: &Value) -> bool {
    flow["direction"] == "inbound"
}
