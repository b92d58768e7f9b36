//! MAY IT STILL? Asks policy about each inbound connection: before it is let in, and again whenever the registry
//! changes, for as long as it lives. What the answer is, `policy` knows.

use std::rc::Rc;

use super::live::{Inbound, LiveConnection};
use super::shard::Shard;
use crate::model::{Cause, Outcome, Party, Snapshot, SpiffeId};
use crate::policy::{self, Denied, Facts, Permit};
use crate::transport::hbone::Refusal;

/// Connections that are judged anew before others of the shard get their turn: a fraction of a millisecond.
const STEP: usize = 256;

/// Lets the connection in, by the world as it is now. From here on it is among those that a change of policy can end:
/// nothing is awaited between the decision and the entry, so that no change falls between the two.
pub(super) fn admit(shard: &Shard, inbound: Inbound) -> Result<(Permit, LiveConnection), Refusal> {
    match decide(shard, &shard.world(), &inbound) {
        Ok(permit) => Ok((permit, shard.live.enter(Some(inbound)))),
        Err(denied) => {
            let Inbound {
                from, destination, ..
            } = inbound;
            let peer = inbound.source.as_ref().map(SpiffeId::as_str);
            tracing::info!(client = %from, %destination, peer, %denied, "denied");
            Err(Refusal::Denied)
        }
    }
}

/// Ends the connections that a new registry forbids. Runs as long as the shard does.
pub(super) async fn follow(shard: Rc<Shard>) {
    let mut changes = shard.worlds();
    while changes.changed().await.is_ok() {
        let world = changes.borrow_and_update().clone();
        let forbidden = |inbound: &Inbound| decide(&shard, &world, inbound).is_err();
        let outcome = Outcome::new(Party::Policy, Cause::Denied);
        let cut = shard.live.cut_in_steps(STEP, outcome, forbidden).await;
        if cut > 0 {
            shard.meters.policy_cuts.inc_by(cut as u64);
            tracing::info!(
                connections = cut,
                generation = world.generation,
                "open connections are ended, because the new registry forbids them"
            );
        }
    }
}

/// Asks policy, by the registry's entry of this workload. An address that the registry does not list is no way around
/// it: the pod's other addresses tell which workload this is, and where none does, the namespace's policies hold.
fn decide(shard: &Shard, world: &Snapshot, inbound: &Inbound) -> Result<Permit, Denied> {
    let mut own = std::iter::once(inbound.destination.ip()).chain(shard.addresses.iter().copied());
    let policies = match own.find_map(|ip| world.workload_by_address(ip)) {
        Some((workload, _)) => world.policies_for(workload),
        None => world.policies_in(shard.id.namespace()),
    };
    let facts = Facts {
        source: inbound.source.as_ref(),
        source_ip: inbound.from.ip(),
        destination: inbound.destination,
    };
    policy::admit(shard.mode, &policies, &facts)
}
