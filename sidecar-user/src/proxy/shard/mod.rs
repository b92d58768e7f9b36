//! One shard of the data path: a thread with a runtime of its own, its listeners and its tunnels. A connection lives
//! and dies on one shard; only snapshots come in from outside. Starts the walks, which get [`context::Shard`] of it.

mod application;
pub(super) mod context;
mod held;
mod holding;
mod present;
#[cfg(test)]
pub(super) mod tests;

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::contain::{contained, restarted};
use super::limits::{Arrival, Resources};
use super::walk::{inbound, outbound, tunnel};
use super::{authorize, trust};
use crate::datapath::{HeldEvents, Hold};
use crate::intercept::{Listeners, RawSockets};
use crate::model::{Cause, ClientAddr, Outcome, Party};
use crate::observe::ShardObserver;
use crate::relay;
use context::{Settings, Shard};
use holding::Holding;

/// After a failed accept (no memory left, say) the listener rests, so that the shard can free some.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// How often a replaced shard looks whether somebody is still held.
const HELD_LOOK: Duration = Duration::from_millis(50);

/// For the last words of a shard that is done.
const GOODBYE: Duration = Duration::from_millis(500);

/// What a shard needs to hold SYNs.
pub(super) type Truthful = (Hold, RawSockets);

/// The shard's thread. Ends when the proxy drains and no flow is open, or when it is cut.
pub(super) fn run(
    mut settings: Settings,
    listeners: Listeners,
    truthful: Option<Truthful>,
    observe: ShardObserver,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async move {
        let generation = settings.generation.take();
        let numbers = (settings.shards, settings.files);
        let shard = Rc::new(Shard::new(settings, observe)?);
        let (events, holding) = match truthful {
            Some((hold, raw)) => {
                let (events, approvals) = hold.start()?;
                let holding = Holding::new(shard.clone(), approvals, raw, numbers);
                (Some(events), Some(holding))
            }
            None => (None, None),
        };
        let (outbound, inbound) = match listeners.steered {
            Some(steered) => (Some(steered.outbound), Some(steered.inbound)),
            None => (None, None),
        };
        for listener in outbound.iter().chain(&inbound) {
            relay::prepare(listener)?;
        }
        let outbound = outbound.map(TcpListener::from_std).transpose()?;
        let inbound = inbound.map(TcpListener::from_std).transpose()?;
        let hbone = TcpListener::from_std(listeners.hbone)?;
        let applications = async {
            let admitted = async {
                let admitted = accept_steered(&shard, outbound, |shard, arrival: Arrival| {
                    let held = holding.as_ref();
                    let held = held.and_then(|all| all.accepted(&arrival.stream, arrival.client));
                    outbound::serve(shard, arrival, held)
                });
                if holding.is_some() {
                    // Held connections come in by this listener until the end. A newcomer is refused by its SYN.
                    return admitted.await;
                }
                tokio::select! {
                    () = admitted => {}
                    () = shard.closed() => {}
                }
                std::future::pending().await
            };
            tokio::select! {
                () = admitted => {}
                () = follow_held(holding.clone(), events) => {}
            }
        };
        let strangers = accept_steered(&shard, inbound, inbound::plaintext);
        let peers = accept(&shard, hbone, tunnel::serve);
        let (judging, trusting) = (shard.clone(), shard.clone());
        restarted(move || authorize::follow(judging.clone()));
        restarted(move || trust::follow(trusting.clone()));
        let readings = shard.readings.clone();
        let left_alone = shard.left_alone.clone();
        restarted(move || readings.clone().follow());
        restarted(move || left_alone.clone().follow());
        let pool = shard.pool.clone();
        let world = shard.world.clone();
        let clean = pool.keep_clean(|key| world.borrow().is_at(&key.workload, key.gateway.ip()));
        let mut applications = Box::pin(applications);
        tokio::select! {
            () = &mut applications => {}
            ((), ()) = async { tokio::join!(strangers, peers) } => {}
            () = clean => {}
            () = shard.closed() => {}
        }
        // The inbound listeners are closed now.
        let is_left = tokio::select! {
            () = &mut applications => false,
            () = shard.ended() => false,
            () = left_behind(&shard, holding.as_ref()) => true,
        };
        if is_left {
            // The outbound one is, too: another proxy may have its slot.
            drop((applications, generation));
            shard.ended().await;
        }
        shard.live.cut_all(Outcome::new(Party::Us, Cause::Shutdown));
        if let Some(holding) = &holding {
            holding.end();
        }
        shard.pool.close();
        // Resets, last GOAWAYs and records of flows need a moment, and nobody's answer.
        let goodbye = async {
            shard.open.none_left().await;
            shard.serving.none_left().await;
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        Ok(())
    })
}

/// Completes when no connection can come to the outbound listener any more, because another proxy has the pod and nobody is
/// held here.
async fn left_behind(shard: &Shard, holding: Option<&Rc<Holding>>) {
    if !shard.is_replaced() {
        return std::future::pending().await;
    }
    while holding.is_some_and(|holding| !holding.is_empty()) {
        tokio::time::sleep(HELD_LOOK).await;
    }
}

/// Never ends, also where no SYN is held.
async fn follow_held(holding: Option<Rc<Holding>>, events: Option<HeldEvents>) {
    match holding.zip(events) {
        Some((holding, events)) => holding.follow(events).await,
        None => std::future::pending().await,
    }
}

/// Where the kernel brings nothing there is no listener, and nobody comes.
async fn accept_steered<F>(
    shard: &Rc<Shard>,
    listener: Option<TcpListener>,
    walk: impl Fn(Rc<Shard>, Arrival) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    match listener {
        Some(listener) => accept(shard, listener, walk).await,
        None => std::future::pending().await,
    }
}

async fn accept<F>(shard: &Rc<Shard>, listener: TcpListener, walk: impl Fn(Rc<Shard>, Arrival) -> F)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shard.descriptors.restocked(), if shard.descriptors.is_lent() => continue,
        };
        match accepted {
            Ok((stream, peer)) => contained(|| {
                let arrival = shard.descriptors.arrival(stream, ClientAddr::new(peer));
                tokio::task::spawn_local(walk(shard.clone(), arrival));
            }),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                shard.limited.report(Resources::of(&error));
                let Some(arrival) = shard.descriptors.last_resort(&listener).await else {
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                };
                tokio::task::spawn_local(walk(shard.clone(), arrival));
                // It is turned away meanwhile.
                tokio::task::yield_now().await;
                shard.descriptors.restock();
            }
        }
    }
}

/// Errors of the one connection that was to be accepted, not of the listener.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
