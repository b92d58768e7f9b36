//! IS IT STILL BELIEVED? When the roots change that this workload trusts, its tunnels are looked at again: what leads to
//! none of them takes no new connection and loses those that it carries. Which roots count, `identity` knows.

use std::rc::Rc;
use std::sync::Arc;

use super::shard::context::Shard;
use super::tunnels::Farewell;
use crate::identity::Svid;
use crate::model::{Cause, Outcome, Party};

/// Runs as long as the shard does.
pub(super) async fn follow(shard: Rc<Shard>) {
    let mut svids = shard.svids();
    let mut before = svids.borrow_and_update().clone();
    while svids.changed().await.is_ok() {
        // Without a certificate nothing new begins, and what runs goes on until its own proof ends.
        let Some(svid) = svids.borrow_and_update().clone() else {
            continue;
        };
        if before
            .as_ref()
            .is_none_or(|before| !has_same_roots(before, &svid))
        {
            distrust(&shard, &svid);
        }
        before = Some(svid);
    }
}

fn distrust(shard: &Shard, svid: &Arc<Svid>) {
    let inbound = shard.tunnels.distrust(svid);
    for _ in &inbound {
        shard.meters.tunnel_ended(Farewell::Untrusted.name());
    }
    let outcome = Outcome::new(Party::Policy, Cause::Denied);
    let connections = shard.live.cut_where(outcome, |connection| {
        connection.tunnel.is_some_and(|id| inbound.contains(&id))
    });
    shard.meters.policy_cuts.inc_by(connections as u64);
    let outbound = shard.pool.distrust(svid);
    if !inbound.is_empty() || outbound > 0 {
        tracing::info!(
            inbound = inbound.len(),
            outbound,
            connections,
            "tunnels are ended, because their peers' certificates lead to no root that is trusted now"
        );
    }
}

fn has_same_roots(before: &Svid, after: &Svid) -> bool {
    let (before, after) = (&before.roots().roots, &after.roots().roots);
    before.len() == after.len() && before.iter().all(|root| after.contains(root))
}
