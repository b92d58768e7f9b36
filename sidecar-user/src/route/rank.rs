//! Which endpoints of a service come into question for one client: the one that it stays with, else those that are
//! nearest. Of several equals `balance.rs` takes one.

use super::balance;
use crate::model::{BalanceMode, Balancing, Endpoint, Location};

/// A usable endpoint of the first group that has one.
pub(super) fn choose<'e>(
    balancing: &Balancing,
    endpoints: &'e [Endpoint],
    from: Location<'_>,
    stays_with: Option<&str>,
    is_usable: impl Fn(&Endpoint) -> bool,
    random: &mut dyn FnMut(usize) -> usize,
) -> Option<&'e Endpoint> {
    groups(balancing, endpoints, from, stays_with)
        .find_map(|group| balance::least_of_two(group, &is_usable, random))
}

/// The endpoints that come into question, group by group: the one that the client stays with, and then those of each rank that the
/// service allows, the highest first. A group of a lower rank has those of the higher ones in it.
pub(super) fn groups<'e>(
    balancing: &Balancing,
    endpoints: &'e [Endpoint],
    from: Location<'_>,
    stays_with: Option<&str>,
) -> impl Iterator<Item = &'e [Endpoint]> {
    let scopes = match balancing.is_ranked() {
        true => balancing.scopes.len(),
        false => 0,
    };
    let nearest = move |scopes| balancing.nearest(endpoints, from, scopes);
    let lowest = match balancing.mode {
        BalanceMode::Strict => scopes,
        _ => 0,
    };
    let kept = stays_with.and_then(|uid| nearest(lowest).iter().find(|e| e.workload.uid == uid));
    kept.map(std::slice::from_ref)
        .into_iter()
        // None that matches more scopes is usable where this goes on to fewer, so that what it then finds is of one rank.
        .chain((lowest..=scopes).rev().map(nearest))
}
