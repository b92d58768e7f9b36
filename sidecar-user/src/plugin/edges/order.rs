//! In which order the items of each column stand, so that few lines cross, and at which height, so that lines are short and
//! nothing overlaps.

/// Where an item stands: its column, and its place in it.
pub(super) type Places = Vec<usize>;

/// Items of each column; afterwards in an order with few crossings. Each pair joins items of two neighbouring columns.
pub(super) fn arrange(columns: &mut [Vec<usize>], pairs: &[(usize, usize)], items: usize) {
    const SWEEPS: usize = 24;
    let mut best = columns.to_vec();
    let mut fewest = crossings(columns, pairs, items);
    for sweep in 0..SWEEPS {
        let to_right = sweep % 2 == 0;
        let order: Vec<usize> = match to_right {
            true => (1..columns.len()).collect(),
            false => (0..columns.len().saturating_sub(1)).rev().collect(),
        };
        for column in order {
            let places = places(columns, items);
            let mean = |item: usize| {
                let beside = pairs.iter().filter_map(|(a, b)| match to_right {
                    true => (*b == item).then_some(*a),
                    false => (*a == item).then_some(*b),
                });
                let beside: Vec<f64> = beside.map(|other| places[other] as f64).collect();
                match beside.len() {
                    0 => places[item] as f64,
                    n => beside.iter().sum::<f64>() / n as f64,
                }
            };
            let mut keyed: Vec<(f64, usize)> =
                columns[column].iter().map(|item| (mean(*item), *item)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            columns[column] = keyed.into_iter().map(|(_, item)| item).collect();
        }
        exchange(columns, pairs, items);
        let now = crossings(columns, pairs, items);
        if now < fewest {
            fewest = now;
            best = columns.to_vec();
        }
    }
    columns.clone_from_slice(&best);
}

/// Exchanges neighbours of a column as long as fewer lines cross by it: what the means of a sweep cannot tell apart.
fn exchange(columns: &mut [Vec<usize>], pairs: &[(usize, usize)], items: usize) {
    const ROUNDS: usize = 8;
    let mut beside = vec![[Vec::new(), Vec::new()]; items];
    for (a, b) in pairs {
        beside[*b][0].push(*a);
        beside[*a][1].push(*b);
    }
    let mut places = places(columns, items);
    for _ in 0..ROUNDS {
        let mut has_changed = false;
        for column in columns.iter_mut() {
            for n in 1..column.len() {
                let (upper, lower) = (column[n - 1], column[n]);
                // How many lines of the one cross those of the other, where it stands above it.
                let crossed = |above: usize, below: usize| -> usize {
                    let side = |side: usize| -> usize {
                        let of_one = |a: &usize| {
                            let is_before = |b: &&usize| places[**b] < places[*a];
                            beside[below][side].iter().filter(is_before).count()
                        };
                        beside[above][side].iter().map(of_one).sum()
                    };
                    side(0) + side(1)
                };
                if crossed(lower, upper) < crossed(upper, lower) {
                    column.swap(n - 1, n);
                    places.swap(upper, lower);
                    has_changed = true;
                }
            }
        }
        if !has_changed {
            return;
        }
    }
}

pub(super) fn places(columns: &[Vec<usize>], items: usize) -> Places {
    let mut places = vec![0; items];
    for column in columns {
        for (place, item) in column.iter().enumerate() {
            places[*item] = place;
        }
    }
    places
}

fn crossings(columns: &[Vec<usize>], pairs: &[(usize, usize)], items: usize) -> usize {
    let places = places(columns, items);
    let mut column_of = vec![0; items];
    for (n, column) in columns.iter().enumerate() {
        for item in column {
            column_of[*item] = n;
        }
    }
    let mut count = 0;
    for (n, (a, b)) in pairs.iter().enumerate() {
        for (c, d) in &pairs[n + 1..] {
            if column_of[*a] == column_of[*c] {
                let (left, right) = (places[*a].cmp(&places[*c]), places[*b].cmp(&places[*d]));
                count += usize::from(left != right && left.is_ne() && right.is_ne());
            }
        }
    }
    count
}

/// The heights nearest to the wished ones, in this order and at least so far apart from the one before. By pooling neighbours
/// that would come too close, which is the least sum of squares.
pub(super) fn apart(wished: &[f64], distances: &[f64]) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(wished.len());
    let mut offset = 0.0;
    for (n, _) in wished.iter().enumerate() {
        if n > 0 {
            offset += distances[n - 1];
        }
        offsets.push(offset);
    }
    // Each pool: the sum of what its members wish, and how many there are.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wish, offset) in wished.iter().zip(&offsets) {
        pools.push((wish - offset, 1));
        while let [.., (sum_a, n_a), (sum_b, n_b)] = pools.as_slice()
            && sum_a / *n_a as f64 > sum_b / *n_b as f64
        {
            let joined = (sum_a + sum_b, n_a + n_b);
            pools.truncate(pools.len() - 2);
            pools.push(joined);
        }
    }
    let levels = pools
        .iter()
        .flat_map(|(sum, n)| std::iter::repeat_n(sum / *n as f64, *n));
    levels
        .zip(&offsets)
        .map(|(level, offset)| level + offset)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_need_not_cross_do_not() {
        let mut columns = vec![vec![0, 1, 2], vec![3, 4, 5]];
        let pairs = [(0, 5), (1, 4), (2, 3)];
        arrange(&mut columns, &pairs, 6);
        assert_eq!(crossings(&columns, &pairs, 6), 0, "{columns:?}");
    }

    /// Two columns: in which order of the right one fewest lines cross, of all there are.
    fn fewest(pairs: &[(usize, usize)], left: &[usize], right: &mut Vec<usize>, from: usize) -> usize {
        if from == right.len() {
            return crossings(&[left.to_vec(), right.clone()], pairs, left.len() + right.len());
        }
        let mut best = usize::MAX;
        for n in from..right.len() {
            right.swap(from, n);
            best = best.min(fewest(pairs, left, right, from + 1));
            right.swap(from, n);
        }
        best
    }

    #[test]
    fn no_order_of_a_column_crosses_fewer_lines() {
        let mut random = fastrand::Rng::with_seed(11);
        let (mut worse, mut crossed) = (0, 0);
        for _ in 0..100 {
            let pairs: Vec<(usize, usize)> = (0..9)
                .map(|_| (random.usize(..5), 5 + random.usize(..5)))
                .collect();
            let mut columns = vec![(0..5).collect::<Vec<_>>(), (5..10).collect()];
            arrange(&mut columns, &pairs, 10);
            let found = crossings(&columns, &pairs, 10);
            let left = columns[0].clone();
            let best = fewest(&pairs, &left, &mut columns[1], 0);
            crossed += best;
            worse += usize::from(found > best);
        }
        // The means of the sweeps alone leave one of them with a crossing that need not be.
        assert!(worse == 0 && crossed > 0, "{worse} of 100, {crossed}");
    }

    #[test]
    fn what_wishes_for_the_same_place_shares_it_around() {
        assert_eq!(apart(&[0.0, 0.0, 0.0], &[10.0, 10.0]), [-10.0, 0.0, 10.0]);
        assert_eq!(apart(&[0.0, 50.0], &[10.0]), [0.0, 50.0]);
    }
}
