//! The graph as a picture for a document: one file of SVG without scripts, fonts or links, light and dark. The same flows make
//! the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::words::size;
use super::captions::{self, Caption, Tone};
use super::graph::{Edge, EdgeList, Node};
use super::ink::{LOCK, NAME, NOTE, STYLE, Text, colour, dash, dashes, escaped, lock, note, width};
use super::layout::{self, Line, Rect};

/// Above the graph: title and time.
const HEAD: f64 = 64.0;
const LEGEND: f64 = 62.0;
const LEAST_WIDTH: f64 = 720.0;
/// From the end of a line to its words.
const BESIDE: f64 = 16.0;

pub(super) fn picture(list: &EdgeList) -> String {
    let nodes: Vec<&Node> = {
        let ends = list
            .edges
            .iter()
            .flat_map(|edge| [&edge.source, &edge.destination]);
        ends.collect::<BTreeSet<&Node>>().into_iter().collect()
    };
    let index: BTreeMap<&Node, usize> = nodes.iter().enumerate().map(|(n, node)| (*node, n)).collect();
    let window = captions::window(list);
    let captions: Vec<Caption> = list
        .edges
        .iter()
        .map(|edge| captions::of_edge(edge, window))
        .collect();
    let is_titled = captions::namespace(list).is_some();
    let placed = {
        let links: Vec<layout::Link> = list
            .edges
            .iter()
            .zip(&captions)
            .map(|(edge, caption)| layout::Link {
                from: index[&edge.source],
                to: index[&edge.destination],
                width: room(edge, caption),
                has_two_lines: caption.below.is_some(),
            })
            .collect();
        let boxes: Vec<layout::Node> = nodes
            .iter()
            .map(|node| frame_width(node, is_titled, &links, index[node]))
            .collect();
        layout::of(&boxes, &links)
    };
    let words = captions::summary(list);
    let least = LEAST_WIDTH.max(width(&words, NOTE) + 48.0);
    let (w, h) = (placed.width.max(least), placed.height.max(40.0) + HEAD + LEGEND);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" viewBox=\"0 0 {w:.0} {h:.0}\" \
         role=\"img\" aria-label=\"Who talks to whom\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{w:.0}\" height=\"{h:.0}\" rx=\"8\" fill=\"#ffffff\"/>\n"
    );
    let title = Text {
        at: (24.0, 32.0),
        class: "name",
        size: 17.0,
        anchor: "start",
        bold: true,
    };
    title.write(&captions::title(list), &mut svg);
    note((24.0, 51.0), &words, &mut svg);
    svg.push_str(&format!(
        "<g transform=\"translate({:.0} {HEAD:.0})\">\n",
        ((w - placed.width) / 2.0).floor()
    ));
    // The widest first, so that it hides no other.
    let mut lines: Vec<(&Edge, &Line)> = list.edges.iter().zip(&placed.lines).collect();
    lines.sort_by(|a, b| stroke(window, b.0).total_cmp(&stroke(window, a.0)));
    for (edge, line) in &lines {
        path(edge, line, stroke(window, edge), &mut svg);
    }
    for (node, rect) in nodes.iter().zip(&placed.nodes) {
        frame(node, *rect, is_titled, &mut svg);
    }
    for ((edge, caption), line) in list.edges.iter().zip(&captions).zip(&placed.lines) {
        caption_at(edge, caption, line, &placed.nodes[index[&edge.source]], &mut svg);
    }
    svg.push_str("</g>\n");
    legend(h - LEGEND + 18.0, &mut svg);
    svg + "</svg>\n"
}

/// For the words of a line, with the padlock.
fn room(edge: &Edge, caption: &Caption) -> f64 {
    let lock = if edge.secured { LOCK + 5.0 } else { 0.0 };
    let below = caption.below.as_deref().unwrap_or_default();
    (width(&caption.above, NOTE) + lock).max(width(below, NOTE))
}

fn frame_width(node: &Node, is_titled: bool, links: &[layout::Link], index: usize) -> layout::Node {
    let own = links
        .iter()
        .filter(|link| link.from == link.to && link.from == index);
    let looping = own.map(|link| link.width + 54.0).fold(0.0, f64::max);
    let (name, note) = captions::of_node(node, is_titled);
    layout::Node {
        width: (width(&name, NAME).max(width(&note, NOTE)) + 28.0).max(looping),
    }
}

fn legend(y: f64, svg: &mut String) {
    let mut x = 24.0;
    for (class, words) in [
        ("s", "mutual TLS"),
        ("p", "plaintext, and why"),
        ("d", "nothing came through"),
    ] {
        let (colour, dashes) = (colour(class), dashes(class));
        svg.push_str(&format!(
            "<path class=\"{class}\" d=\"M{x:.1} {:.1}h34\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\n",
            y - 4.0
        ));
        x += 42.0;
        if class == "s" {
            lock((x, y), svg);
            x += LOCK + 5.0;
        }
        note((x, y), words, svg);
        x += width(words, NOTE) + 28.0;
    }
    let words = "port, then connections and bytes in a second; ×N: connections, where there are few; \
                 wider lines: more bytes; dashed boxes: outside the mesh";
    note((24.0, y + 19.0), words, svg);
}

fn class(edge: &Edge) -> &'static str {
    match (edge.is_down(), edge.secured) {
        (true, _) => "d",
        (_, true) => "s",
        _ => "p",
    }
}

/// By bytes a second: a kilobyte is hardly more than nothing, a gigabyte the widest.
fn stroke(window: Option<Duration>, edge: &Edge) -> f64 {
    let seconds = window.map_or(1.0, |window| window.as_secs_f64());
    let rate = edge.bytes() as f64 / seconds;
    (1.5 + 0.75 * (1.0 + rate / 1_000.0).log10()).min(6.0)
}

fn path(edge: &Edge, line: &Line, stroke: f64, svg: &mut String) {
    let class = class(edge);
    let arrow = 5.0 + stroke;
    let (d, tip, way) = match line {
        Line::Across { points, to_left } => {
            let way = if *to_left { -1.0 } else { 1.0 };
            let tip = points.last().copied().unwrap_or_default();
            (across(points, arrow * way), tip, Some(way))
        }
        Line::Loop { from, to, height } => {
            // A curve reaches three quarters of the way to its control points.
            let top = from.1 - height / 0.75;
            let d = format!(
                "M{:.1} {:.1}C{:.1} {top:.1} {:.1} {top:.1} {:.1} {:.1}",
                from.0,
                from.1,
                from.0,
                to.0,
                to.0,
                to.1 - arrow
            );
            (d, *to, None)
        }
    };
    let (colour, dashes, (x, y), half) = (colour(class), dashes(class), tip, arrow * 0.55);
    let head = match way {
        Some(way) => {
            let back = x - arrow * way;
            format!(
                "M{x:.1} {y:.1}L{back:.1} {:.1}L{back:.1} {:.1}Z",
                y - half,
                y + half
            )
        }
        None => {
            let back = y - arrow;
            format!(
                "M{x:.1} {y:.1}L{:.1} {back:.1}L{:.1} {back:.1}Z",
                x - half,
                x + half
            )
        }
    };
    // Where two lines cross, the one above is seen to pass over the other.
    let under = format!(
        "<path class=\"under\" d=\"{d}\" fill=\"none\" stroke=\"#ffffff\" stroke-width=\"{:.1}\"/>",
        stroke + 4.0
    );
    svg.push_str(&format!(
        "<g><title>{}</title>{under}<path class=\"{class}\" d=\"{d}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"{stroke:.1}\"{dashes}/><path class=\"f{class}\" d=\"{head}\" fill=\"{colour}\"/></g>\n",
        escaped(&told(edge))
    ));
}

/// Straight pieces and curves in turn; the last one ends where the arrow's head begins.
fn across(points: &[(f64, f64)], head: f64) -> String {
    let mut d = String::new();
    for (n, (x, y)) in points.iter().enumerate() {
        let end = if n + 1 == points.len() { head } else { 0.0 };
        match n {
            0 => d.push_str(&format!("M{x:.1} {y:.1}")),
            n if n % 2 == 1 => d.push_str(&format!("L{:.1} {y:.1}", x - end)),
            _ => {
                let (before, from) = points[n - 1];
                let middle = (before + x) / 2.0;
                d.push_str(&format!(
                    "C{middle:.1} {from:.1} {middle:.1} {y:.1} {x:.1} {y:.1}"
                ));
            }
        }
    }
    d
}

/// What a reader is shown who points at a line.
fn told(edge: &Edge) -> String {
    let service = edge
        .service
        .as_ref()
        .map(|service| format!(" ({service})"))
        .unwrap_or_default();
    format!(
        "{} to {}{service}: {}, {} connections, {} sent, {} received",
        edge.source.name,
        edge.destination.name,
        edge.security(),
        edge.connections,
        size(edge.bytes_sent),
        size(edge.bytes_received)
    )
}

fn frame(node: &Node, rect: Rect, is_titled: bool, svg: &mut String) {
    let Rect { x, y, width, height } = rect;
    let (class, fill, dashes) = match &*node.kind {
        "workload" => ("box", "#f6f8fa", ""),
        _ => ("outer", "#ffffff", "4 3"),
    };
    let dashes = dash(dashes);
    let title = escaped(&node.name);
    svg.push_str(&format!(
        "<g><title>{title}</title><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         rx=\"7\" fill=\"{fill}\" stroke=\"#8c959f\"{dashes}/></g>\n"
    ));
    let (name, note) = captions::of_node(node, is_titled);
    let (middle, at) = (x + width / 2.0, y + height / 2.0);
    for (words, class, size, y) in [(name, "name", NAME, at - 2.0), (note, "note", NOTE, at + 14.0)] {
        let text = Text {
            at: (middle, y),
            class,
            size,
            anchor: "middle",
            bold: class == "name",
        };
        text.write(&words, svg);
    }
}

fn caption_at(edge: &Edge, caption: &Caption, line: &Line, node: &Rect, svg: &mut String) {
    let ((x, y), anchor) = match line {
        Line::Across { points, to_left } => {
            let (x, y) = points.last().copied().unwrap_or_default();
            match to_left {
                true => ((x + BESIDE, y), "start"),
                false => ((x - BESIDE, y), "end"),
            }
        }
        Line::Loop { from, height, .. } => ((node.x + 2.0, from.1 - height + 13.0), "start"),
    };
    let is_loop = matches!(line, Line::Loop { .. });
    let text = |at: (f64, f64), class: &str, words: &str, svg: &mut String| {
        let text = Text {
            at,
            class,
            size: NOTE,
            anchor,
            bold: false,
        };
        text.write(words, svg);
    };
    let mut above = (x, y - 5.0);
    if edge.secured {
        let (at, way) = match anchor {
            "end" => (x - LOCK, -1.0),
            _ => (x, 1.0),
        };
        lock((at, above.1), svg);
        above.0 += way * (LOCK + 5.0);
    }
    text(above, "note", &caption.above, svg);
    let class = match caption.tone {
        Tone::Quiet => "note",
        Tone::Plaintext => "fp",
        Tone::Failed => "fd",
    };
    if let Some(words) = &caption.below {
        let y = if is_loop { y + 8.0 } else { y + 13.0 };
        text((x, y), class, words, svg);
    }
}
