//! Which endpoints of a service come into question for one client: the one that it stays with, else those that are
//! nearest. Of several equals `balance.rs` takes one.

use super::balance;
use crate::model::{BalanceMode, Balancing, Endpoint, Location};

/// A usable endpoint of the highest rank that has one; none of a rank that the service does not allow.
pub(super) fn choose<'e>(
    balancing: &Balancing,
    endpoints: &'e [Endpoint],
    from: Location<'_>,
    stays_with: Option<&str>,
    is_usable: impl Fn(&Endpoint) -> bool,
    random: &mut dyn FnMut(usize) -> usize,
) -> Option<&'e Endpoint> {
    let scopes = match balancing.is_ranked() {
        true => balancing.scopes.len(),
        false => 0,
    };
    let nearest = |scopes| balancing.nearest(endpoints, from, scopes);
    let lowest = match balancing.mode {
        BalanceMode::Strict => scopes,
        _ => 0,
    };
    if let Some(uid) = stays_with {
        let kept = nearest(lowest).iter().find(|e| e.workload.uid == uid);
        if let Some(kept) = kept.filter(|e| is_usable(e)) {
            return Some(kept);
        }
    }
    // None that matches more scopes is usable where this goes on to fewer, so that what it then finds is of one rank.
    (lowest..=scopes)
        .rev()
        .find_map(|scopes| balance::least_of_two(nearest(scopes), &is_usable, random))
}
