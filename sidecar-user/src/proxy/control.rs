//! Streams to the services of the control plane, which the agent of the node serves. Asked for at the same door as the session, one
//! conversation for each. Knows no service.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::agent::say;
use super::granted::connect;
use crate::grant::{Answer, Door, Request};
use crate::uplink::{self, Open};
use crate::xds::{Connect, Link};

/// For an agent that restarts. Whoever asks for a stream waits no longer than five seconds for it, and then could not say why.
const PATIENCE: Duration = Duration::from_secs(3);

/// Each stream comes from the agent that serves the node at that moment.
pub(super) fn open(door: &Door) -> Open {
    let door = door.clone();
    Arc::new(move || {
        let door = door.clone();
        Box::pin(async move {
            stream(&door)
                .await
                .map_err(|error| io::Error::other(format!("{error:#}")))
        })
    })
}

/// To what the agent knows of the mesh, which it tells whoever stands in the pod.
pub(super) fn discovery(door: &Door) -> Connect {
    let open = open(door);
    Arc::new(move || {
        let open = open.clone();
        Box::pin(async move { Ok(Link::new(uplink::channel(open), None)) })
    })
}

async fn stream(door: &Door) -> anyhow::Result<UnixStream> {
    let agent = timeout(PATIENCE, connect(door)).await;
    let agent = agent.with_context(|| {
        format!("nobody listens at {door} in this network namespace; start `outrigger agent` on this node")
    })??;
    // The agent's answer is waited for, and other tasks have this thread too.
    let asked = tokio::task::spawn_blocking(move || say(&agent, &Request::Control, &[]));
    let (answer, descriptors) = asked.await??;
    let stream = match (answer, descriptors.into_iter().next()) {
        (Answer::Done, Some(stream)) => std::os::unix::net::UnixStream::from(stream),
        _ => anyhow::bail!("the agent at {door} answers what this version does not understand"),
    };
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream).context("the agent's stream cannot be used")
}
