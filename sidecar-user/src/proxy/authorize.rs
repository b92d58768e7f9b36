//! MAY IT, AND MAY IT STILL? Asks policy about each inbound connection: before it is let in, and again when the registry
//! changes, for as long as it lives. What the answer is, `policy` knows.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::live::{Inbound, LiveConnection};
use super::shard::context::Shard;
use crate::model::snapshot::Standing;
use crate::model::{Cause, Decided, Outcome, Own, Party, Snapshot, SpiffeId};
use crate::observe::{Meters, OpenFlow};
use crate::policy::authorization::Decision;
use crate::policy::{self, Denied, Facts, Mode, Permit};
use crate::transport::hbone::Refusal;

/// Connections that are judged anew before others of the shard get their turn: a fraction of a millisecond.
const STEP: usize = 256;

/// The answer about one connection.
pub(super) struct Judgement<'w> {
    pub(super) verdict: Result<Permit, Denied>,
    /// What policies with `dryRun` would have it, where there are any.
    pub(super) rehearsed: Option<Decision>,
    /// Whose policies were asked.
    pub(super) standing: Standing<'w>,
}

/// `source` is proven; `from` is where the connection, or the tunnel that carries it, really comes from.
pub(super) fn judge<'w>(
    world: &'w Snapshot,
    own: &Own,
    mode: Mode,
    source: Option<&SpiffeId>,
    from: IpAddr,
    destination: SocketAddr,
) -> Judgement<'w> {
    let standing = world.standing(own, destination.ip());
    let facts = Facts {
        source,
        source_ips: &world.addresses_of(source, &from),
        destination,
    };
    Judgement {
        verdict: policy::admit(mode, &standing, &facts),
        rehearsed: policy::rehearse(mode, &standing, &facts),
        standing,
    }
}

/// Lets the connection in, by the world as it is now. From here on it is among those that a change of policy can end:
/// nothing is awaited between the decision and the entry, so that no change falls between the two.
pub(super) fn admit(
    shard: &Shard,
    flow: &OpenFlow,
    inbound: Inbound,
) -> Result<(Permit, LiveConnection), Refusal> {
    let world = shard.world();
    let judgement = judge_inbound(shard, &world, &inbound);
    rehearsed(shard, &inbound, &judgement);
    match judgement.verdict {
        Ok(permit) => {
            let by = permit.by();
            let by = by.map(|by| (by.policy.clone(), u32::try_from(by.rule).unwrap_or(u32::MAX)));
            flow.decided(Decided::Admitted(by));
            Ok((permit, shard.live.enter(Some(inbound))))
        }
        Err(denied) => {
            count_denied(&shard.meters, &denied, inbound.source.as_ref());
            flow.decided(Decided::Denied(denied.to_string().into()));
            let (client, destination, peer) = shown(&inbound);
            tracing::info!(%client, %destination, peer, %denied, "denied");
            Err(Refusal::Denied)
        }
    }
}

fn count_denied(meters: &Meters, denied: &Denied, source: Option<&SpiffeId>) {
    match denied {
        Denied::Plaintext => meters.plaintext_refused.inc(),
        Denied::Unlisted(_) => meters.unlisted_refused.inc(),
        Denied::Policy(_) => meters.denied.of(source.map_or("plain", |_| "hbone")).inc(),
    };
}

/// Counts what dry-run policies have said, and logs it where it is not what was done.
fn rehearsed(shard: &Shard, inbound: &Inbound, judgement: &Judgement<'_>) {
    let (client, destination, peer) = shown(inbound);
    match (&judgement.rehearsed, &judgement.verdict) {
        (None, _) => {}
        (Some(Decision::Deny(denial)), verdict) => {
            shard.meters.dry_run.of("deny").inc();
            if verdict.is_ok() {
                tracing::info!(%client, %destination, peer, reason = %denial, "dry run: would be denied");
            }
        }
        (Some(Decision::Allow(by)), verdict) => {
            shard.meters.dry_run.of("allow").inc();
            if verdict.is_err() {
                let by = by.as_ref().map(ToString::to_string);
                tracing::info!(%client, %destination, peer, by, "dry run: would be allowed");
            }
        }
    }
}

/// Ends the connections that a new registry forbids. Runs as long as the shard does.
pub(super) async fn follow(shard: Rc<Shard>) {
    let mut changes = shard.worlds();
    let mut before = changes.borrow().clone();
    while changes.changed().await.is_ok() {
        let world = changes.borrow_and_update().clone();
        let untouched = decides_alike(&before, &world, &shard.own);
        let forbidden = |inbound: &Inbound| {
            let judged = untouched && shard.own.addresses.contains(&inbound.destination.ip());
            !judged
                && !shard.has_to_learn(&world, inbound)
                && judge_inbound(&shard, &world, inbound).verdict.is_err()
        };
        let outcome = Outcome::new(Party::Policy, Cause::Denied);
        let cut = shard.live.cut_in_steps(STEP, outcome, forbidden).await;
        if cut > 0 {
            shard.meters.policy_cuts.inc_by(cut as u64);
            tracing::info!(
                connections = cut,
                generation = world.generation,
                "open connections are reset, because the new registry forbids them"
            );
        }
        before = world;
    }
}

/// Is what the new registry says about this workload what the old one said? Policies that ask for source addresses count
/// as changed: which addresses a peer has is for the registry to say.
fn decides_alike(before: &Snapshot, after: &Snapshot, own: &Own) -> bool {
    let Some(address) = own.addresses.first() else {
        return false;
    };
    let (before, after) = (before.standing(own, *address), after.standing(own, *address));
    before.is_same(&after) && !after.all().any(|policy| policy.asks_source_ips())
}

fn judge_inbound<'w>(shard: &Shard, world: &'w Snapshot, inbound: &Inbound) -> Judgement<'w> {
    judge(
        world,
        &shard.own,
        shard.mode,
        inbound.source.as_ref(),
        inbound.from.ip(),
        inbound.destination,
    )
}

fn shown(inbound: &Inbound) -> (SocketAddr, SocketAddr, Option<&str>) {
    let peer = inbound.source.as_ref().map(SpiffeId::as_str);
    (inbound.from, inbound.destination, peer)
}

#[cfg(test)]
mod tests;
