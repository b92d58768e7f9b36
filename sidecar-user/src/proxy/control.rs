//! Streams to the services of the control plane, which the agent of the node serves. Asked for at the same door as the session, one
//! conversation for each; where there is no agent, the control process is asked over the network. Knows no service.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::agent::say;
use super::granted::connect;
use crate::error_chain;
use crate::grant::{Answer, Door, Request};
use crate::identity::{self, Mark};
use crate::uplink::{self, Addresses, Control, Open};
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

/// How this proxy's own sockets are kept from being brought to it, from the moment on at which there is something that would.
pub(super) type OwnSockets = Arc<OnceLock<Mark>>;

/// To what the control process knows of the mesh, which it tells whoever shows the token of a pod from an address of that pod.
pub(super) fn own_discovery(identity: &identity::Config, own_sockets: OwnSockets) -> anyhow::Result<Connect> {
    let identity::Source::Authority(ask) = &identity.source else {
        anyhow::bail!("registry: control is asked by the token of identity.token, which is missing");
    };
    let config = uplink::Config {
        fields: uplink::Fields::SIDECAR,
        url: ask.authority.clone(),
        server_name: ask.server_name.clone(),
        roots: ask.roots.clone(),
        token: ask.token.clone(),
    };
    let mark: uplink::Mark = Arc::new(move |socket| match own_sockets.get() {
        Some(mark) => mark(socket),
        None => Ok(()),
    });
    let control = Arc::new(Control::marked(config, Addresses::Resolved, mark)?);
    Ok(Arc::new(move || {
        let control = control.clone();
        Box::pin(async move {
            let token = control.token().await.map_err(|error| error_chain(&error))?;
            let channel = control.channel().await.map_err(|error| error_chain(&error))?;
            Ok(Link::new(channel, Some(token)))
        })
    }))
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
