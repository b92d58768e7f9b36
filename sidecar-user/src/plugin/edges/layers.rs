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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    OnPath,
    Done,
}

/// By a search in depth that begins with those who talk most and are talked to least: links back to the path are those
/// that close a circle.
fn reversed(nodes: usize, links: &[(usize, usize)]) -> Vec<bool> {
    let mut next: Vec<Vec<(usize, usize)>> = vec![Vec::new(); nodes];
    let mut surplus = vec![0_isize; nodes];
    for (n, (from, to)) in links.iter().enumerate().filter(|(_, (from, to))| from != to) {
        next[*from].push((*to, n));
        surplus[*from] -= 1;
        surplus[*to] += 1;
    }
    let mut roots: Vec<usize> = (0..nodes).collect();
    roots.sort_by_key(|node| (surplus[*node], *node));
    let mut is_reversed = vec![false; links.len()];
    let mut seen = vec![Seen::No; nodes];
    for root in roots {
        if seen[root] != Seen::No {
            continue;
        }
        seen[root] = Seen::OnPath;
        let mut path = vec![(root, 0)];
        while let Some((node, at)) = path.last_mut() {
            let Some((to, link)) = next[*node].get(*at).copied() else {
                seen[*node] = Seen::Done;
                path.pop();
                continue;
            };
            *at += 1;
            match seen[to] {
                Seen::OnPath => is_reversed[link] = true,
                Seen::Done => {}
                Seen::No => {
                    seen[to] = Seen::OnPath;
                    path.push((to, 0));
                }
            }
        }
    }
    is_reversed
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
