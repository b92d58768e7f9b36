//! Expectations that several tests share.

use std::net::SocketAddr;

use anyhow::Result;
use harness::apps::Dialogue;
use harness::pod::Pod;
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
