//! Power of two choices on open connections. Knows endpoints only, not services or addresses.

use crate::model::Endpoint;

/// Random draws before falling back to a walk: with most endpoints usable, the walk is never needed, and a
/// service of 100,000 endpoints costs as much as one of two.
const DRAWS: usize = 4;

/// Two usable endpoints at random, and of them the one with fewer open connections for its capacity.
pub(super) fn least_of_two<'a>(
    endpoints: &'a [Endpoint],
    usable: impl Fn(&Endpoint) -> bool,
    random: &mut dyn FnMut(usize) -> usize,
) -> Option<&'a Endpoint> {
    let first = draw(endpoints, &usable, random)?;
    let second = draw(
        endpoints,
        |e| usable(e) && !std::ptr::eq(e, &endpoints[first]),
        random,
    );
    let first = &endpoints[first];
    Some(match second.map(|i| &endpoints[i]) {
        Some(second) if lighter(second, first) => second,
        _ => first,
    })
}

fn draw(
    endpoints: &[Endpoint],
    usable: impl Fn(&Endpoint) -> bool,
    random: &mut dyn FnMut(usize) -> usize,
) -> Option<usize> {
    let n = endpoints.len();
    if n == 0 {
        return None;
    }
    let drawn = (0..DRAWS).map(|_| random(n)).find(|i| usable(&endpoints[*i]));
    drawn.or_else(|| {
        let start = random(n);
        (0..n).map(|i| (start + i) % n).find(|i| usable(&endpoints[*i]))
    })
}

/// Open connections per unit of capacity, counting the one to come; compared without division.
fn lighter(a: &Endpoint, b: &Endpoint) -> bool {
    let cost = |load: &Endpoint, other: &Endpoint| {
        u64::from(load.load.open() + 1) * u64::from(other.workload.capacity.max(1))
    };
    cost(a, b) < cost(b, a)
}
