//! In which column each node stands: an edge goes from left to right wherever there is no circle. Places nothing within a
//! column.

pub(super) struct Layers {
    /// Of each node.
    pub(super) layer: Vec<usize>,
    /// Links that close a circle: they go from right to left.
    pub(super) is_reversed: Vec<bool>,
}

/// Links from a node to itself do not count.
pub(super) fn assign(nodes: usize, links: &[(usize, usize)]) -> Layers {
    let is_reversed = reversed(nodes, links);
    let oriented: Vec<(usize, usize)> = links
        .iter()
        .zip(&is_reversed)
        .filter(|((from, to), _)| from != to)
        .map(|((from, to), reversed)| if *reversed { (*to, *from) } else { (*from, *to) })
        .collect();
    let mut layer = vec![0_usize; nodes];
    // A path visits each node once at most, so this many rounds reach the end of the longest.
    for _ in 0..nodes {
        let before = layer.clone();
        for (from, to) in &oriented {
            layer[*to] = layer[*to].max(layer[*from] + 1);
        }
        if layer == before {
            break;
        }
    }
    // Whom nobody talks to stands beside the first that it talks to, not at the far left.
    for node in 0..nodes {
        let is_source = !oriented.iter().any(|(_, to)| *to == node);
        let next = oriented
            .iter()
            .filter(|(from, _)| *from == node)
            .map(|(_, to)| layer[*to]);
        if let Some(nearest) = next.min().filter(|_| is_source) {
            layer[node] = nearest.saturating_sub(1);
        }
    }
    Layers { layer, is_reversed }
}

/// Links against an order of the nodes in which few of them are: who talks to nobody that is left goes to its end, to whom
/// nobody talks that is left to its beginning, and else the one that talks to more than talk to it (Eades, Lin and Smyth).
fn reversed(nodes: usize, links: &[(usize, usize)]) -> Vec<bool> {
    let mut is_left = vec![true; nodes];
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..nodes {
        let count = |is_counted: &dyn Fn(usize, usize) -> bool| -> usize {
            let between = links
                .iter()
                .filter(|(from, to)| from != to && is_counted(*from, *to));
            between.count()
        };
        let talks = |node| count(&|from, to| from == node && is_left[to]);
        let called = |node| count(&|from, to| to == node && is_left[from]);
        let of_front = |node| count(&|from, to| to == node && first.contains(&from));
        let remaining = || (0..nodes).filter(|node| is_left[*node]);
        let end = remaining().find(|node| talks(*node) == 0);
        let begin = remaining().find(|node| called(*node) == 0);
        let best = || {
            remaining().min_by_key(|node| {
                let surplus = called(*node) as isize - talks(*node) as isize;
                (surplus, std::cmp::Reverse(of_front(*node)), *node)
            })
        };
        let Some(node) = end.or(begin).or_else(best) else {
            break;
        };
        is_left[node] = false;
        match end {
            Some(_) => last.push(node),
            None => first.push(node),
        }
    }
    let mut rank = vec![0; nodes];
    for (place, node) in first.into_iter().chain(last.into_iter().rev()).enumerate() {
        rank[node] = place;
    }
    links.iter().map(|(from, to)| rank[*from] > rank[*to]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_go_right_and_a_circle_is_closed_by_one_that_goes_back() {
        let links = [(0, 1), (1, 2), (2, 0), (0, 2), (1, 1), (3, 2)];
        let layers = assign(4, &links);
        assert_eq!(layers.layer, [0, 1, 2, 1]);
        assert_eq!(layers.is_reversed, [false, false, true, false, false, false]);
    }
}
