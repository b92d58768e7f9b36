//! Power of two choices on open connections. Knows endpoints only, not services or addresses.

use std::cmp::Ordering;

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

fn lighter(a: &Endpoint, b: &Endpoint) -> bool {
    Cost::of(a).against(Cost::of(b)).is_lt()
}

/// Open connections per unit of capacity, counting the one to come.
#[derive(Clone, Copy)]
struct Cost {
    open: u64,
    capacity: u64,
}

impl Cost {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            open: u64::from(endpoint.load.open()) + 1,
            capacity: u64::from(endpoint.workload.capacity.max(1)),
        }
    }

    /// Without division.
    fn against(self, other: Self) -> Ordering {
        (self.open * other.capacity).cmp(&(other.open * self.capacity))
    }
}

/// For each of these endpoints, how likely it is that `least_of_two` takes it, which is 0 for those that are not usable. Of n usable
/// ones it sees n(n-1) ordered pairs. One is taken of those in which the other is heavier, and of those with an equal in which it is drawn
/// first. Where few of many are usable the draws are less even than that.
pub(super) fn chances(endpoints: &[Endpoint], usable: impl Fn(&Endpoint) -> bool) -> Vec<f64> {
    // Read once, because connections come and go meanwhile.
    let mut costs: Vec<(usize, Cost)> = endpoints
        .iter()
        .enumerate()
        .filter(|(_, endpoint)| usable(endpoint))
        .map(|(n, endpoint)| (n, Cost::of(endpoint)))
        .collect();
    costs.sort_by(|(_, a), (_, b)| a.against(*b));
    let mut chances = vec![0.0; endpoints.len()];
    let all = costs.len();
    let mut lighter = 0;
    for equals in costs.chunk_by(|(_, a), (_, b)| a.against(*b).is_eq()) {
        let heavier = all - lighter - equals.len();
        let pairs = 2 * heavier + equals.len() - 1;
        for (n, _) in equals {
            chances[*n] = match all {
                1 => 1.0,
                _ => pairs as f64 / (all * (all - 1)) as f64,
            };
        }
        lighter += equals.len();
    }
    chances
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::model::{Locality, SpiffeId, TunnelProtocol, Workload};

    /// With so many open connections, and this capacity.
    fn endpoint(n: usize, open: u32, capacity: u32) -> Endpoint {
        let endpoint = Endpoint {
            workload: Arc::new(Workload {
                uid: format!("w{n}"),
                name: format!("w{n}"),
                namespace: "t".into(),
                identity: SpiffeId::new("td.test", "t", "w").unwrap(),
                addresses: Vec::new(),
                protocol: TunnelProtocol::None,
                healthy: true,
                capacity,
                locality: Locality::default(),
                node: String::new(),
            }),
            ports: BTreeMap::new(),
            load: Arc::default(),
        };
        (0..open).for_each(|_| std::mem::forget(endpoint.load.enter()));
        endpoint
    }

    #[test]
    fn chances_are_how_often_each_is_taken() {
        const DRAWN: u32 = 200_000;
        let random = &mut fastrand::Rng::with_seed(7);
        for loads in [
            vec![(0, 1)],
            vec![(0, 1), (0, 1)],
            vec![(3, 1), (0, 1)],
            vec![(3, 4), (0, 1), (1, 1)],
            vec![(0, 1), (0, 1), (5, 1), (9, 1), (1, 1), (1, 1)],
        ] {
            let endpoints: Vec<Endpoint> = loads
                .iter()
                .enumerate()
                .map(|(n, (open, capacity))| endpoint(n, *open, *capacity))
                .collect();
            let chances = chances(&endpoints, |_| true);
            assert!((chances.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{chances:?}");
            let mut taken = vec![0_u32; endpoints.len()];
            for _ in 0..DRAWN {
                let one = least_of_two(&endpoints, |_| true, &mut |n| random.usize(..n)).unwrap();
                taken[one.workload.uid[1..].parse::<usize>().unwrap()] += 1;
            }
            for (chance, taken) in chances.iter().zip(taken) {
                let share = f64::from(taken) / f64::from(DRAWN);
                // The draws for the second may end in a walk, which is not quite even.
                assert!((chance - share).abs() < 0.02, "{loads:?}: {chance} {share}");
            }
        }
    }

    #[test]
    fn who_is_not_usable_has_no_chance() {
        let endpoints: Vec<Endpoint> = (0..3).map(|n| endpoint(n, 0, 1)).collect();
        assert_eq!(chances(&endpoints, |e| e.workload.uid == "w1"), [0.0, 1.0, 0.0]);
        assert_eq!(chances(&endpoints, |e| e.workload.uid != "w1"), [0.5, 0.0, 0.5]);
        assert_eq!(chances(&endpoints, |_| false), [0.0; 3]);
    }
}
