//! The outbound walk: the application's connection, redirected here by the kernel, goes to its upstream.
//!
//! `Accepted` (its connect() has returned) → original destination → `Route` → `Conn` (the upstream is up) → relay →
//! the flow is recorded once. Where the kernel will hold the SYN, the same stages run with `Conn` before `Accepted`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::join::join;
use super::outcome;
use super::shard::Shard;
use crate::model::snapshot::LoadGuard;
use crate::model::{Cause, ClientAddr, Direction, Flow, OriginalDst, Outcome, Party, Transport};
use crate::observe::OpenFlow;
use crate::policy::Mode;
use crate::relay::Port;
use crate::route::{Route, Upstream, route};
use crate::transport::hbone::{self, client::ConnectTo};
use crate::transport::{Error, pool, tcp};
use crate::{error_chain, intercept};

/// wire.md 1.10: endpoints tried before giving up.
const ATTEMPTS: usize = 3;

/// An upstream that is up.
struct Conn {
    stream: UpstreamStream,
    /// Balancing counts the connection while it lives.
    _load: Option<LoadGuard>,
}

enum UpstreamStream {
    Plain(TcpStream),
    Mesh(hbone::Stream),
}

pub(super) async fn serve(shard: Rc<Shard>, mut app: TcpStream, client: ClientAddr) {
    let _open = shard.enter();
    let flow = shard
        .observe
        .open(Flow::new(Direction::Outbound, client.0, SystemTime::now()));
    let outcome = match intercept::original_dst(&app, client) {
        None => Err(Outcome::new(Party::Client, Cause::NoOriginalDestination)),
        Some(dst) => tokio::select! {
            connected = connect(&shard, client, dst, &flow) => connected,
            () = gone(&app) => Err(Outcome::new(Party::Client, Cause::Reset)),
        },
    };
    let outcome = match outcome {
        Ok(conn) => match conn.stream {
            UpstreamStream::Plain(mut up) => join(&shard, &mut app, &mut up, &flow).await,
            UpstreamStream::Mesh(mut up) => join(&shard, &mut app, &mut up, &flow).await,
        },
        Err(outcome) => {
            // Never an empty success: connect() has returned, so a reset is the honest answer that is left.
            Port::reset(&mut app);
            outcome
        }
    };
    drop(app);
    flow.close(outcome);
}

/// Completes when the application has given the connection up. Its FIN is no such thing: it may still want an answer.
async fn gone(app: &TcpStream) {
    if app.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}

/// Finds an upstream that takes the connection.
async fn connect(
    shard: &Shard,
    client: ClientAddr,
    dst: OriginalDst,
    flow: &OpenFlow,
) -> Result<Conn, Outcome> {
    let start = Instant::now();
    flow.update(|f| {
        f.original_dst = Some(dst.0);
        f.source_identity = Some(shard.id.clone());
    });
    if shard.is_own(dst.0) {
        return Err(Outcome::new(Party::Client, Cause::Loop));
    }
    let world = shard.world();
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut failed = None;
    while tried.len() < ATTEMPTS {
        let (up, transport) = match route(&world, shard.unknown, dst, &tried, &mut |n| fastrand::usize(..n)) {
            Route::Mesh(up) => (up, Transport::Hbone),
            Route::Direct(up) => (up, Transport::Plain),
            Route::Refuse(refusal) => return Err(failed.unwrap_or_else(|| outcome::of_refusal(refusal))),
        };
        flow.update(|f| chosen(f, &up, transport));
        let load = up.target.as_ref().map(|t| t.load.enter());
        let dialled = match transport {
            Transport::Hbone => mesh(shard, client, &up, flow).await.map(UpstreamStream::Mesh),
            Transport::Plain => plain(shard, &up).await.map(UpstreamStream::Plain),
        };
        match dialled {
            Ok(stream) => {
                flow.update(|f| f.connect_time = Some(start.elapsed()));
                return Ok(Conn { stream, _load: load });
            }
            Err(error) => {
                let outcome = outcome::of_error(&error);
                tracing::info!(
                    client = %client, destination = %dst, endpoint = %up.endpoint,
                    error = error_chain(&error), "outbound connection failed"
                );
                if !outcome::is_endpoints_fault(outcome) {
                    return Err(outcome);
                }
                failed = Some(outcome);
                tried.push(up.endpoint);
            }
        }
    }
    Err(failed.unwrap_or(Outcome::new(Party::Us, Cause::NoEndpoint)))
}

/// What the flow shows of the chosen endpoint, also when it then fails.
fn chosen(flow: &mut Flow, up: &Upstream, transport: Transport) {
    flow.chosen_dst = Some(up.endpoint);
    flow.service = up.service.as_ref().map(|s| s.name.clone());
    flow.destination_identity = up.target.as_ref().map(|t| t.workload.identity.clone());
    flow.transport = transport;
}

/// Through a tunnel. A mesh destination is never dialled in plaintext because this failed.
async fn mesh(
    shard: &Shard,
    client: ClientAddr,
    up: &Upstream,
    flow: &OpenFlow,
) -> Result<hbone::Stream, Error> {
    let svid = shard.svid()?;
    let key = pool::Key {
        gateway: SocketAddr::new(up.endpoint.ip(), shard.hbone_port),
        expected: up.expected(),
        workload: up
            .target
            .as_ref()
            .map(|t| t.workload.uid.as_str())
            .unwrap_or_default()
            .into(),
    };
    let service = up.service.as_ref().map(|s| &*s.name.hostname);
    let to = ConnectTo {
        authority: up.endpoint,
        client: shard.shown_client(client),
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

async fn plain(shard: &Shard, up: &Upstream) -> Result<TcpStream, Error> {
    if shard.mode == Mode::Strict {
        // A strict workload's proxy sends nothing at all before it can prove who it is.
        shard.svid()?;
    }
    tcp::dial(up.endpoint, &*shard.mark, shard.limits.connect).await
}
