//! The outbound walk: the application's connection, redirected here by the kernel, goes to its upstream.
//!
//! Truthful: `HeldSyn` → `Route` → `Conn` (the upstream is up) → `Accepted` (its connect() returns) → relay → the flow is
//! recorded once; `shard/held.rs` decides when a stage begins. Where connect is optimistic, `Accepted` comes first: the same stages, in another order.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;

use super::contain::Abortive;
use super::join::join;
use super::limits::{Arrival, Place, Resources};
use super::outcome::{self, Answer};
use super::patience::Patience;
use super::shard::context::{Entered, Shard};
use crate::intercept;
use crate::model::addr::is_local_only;
use crate::model::snapshot::LoadGuard;
use crate::model::{
    Cause, ClientAddr, Direction, Flow, HeldSyn, OriginalDst, Outcome, Pair, Party, Transport,
};
use crate::observe::OpenFlow;
use crate::policy::Mode;
use crate::relay::Port;
use crate::route::{Route, Upstream, route};
use crate::transport::hbone::{self, client::ConnectTo};
use crate::transport::tcp::{self, Dialled};
use crate::transport::{Error, pool};

/// wire.md 1.10: endpoints tried before giving up.
const ATTEMPTS: usize = 3;
/// While an application waits for endpoints that do not answer, they are tried in turn, no faster than this.
const PAUSE: Duration = Duration::from_secs(1);
/// A dial that only the application's own patience limits.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// An upstream that is up.
struct Conn {
    stream: UpstreamStream,
    /// Balancing counts the connection while it lives.
    _load: Option<LoadGuard>,
}

enum UpstreamStream {
    Plain(Dialled),
    Mesh(hbone::Stream),
}

/// What waits for a held application to come in.
pub(super) struct Ready {
    conn: Conn,
    flow: OpenFlow,
    /// For the application's side of it, which is not accepted yet.
    place: Option<Place>,
    _open: Entered,
}

/// Who wants an upstream, to what.
struct DialRequest {
    dst: OriginalDst,
    /// The application's address as others see it.
    client: SocketAddr,
    /// The kernel would choose that address by itself.
    is_routed: bool,
    device: Option<u32>,
    /// connect() waits for the answer, for as long as the application likes.
    held: bool,
}

/// Why there is no upstream: for the flow, and for the application.
struct Failed {
    outcome: Outcome,
    answer: Answer,
}

/// The application has gone, and its upstream with it.
pub(super) fn give_up(ready: Ready) {
    let Ready { mut conn, flow, .. } = ready;
    conn.reset();
    flow.close(Outcome::new(Party::Client, Cause::Reset));
}

/// Records a SYN that was refused: for want of something, or because newcomers are refused.
pub(super) fn turned_away(shard: &Shard, syn: &HeldSyn, lacking: Option<Resources>) {
    open(shard, syn).close(shard.refusal(lacking));
}

/// Records a SYN that was refused because nobody redirected it.
pub(super) fn stray(shard: &Shard, pair: Pair) {
    let flow = Flow::new(Direction::Outbound, pair.client, SystemTime::now());
    let outcome = Outcome::new(Party::Client, Cause::NoOriginalDestination);
    shard.observe.open(flow).close(outcome);
}

fn open(shard: &Shard, syn: &HeldSyn) -> OpenFlow {
    let client = shown(shard, syn);
    let mut flow = Flow::new(Direction::Outbound, client, SystemTime::now());
    flow.original_dst = Some(syn.original_dst.0);
    shard.observe.open(flow)
}

/// The application's address as others see it: redirected connections come from loopback.
fn shown(shard: &Shard, syn: &HeldSyn) -> SocketAddr {
    match syn.source {
        Some(source) if syn.pair.client.ip().is_loopback() => SocketAddr::new(source, syn.pair.client.port()),
        _ => shard.shown_client(ClientAddr(syn.pair.client)),
    }
}

/// The walk of a held connection, up to its upstream or the answer to its application. `None`: nobody waits for it any
/// more.
pub(super) async fn held(
    shard: &Shard,
    syn: &HeldSyn,
    place: Place,
    cancelled: impl Future,
) -> Option<Result<Ready, Answer>> {
    let entered = shard.enter();
    let flow = open(shard, syn);
    let asked = DialRequest {
        dst: syn.original_dst,
        client: shown(shard, syn),
        is_routed: syn.source.is_some() && syn.pair.client.ip().is_loopback() && syn.device.is_none(),
        device: syn.device,
        held: true,
    };
    let connected = tokio::select! {
        biased;
        _ = cancelled => {
            flow.close(Outcome::new(Party::Client, Cause::Reset));
            return None;
        }
        connected = connect(shard, &asked, &flow) => connected,
    };
    Some(match connected {
        Ok(conn) => Ok(Ready {
            conn,
            flow,
            place: Some(place),
            _open: entered,
        }),
        Err(failed) => {
            flow.close(failed.outcome);
            Err(failed.answer)
        }
    })
}

/// An accepted connection: one that was held and is expected, or one whose connect() has returned already.
///
/// A box of the size that is needed: what the optimistic walk takes to find its upstream is none of a held connection's.
pub(super) fn serve(
    shard: Rc<Shard>,
    arrival: Arrival,
    expected: Option<Ready>,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let client = arrival.client;
    let Some(mut ready) = expected else {
        return Box::pin(serve_optimistic(shard, arrival));
    };
    let app = match ready.place.take() {
        Some(place) => shard.descriptors.settle(arrival.stream, place),
        None => Ok(arrival.stream),
    };
    match app {
        Ok(app) => Box::pin(carry(shard, Abortive::new(app), ready)),
        Err(error) => {
            tracing::error!(%client, %error, "an accepted connection cannot be watched");
            ready.conn.reset();
            ready.flow.close(Outcome::new(Party::Us, Cause::Io));
            Box::pin(std::future::ready(()))
        }
    }
}

async fn serve_optimistic(shard: Rc<Shard>, arrival: Arrival) {
    let Arrival {
        stream,
        client,
        admitted,
    } = arrival;
    let mut app = Abortive::new(stream);
    if shard.nonces.is_one(Direction::Outbound, &*app, client) {
        return;
    }
    if !admitted {
        return turn_away(&shard, app.into_inner(), client, Some(Resources::Descriptors));
    }
    if shard.is_closed() {
        return turn_away(&shard, app.into_inner(), client, None);
    }
    // Boxed, so that it takes no memory while the connection is relayed.
    if let Some(ready) = Box::pin(accepted(&shard, &mut app, client)).await {
        carry(shard, app, ready).await;
    }
}

/// Relays until a side ends it. All stays in the arguments: a future has room for those and for what is moved out of them.
async fn carry(shard: Rc<Shard>, mut app: Abortive, mut ready: Ready) {
    let live = shard.live.enter(None);
    let outcome = match &mut ready.conn.stream {
        UpstreamStream::Plain(up) => join(&shard, &live, &mut *app, up, &ready.flow).await,
        UpstreamStream::Mesh(up) => {
            let outcome = join(&shard, &live, &mut *app, up, &ready.flow).await;
            if up.is_distrusted() {
                shard.meters.policy_cuts.inc();
                Outcome::new(Party::Policy, Cause::Denied)
            } else {
                outcome
            }
        }
    };
    drop((ready.conn, app));
    ready.flow.close(outcome);
}

/// It cannot be served, and believes that it is connected.
fn turn_away(shard: &Shard, mut app: TcpStream, client: ClientAddr, lacking: Option<Resources>) {
    let mut flow = Flow::new(Direction::Outbound, client.0, SystemTime::now());
    flow.original_dst = intercept::original_dst(&app, client).map(|dst| dst.0);
    Port::reset(&mut app);
    shard.observe.open(flow).close(shard.refusal(lacking));
}

/// The optimistic walk, up to the upstream: the application believes that it is connected.
async fn accepted(shard: &Rc<Shard>, app: &mut TcpStream, client: ClientAddr) -> Option<Ready> {
    let entered = shard.enter();
    let flow = Flow::new(Direction::Outbound, client.0, SystemTime::now());
    let flow = shard.observe.open(flow);
    let connected = match intercept::original_dst(&*app, client) {
        None => Err(Outcome::new(Party::Client, Cause::NoOriginalDestination)),
        Some(dst) => {
            let asked = DialRequest {
                dst,
                client: shard.shown_client(client),
                is_routed: false,
                device: None,
                held: false,
            };
            tokio::select! {
                connected = connect(shard, &asked, &flow) => connected.map_err(|failed| failed.outcome),
                () = intercept::hung_up(app) => Err(Outcome::new(Party::Client, Cause::Reset)),
            }
        }
    };
    match connected {
        Ok(conn) => Some(Ready {
            conn,
            flow,
            place: None,
            _open: entered,
        }),
        Err(outcome) => {
            // Never an empty success: connect() has returned, so a reset is the honest answer that is left.
            Port::reset(app);
            flow.close(outcome);
            None
        }
    }
}

/// Finds an upstream that takes the connection.
async fn connect(shard: &Shard, asked: &DialRequest, flow: &OpenFlow) -> Result<Conn, Failed> {
    let start = Instant::now();
    flow.update(|f| {
        f.original_dst = Some(asked.dst.0);
        f.source_identity = Some(shard.id.clone());
    });
    if shard.is_own(asked.dst.0) {
        return Err(Failed::refused(Outcome::new(Party::Client, Cause::Loop)));
    }
    let mut world = shard.world();
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut failed: Option<Failed> = None;
    let mut patience = Patience::default();
    loop {
        let random = &mut |n| fastrand::usize(..n);
        let (up, transport) = match route(&world, shard.unknown, asked.dst, &tried, random) {
            _ if tried.len() >= ATTEMPTS => (None, Transport::Plain),
            Route::Mesh(up) => (Some(up), Transport::Hbone),
            Route::Direct(up) => (Some(up), Transport::Plain),
            Route::Refuse(refusal) => {
                failed.get_or_insert(Failed::refused(outcome::of_refusal(refusal)));
                (None, Transport::Plain)
            }
        };
        let Some(up) = up else {
            if patience.lasts().await {
                (tried, failed, world) = (Vec::new(), None, shard.world());
                continue;
            }
            match failed {
                // Nobody has said no, and the application still waits.
                Some(Failed { outcome, .. }) if asked.held && outcome.cause == Cause::TimedOut => {
                    tried.clear();
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Some(failed) => return Err(failed),
                None => return Err(Failed::refused(Outcome::new(Party::Us, Cause::NoEndpoint))),
            }
        };
        flow.update(|f| chosen(f, &up, transport));
        let load = up.target.as_ref().map(|t| t.load.enter());
        let dial = async {
            match transport {
                Transport::Hbone => mesh(shard, asked, &up, flow).await.map(UpstreamStream::Mesh),
                Transport::Plain => plain(shard, asked, &up).await.map(UpstreamStream::Plain),
            }
        };
        let dialled = tokio::select! {
            dialled = dial => dialled,
            news = shard.introduced(asked.dst), if asked.held && up.target.is_none() => {
                // The application still waits for what nobody knew when it asked.
                world = news;
                continue;
            }
        };
        match dialled {
            Ok(stream) => {
                flow.update(|f| f.connect_time = Some(start.elapsed()));
                return Ok(Conn { stream, _load: load });
            }
            Err(error) => {
                let outcome = outcome::of_error(&error);
                match outcome::lacking(&error) {
                    Some(what) => shard.limited.report(what),
                    None => outcome::log(&error, (asked.client, asked.dst), up.endpoint),
                }
                let now = Failed {
                    outcome,
                    answer: outcome::to_application(&error),
                };
                if !outcome::is_endpoints_fault(outcome) {
                    return Err(now);
                }
                tried.push(up.endpoint);
                if transport == Transport::Hbone {
                    patience.failed(&error, shard.pool.absent_for(shard.gateway(&up)));
                }
                // Silence is no answer where another endpoint has given one.
                let answered = failed
                    .as_ref()
                    .is_some_and(|f| f.outcome.cause != Cause::TimedOut);
                if !(answered && outcome.cause == Cause::TimedOut) {
                    failed = Some(now);
                }
            }
        }
    }
}

impl Failed {
    fn refused(outcome: Outcome) -> Self {
        Self {
            outcome,
            answer: Answer::Refused,
        }
    }
}

impl Conn {
    /// Nobody will use it, and the far side is to know that.
    fn reset(&mut self) {
        match &mut self.stream {
            UpstreamStream::Plain(up) => Port::reset(up),
            UpstreamStream::Mesh(up) => Port::reset(up),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside it there is what the flow says, and what the runtime and a tunnel keep.
    #[test]
    fn what_a_relayed_connection_keeps_is_small() {
        let size = size(carry);
        assert!(size <= 1100, "{size} bytes");
    }

    fn size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
}
