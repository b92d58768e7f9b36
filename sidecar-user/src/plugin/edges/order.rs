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
        let now = crossings(columns, pairs, items);
        if now < fewest {
            fewest = now;
            best = columns.to_vec();
        }
    }
    columns.clone_from_slice(&best);
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

    #[test]
    fn what_wishes_for_the_same_place_shares_it_around() {
        assert_eq!(apart(&[0.0, 0.0, 0.0], &[10.0, 10.0]), [-10.0, 0.0, 10.0]);
        assert_eq!(apart(&[0.0, 50.0], &[10.0]), [0.0, 50.0]);
    }
}
