//! The outbound walk: the application's connection, redirected here by the kernel, goes to its upstream.
//!
//! Truthful: `HeldSyn` → `Route` → `Conn` (the upstream is up) → `Accepted` (its connect() returns) → relay → the flow is
//! recorded once; `shard/held.rs` decides when a stage begins. Where connect is optimistic, `Accepted` comes first: the same
//! stages, in another order. From a route to a `Conn` it is `dial.rs`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::net::TcpStream;

use super::super::contain::Abortive;
use super::super::limits::{Arrival, Place, Resources};
use super::super::outcome::Answer;
use super::super::shard::context::{Entered, Shard};
use super::dial::{Conn, DialRequest, UpstreamStream, connect};
use super::relay::join;
use crate::intercept;
use crate::model::{Cause, ClientAddr, Direction, Flow, HeldSyn, Outcome, Pair, Party};
use crate::observe::OpenFlow;
use crate::relay::Port;

/// What waits for a held application to come in.
pub(in crate::proxy) struct Ready {
    conn: Conn,
    flow: OpenFlow,
    /// For the application's side of it, which is not accepted yet.
    place: Option<Place>,
    _open: Entered,
}

/// The walk of a held connection, up to its upstream or the answer to its application. `None`: nobody waits for it any
/// more.
pub(in crate::proxy) async fn held(
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
pub(in crate::proxy) fn serve(
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

/// The application has gone, and its upstream with it.
pub(in crate::proxy) fn give_up(ready: Ready) {
    let Ready { mut conn, flow, .. } = ready;
    conn.reset();
    flow.close(Outcome::new(Party::Client, Cause::Reset));
}

/// Records a SYN that was refused: for want of something, or because newcomers are refused.
pub(in crate::proxy) fn turned_away(shard: &Shard, syn: &HeldSyn, lacking: Option<Resources>) {
    open(shard, syn).close(shard.refusal(lacking));
}

/// Records a SYN that was refused because nobody redirected it.
pub(in crate::proxy) fn stray(shard: &Shard, pair: Pair) {
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
