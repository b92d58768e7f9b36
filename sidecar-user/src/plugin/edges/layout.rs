//! Where everything of a picture stands: columns from left to right; lines that pass a column have a row of their own in it;
//! each line has a place of its own at a node's side, and room for its words there. Draws nothing.
//!
//! A column, and the channel to the next one:
//!
//! ```text
//! | words of lines that | node | words of lines that |  curves  |
//! | come from the left  |      | come from the right |          |
//! ```

use super::layers;
use super::order;

pub(super) struct Node {
    pub(super) width: f64,
}

pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    /// Of its words.
    pub(super) width: f64,
    /// It has words below it, too.
    pub(super) has_two_lines: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// A straight piece, a curve, a straight piece, and so on; the last point is at the node that is talked to.
    Across { points: Vec<(f64, f64)>, to_left: bool },
    /// From a node to itself, above it: where it begins and ends, and how high it is.
    Loop {
        from: (f64, f64),
        to: (f64, f64),
        height: f64,
    },
}

pub(super) struct Layout {
    pub(super) nodes: Vec<Rect>,
    pub(super) lines: Vec<Line>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Between two lines at the side of a node: a line of words fits.
const SLOT: f64 = 19.0;
/// Below a line that has words there, too.
const SECOND: f64 = 14.0;
const LEAST_HEIGHT: f64 = 46.0;
/// Between two items of a column.
const GAP: f64 = 20.0;
/// The row of a line that passes a column.
const PASSING: f64 = 8.0;
/// Beside words, and where there are none.
const ZONE: f64 = 26.0;
const MARGIN: f64 = 24.0;

struct Item {
    layer: usize,
    height: f64,
}

pub(super) fn of(nodes: &[Node], links: &[Link]) -> Layout {
    let ends: Vec<(usize, usize)> = links.iter().map(|link| (link.from, link.to)).collect();
    let layered = layers::assign(nodes.len(), &ends);
    let mut items: Vec<Item> = layered
        .layer
        .iter()
        .map(|layer| Item {
            layer: *layer,
            height: 0.0,
        })
        .collect();
    // Of each link: the items that it goes through, from left to right.
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for ((from, to), reversed) in ends.iter().zip(&layered.is_reversed) {
        if from == to {
            chains.push(Vec::new());
            continue;
        }
        let (left, right) = if *reversed { (*to, *from) } else { (*from, *to) };
        let mut chain = vec![left];
        for layer in items[left].layer + 1..items[right].layer {
            chain.push(items.len());
            items.push(Item {
                layer,
                height: PASSING,
            });
        }
        chain.push(right);
        chains.push(chain);
    }
    let pairs: Vec<(usize, usize)> = chains
        .iter()
        .flat_map(|chain| chain.windows(2))
        .map(|two| (two[0], two[1]))
        .collect();
    let mut columns: Vec<Vec<usize>> =
        vec![Vec::new(); items.iter().map(|item| item.layer + 1).max().unwrap_or(0)];
    for (n, item) in items.iter().enumerate() {
        columns[item.layer].push(n);
    }
    order::arrange(&mut columns, &pairs, items.len());
    let slots = Slots::of(
        &chains,
        links,
        &layered.is_reversed,
        &order::places(&columns, items.len()),
    );
    // How high the loops above a node are, one above the other.
    let loops = |node: usize| -> f64 {
        let own = links
            .iter()
            .filter(|link| link.from == node && link.from == link.to);
        own.map(Link::height).sum()
    };
    for (node, item) in items.iter_mut().enumerate().take(nodes.len()) {
        let sides = slots.left[node].max(slots.right[node]);
        item.height = (sides + 14.0).max(LEAST_HEIGHT) + loops(node);
    }
    let inset = |item: usize| {
        if item < nodes.len() {
            loops(item) / 2.0
        } else {
            0.0
        }
    };
    let y = heights(&columns, &items, &chains, &slots, &inset);
    let x = widths(nodes, links, &layered, columns.len());

    let rects = (0..nodes.len()).map(|node| {
        let column = &x[items[node].layer];
        let above = 2.0 * inset(node);
        Rect {
            x: column.x,
            y: y[node] - items[node].height / 2.0 + above,
            width: column.width,
            height: items[node].height - above,
        }
    });
    let rects: Vec<Rect> = rects.collect();
    let mut looped = vec![(0.0, 0.0); nodes.len()];
    let lines = links.iter().enumerate().map(|(n, link)| {
        if link.from == link.to {
            let rect = rects[link.from];
            let (turn, below): &mut (f64, f64) = &mut looped[link.from];
            // One within the other.
            let (middle, half) = (rect.x + rect.width - 28.0, 8.0 + 5.0 * turn.min(3.0));
            *turn += 1.0;
            *below += link.height();
            let (left, right) = (middle - half, middle + half);
            return Line::Loop {
                from: (left, rect.y),
                to: (right, rect.y),
                height: *below - 4.0,
            };
        }
        let mut points = Vec::new();
        for (step, two) in chains[n].windows(2).enumerate() {
            let (a, b) = (two[0], two[1]);
            let (from, to) = (&x[items[a].layer], &x[items[b].layer]);
            let (leaves, arrives) = slots.of_step(n, step);
            let (leaves, arrives) = (y[a] + inset(a) + leaves, y[b] + inset(b) + arrives);
            if step == 0 {
                points.push((from.x + from.width, leaves));
            }
            points.extend([(from.end, leaves), (to.start, arrives)]);
        }
        if let (Some(last), Some(end)) = (chains[n].last(), points.last().copied()) {
            points.push((x[items[*last].layer].x, end.1));
        }
        let to_left = layered.is_reversed[n];
        if to_left {
            points.reverse();
        }
        Line::Across { points, to_left }
    });
    let lines = lines.collect();
    let bottom = rects.iter().map(|rect| rect.y + rect.height);
    let passing = (nodes.len()..items.len()).map(|item| y[item]);
    Layout {
        lines,
        width: x.last().map_or(0.0, |column| column.end) + MARGIN,
        height: bottom.chain(passing).fold(0.0, f64::max) + MARGIN,
        nodes: rects,
    }
}

impl Link {
    fn height(&self) -> f64 {
        SLOT + if self.has_two_lines { SECOND } else { 0.0 }
    }
}

/// At which height of an item's side each step of a chain begins and ends, from the item's middle.
struct Slots {
    /// How high all of a side are together.
    left: Vec<f64>,
    right: Vec<f64>,
    /// By link and step.
    steps: Vec<Vec<(f64, f64)>>,
}

impl Slots {
    fn of(chains: &[Vec<usize>], links: &[Link], is_reversed: &[bool], places: &[usize]) -> Self {
        let items = places.len();
        let mut sides: [Vec<Vec<(usize, usize, usize)>>; 2] =
            [vec![Vec::new(); items], vec![Vec::new(); items]];
        for (link, chain) in chains.iter().enumerate() {
            for (step, two) in chain.windows(2).enumerate() {
                sides[1][two[0]].push((places[two[1]], link, step));
                sides[0][two[1]].push((places[two[0]], link, step));
            }
        }
        let mut steps: Vec<Vec<(f64, f64)>> = chains
            .iter()
            .map(|chain| vec![(0.0, 0.0); chain.len().saturating_sub(1)])
            .collect();
        // The words of a line stand where it arrives.
        let height = |is_right: bool, link: usize, step: usize| {
            let arrives = match is_reversed[link] {
                true => is_right && step == 0,
                false => !is_right && step + 2 == chains[link].len(),
            };
            if arrives { links[link].height() } else { SLOT }
        };
        let sums = [false, true].map(|is_right| {
            let side = &mut sides[usize::from(is_right)];
            let mut sums = Vec::new();
            for at_item in side {
                // As their other ends stand, so that they do not cross beside the node.
                at_item.sort_unstable();
                let sum: f64 = at_item
                    .iter()
                    .map(|(_, link, step)| height(is_right, *link, *step))
                    .sum();
                let mut top = -sum / 2.0;
                for (_, link, step) in at_item.iter() {
                    let ends = &mut steps[*link][*step];
                    *(if is_right { &mut ends.0 } else { &mut ends.1 }) = top + SLOT / 2.0;
                    top += height(is_right, *link, *step);
                }
                sums.push(sum);
            }
            sums
        });
        let [left, right] = sums;
        Self { left, right, steps }
    }

    fn of_step(&self, link: usize, step: usize) -> (f64, f64) {
        self.steps[link][step]
    }
}

/// The middle of each item.
fn heights(
    columns: &[Vec<usize>],
    items: &[Item],
    chains: &[Vec<usize>],
    slots: &Slots,
    inset: &dyn Fn(usize) -> f64,
) -> Vec<f64> {
    const SWEEPS: usize = 16;
    let distances = |column: &[usize]| -> Vec<f64> {
        let apart = |two: &[usize]| (items[two[0]].height + items[two[1]].height) / 2.0 + GAP;
        column.windows(2).map(apart).collect()
    };
    let mut y = vec![0.0; items.len()];
    for column in columns {
        let spread = order::apart(&vec![0.0; column.len()], &distances(column));
        for (item, at) in column.iter().zip(spread) {
            y[*item] = at;
        }
    }
    for sweep in 0..SWEEPS {
        // The last sweeps look at both sides.
        let looks = |left: bool| sweep + 4 >= SWEEPS || (sweep % 2 == 0) == left;
        for n in 0..columns.len() {
            let column = &columns[if sweep % 2 == 0 { n } else { columns.len() - 1 - n }];
            let wished = column.iter().map(|item| {
                let (mut sum, mut count) = (0.0, 0);
                for (link, chain) in chains.iter().enumerate() {
                    for (step, two) in chain.windows(2).enumerate() {
                        let (leaves, arrives) = slots.of_step(link, step);
                        let (leaves, arrives) = (leaves + inset(two[0]), arrives + inset(two[1]));
                        if two[1] == *item && looks(true) {
                            sum += y[two[0]] + leaves - arrives;
                            count += 1;
                        }
                        if two[0] == *item && looks(false) {
                            sum += y[two[1]] + arrives - leaves;
                            count += 1;
                        }
                    }
                }
                if count == 0 {
                    y[*item]
                } else {
                    sum / f64::from(count)
                }
            });
            let wished: Vec<f64> = wished.collect();
            for (item, at) in column.iter().zip(order::apart(&wished, &distances(column))) {
                y[*item] = at;
            }
        }
    }
    let top = |item: usize| y[item] - items[item].height / 2.0;
    let highest = (0..items.len()).map(top).fold(f64::INFINITY, f64::min);
    y.iter().map(|y| y - highest + MARGIN).collect()
}

/// Where a column begins, its nodes stand, and it ends.
struct Column {
    start: f64,
    x: f64,
    width: f64,
    end: f64,
}

fn widths(nodes: &[Node], links: &[Link], layered: &layers::Layers, columns: usize) -> Vec<Column> {
    let mut found = Vec::new();
    let mut start = MARGIN;
    for layer in 0..columns {
        let is_here = |node: usize| layered.layer[node] == layer;
        let width = (0..nodes.len()).filter(|n| is_here(*n)).map(|n| nodes[n].width);
        let width = width.fold(90.0, f64::max);
        let words = |to_left: bool| {
            let arriving = links.iter().zip(&layered.is_reversed);
            let arriving = arriving
                .filter(|(link, reversed)| **reversed == to_left && link.from != link.to && is_here(link.to));
            arriving.map(|(link, _)| link.width).fold(0.0, f64::max)
        };
        let zone = |words: f64| if words > 0.0 { words + ZONE } else { 10.0 };
        let x = if layer == 0 && words(false) == 0.0 {
            start
        } else {
            start + zone(words(false))
        };
        let end = x + width + zone(words(true));
        found.push(Column { start, x, width, end });
        let crossing = links.iter().filter(|link| {
            let (a, b) = (layered.layer[link.from], layered.layer[link.to]);
            a.min(b) <= layer && layer < a.max(b)
        });
        start = end + (40.0 + 5.0 * crossing.count() as f64).min(140.0);
    }
    found
}
