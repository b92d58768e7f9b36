//! From a destination to a connection: its endpoints are dialled in turn, each through a tunnel or in plain TCP. Which one
//! is next, `search.rs` says. Knows nothing of the application's socket; `outbound.rs` does.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use super::super::outcome;
use super::super::shard::context::Shard;
use super::search::{Client, Failed, Search};
use crate::error_chain;
use crate::model::addr::is_local_only;
use crate::model::snapshot::LoadGuard;
use crate::model::{Cause, Decided, Failure, Flow, OriginalDst, Outcome, Party, Routed, Transport};
use crate::observe::OpenFlow;
use crate::policy::Mode;
use crate::relay::Port;
use crate::route::Upstream;
use crate::transport::hbone::{self, client::ConnectTo};
use crate::transport::tcp::{self, Dialled};
use crate::transport::{Error, pool};

/// A dial that only the application's own patience limits.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// Who wants an upstream, to what.
pub(super) struct DialRequest {
    pub(super) dst: OriginalDst,
    /// The application's address as others see it.
    pub(super) client: SocketAddr,
    /// The kernel would choose that address by itself.
    pub(super) is_routed: bool,
    pub(super) device: Option<u32>,
    /// connect() waits for the answer, for as long as the application likes.
    pub(super) held: bool,
}

/// An upstream that is up.
pub(super) struct Conn {
    pub(super) stream: UpstreamStream,
    /// Balancing counts the connection while it lives.
    _load: Option<LoadGuard>,
}

pub(super) enum UpstreamStream {
    Plain(Dialled),
    Mesh(hbone::Stream),
}

/// Finds an upstream that takes the connection.
pub(super) async fn connect(shard: &Shard, asked: &DialRequest, flow: &OpenFlow) -> Result<Conn, Failed> {
    let start = Instant::now();
    flow.update(|f| {
        f.original_dst = Some(asked.dst.0);
        f.source_identity = Some(shard.id.clone());
    });
    if shard.is_own(asked.dst.0) {
        return Err(Failed::refused(Outcome::new(Party::Client, Cause::Loop)));
    }
    let Some(world) = shard.world_with(asked.dst.0.ip()).await else {
        return Err(Failed::refused(Outcome::new(Party::Us, Cause::NoDiscovery)));
    };
    let client = Client {
        own: &shard.own,
        affinities: &shard.affinities,
    };
    let mut search = Search::new(client, asked.dst, shard.unknown, asked.held, world);
    loop {
        let Some((up, transport)) = search.next() else {
            if let Some(refusal) = search.refusal() {
                flow.update(|f| f.service = search.service());
                flow.decided(Decided::Routed(Routed::Refused(refusal)));
            }
            search.another_round(|| shard.world()).await?;
            flow.decided(Decided::Again);
            continue;
        };
        flow.update(|f| chosen(f, &up, transport));
        let load = up.target.as_ref().map(|t| t.load.enter());
        let dialled = tokio::select! {
            dialled = dial(shard, asked, &up, transport, flow) => dialled,
            news = shard.introduced(asked.dst), if asked.held && is_unknown(&up) => {
                search.introduced(news);
                continue;
            }
        };
        match dialled {
            Ok(stream) => {
                if let Some(target) = &up.target {
                    target.load.answered(up.endpoint);
                }
                flow.update(|f| {
                    f.decided(SystemTime::now(), tried(&up, transport, None));
                    f.connect_time = Some(start.elapsed());
                });
                return Ok(Conn { stream, _load: load });
            }
            Err(error) => {
                match outcome::lacking(&error) {
                    Some(what) => shard.limited.report(what),
                    None => outcome::log(&error, (asked.client, asked.dst), up.endpoint),
                }
                let failure = Failure::new(outcome::of_error(&error), &error_chain(&error));
                if let Some(target) = &up.target
                    && outcome::is_endpoints_fault(failure.outcome)
                {
                    target
                        .load
                        .failed(up.endpoint, failure.clone(), SystemTime::now());
                }
                flow.decided(tried(&up, transport, Some(failure)));
                let absent_for = shard.pool.absent_for(shard.gateway(&up));
                search.failed((&up, transport), &error, absent_for)?;
            }
        }
    }
}

impl Conn {
    /// Nobody will use it, and the far side is to know that.
    pub(super) fn reset(&mut self) {
        match &mut self.stream {
            UpstreamStream::Plain(up) => Port::reset(up),
            UpstreamStream::Mesh(up) => Port::reset(up),
        }
    }
}

fn tried(up: &Upstream, transport: Transport, failure: Option<Failure>) -> Decided {
    Decided::Tried {
        endpoint: up.endpoint,
        transport,
        failure: failure.map(Box::new),
    }
}

/// The registry may come to know it while it is dialled.
fn is_unknown(up: &Upstream) -> bool {
    up.service.is_none() && up.target.is_none()
}

/// What the flow shows of the chosen endpoint, also when it then fails. Where it is not the first one, the flow has said
/// what the destination is.
fn chosen(flow: &mut Flow, up: &Upstream, transport: Transport) {
    if flow.chosen_dst.is_none() {
        let routed = match (&up.service, &up.target) {
            (Some(_), _) => Routed::Service,
            (None, Some(_)) => Routed::Workload,
            (None, None) => Routed::Unknown,
        };
        flow.decided(SystemTime::now(), Decided::Routed(routed));
    }
    flow.chosen_dst = Some(up.endpoint);
    flow.service = up.service.as_ref().map(|s| s.name.clone());
    flow.destination_identity = up.target.as_ref().map(|t| t.workload.identity.clone());
    flow.transport = transport;
}

/// The one way to this endpoint: a mesh destination is never dialled in plaintext because its tunnel failed.
async fn dial(
    shard: &Shard,
    asked: &DialRequest,
    up: &Upstream,
    transport: Transport,
    flow: &OpenFlow,
) -> Result<UpstreamStream, Error> {
    match transport {
        Transport::Hbone => mesh(shard, asked, up, flow).await.map(UpstreamStream::Mesh),
        // No route says that a connection was left alone: those never come here.
        Transport::Plain | Transport::LeftAlone => plain(shard, asked, up).await.map(UpstreamStream::Plain),
    }
}

/// Through a tunnel.
async fn mesh(
    shard: &Shard,
    asked: &DialRequest,
    up: &Upstream,
    flow: &OpenFlow,
) -> Result<hbone::Stream, Error> {
    let svid = shard.svid()?;
    let key = pool::Key {
        gateway: shard.gateway(up),
        expected: up.expected(),
        workload: up
            .target
            .as_ref()
            .map(|t| t.workload.uid.as_str())
            .unwrap_or_default()
            .into(),
        device: asked.device,
    };
    let service = up.service.as_ref().map(|s| &*s.name.hostname);
    let to = ConnectTo {
        authority: up.endpoint,
        client: asked.client,
        service,
    };
    let connected = shard.pool.connect(&key, &svid, &to).await?;
    flow.update(|f| {
        f.destination_identity = Some(connected.peer.id);
        f.tls = Some(connected.peer.facts);
        f.handshake_time = connected.handshake;
    });
    Ok(connected.stream)
}

async fn plain(shard: &Shard, asked: &DialRequest, up: &Upstream) -> Result<Dialled, Error> {
    if shard.mode == Mode::Strict {
        // A strict workload's proxy sends nothing at all before it can prove who it is.
        shard.svid()?;
    }
    let limit = match asked.held && up.service.is_none() {
        // There is no other endpoint to try instead.
        true => UNLIMITED,
        false => shard.limits.connect,
    };
    // The server is to see the application's own address and port.
    let from = tcp::From {
        device: asked.device,
        client: Some((asked.client, &shard.bound_ports)).filter(|(client, _)| !is_local_only(client.ip())),
        is_routed: asked.is_routed && up.endpoint == asked.dst.0,
        ..tcp::From::default()
    };
    let (stream, as_itself) = tcp::dial(up.endpoint, &*shard.mark, from, limit).await?;
    if !as_itself {
        shard.meters.client_ports_changed.inc();
    }
    Ok(stream)
}
