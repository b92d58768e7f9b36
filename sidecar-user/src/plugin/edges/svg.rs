//! The graph as a picture for a document: one file of SVG without scripts, fonts or links, light and dark. The same flows make
//! the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::columns::printable;
use super::super::words::size;
use super::graph::{Edge, EdgeList, Node};
use super::layout::{self, Line, Rect};

/// Colours have names in the style sheet, which knows those of a dark page; the attributes are for who reads no style sheet.
const STYLE: &str = "\
text{font-family:Inter,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.box{fill:#161b22;stroke:#6e7681}.outer{fill:#0d1117;stroke:#6e7681}
.name{fill:#e6edf3}.note{fill:#9198a1}
.s{stroke:#3fb950}.p{stroke:#e0a030}.d{stroke:#ff6b61}
.fs{fill:#3fb950}.fp{fill:#e0a030}.fd{fill:#ff6b61}
}
";

const NAME: f64 = 13.0;
const NOTE: f64 = 11.0;
/// Above the graph: title and time.
const HEAD: f64 = 64.0;
const LEGEND: f64 = 62.0;
const LEAST_WIDTH: f64 = 780.0;
const LONGEST_NAME: usize = 40;

pub(super) fn picture(list: &EdgeList) -> String {
    let nodes: Vec<&Node> = {
        let all: BTreeSet<&Node> = list
            .edges
            .iter()
            .flat_map(|edge| [&edge.source, &edge.destination])
            .collect();
        all.into_iter().collect()
    };
    let index: BTreeMap<&Node, usize> = nodes.iter().enumerate().map(|(n, node)| (*node, n)).collect();
    let boxes: Vec<layout::Node> = nodes
        .iter()
        .map(|node| {
            let looping = list
                .edges
                .iter()
                .filter(|edge| edge.source == edge.destination && edge.source == **node);
            let looping = looping
                .map(|edge| width(&label(edge), NOTE) + 54.0)
                .fold(0.0, f64::max);
            let (name, note) = words(node);
            layout::Node {
                width: (width(&name, NAME).max(width(&note, NOTE)) + 28.0).max(looping),
            }
        })
        .collect();
    let links: Vec<layout::Link> = list
        .edges
        .iter()
        .map(|edge| layout::Link {
            from: index[&edge.source],
            to: index[&edge.destination],
            width: width(&label(edge), NOTE),
        })
        .collect();
    let placed = layout::of(&boxes, &links);
    let (w, h) = (
        placed.width.max(LEAST_WIDTH),
        placed.height.max(40.0) + HEAD + LEGEND,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" viewBox=\"0 0 {w:.0} {h:.0}\" \
         role=\"img\" aria-label=\"Who talks to whom\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{w:.0}\" height=\"{h:.0}\" rx=\"8\" fill=\"#ffffff\"/>\n"
    );
    head(list, &mut svg);
    svg.push_str(&format!(
        "<g transform=\"translate({:.0} {HEAD:.0})\">\n",
        ((w - placed.width) / 2.0).floor()
    ));
    // The widest first, so that it hides no other.
    let mut lines: Vec<(&Edge, &Line)> = list.edges.iter().zip(&placed.lines).collect();
    lines.sort_by(|a, b| stroke(list, b.0).total_cmp(&stroke(list, a.0)));
    for (edge, line) in &lines {
        path(edge, line, stroke(list, edge), &mut svg);
    }
    for (node, rect) in nodes.iter().zip(&placed.nodes) {
        frame(node, *rect, &mut svg);
    }
    for (edge, line) in list.edges.iter().zip(&placed.lines) {
        label_at(edge, line, &placed.nodes[index[&edge.source]], &mut svg);
    }
    svg.push_str("</g>\n");
    legend(h - LEGEND + 18.0, &mut svg);
    svg + "</svg>\n"
}

fn head(list: &EdgeList, svg: &mut String) {
    text(
        (24.0, 32.0),
        "name",
        17.0,
        "start",
        "Who talks to whom",
        true,
        svg,
    );
    let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "now".to_owned());
    let note = match list.edges.is_empty() {
        true => "no connection is remembered".to_owned(),
        false => format!(
            "{} connections seen, {} to {}",
            list.flows,
            time(&list.from),
            time(&list.until)
        ),
    };
    text((24.0, 51.0), "note", NOTE, "start", &note, false, svg);
}

fn legend(y: f64, svg: &mut String) {
    let mut x = 24.0;
    for (class, dashes, words) in [
        ("s", "", "mutual TLS"),
        ("p", "7 4", "plaintext, and why"),
        ("d", "2 4", "nothing came through"),
    ] {
        let (colour, dash) = (colour(class), dash(dashes));
        svg.push_str(&format!(
            "<path class=\"{class}\" d=\"M{x:.1} {:.1}h34\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n",
            y - 4.0
        ));
        text((x + 42.0, y), "note", NOTE, "start", words, false, svg);
        x += 42.0 + width(words, NOTE) + 28.0;
    }
    let words = "×N: connections; wider lines: more bytes a second; dashed boxes: outside the mesh";
    text((24.0, y + 19.0), "note", NOTE, "start", words, false, svg);
}

/// Name, and what it is.
fn words(node: &Node) -> (String, String) {
    let pods = match node.pods.len() {
        0 => String::new(),
        1 => ", 1 pod".to_owned(),
        n => format!(", {n} pods"),
    };
    let (name, note) = match &*node.kind {
        "workload" => match node.name.rsplit_once('/') {
            Some((namespace, name)) => (name.to_owned(), format!("{namespace}{pods}")),
            None => (node.name.clone(), format!("workload{pods}")),
        },
        "service" => (node.name.clone(), "service".to_owned()),
        "strangers" => (node.name.clone(), "not let in".to_owned()),
        _ => (node.name.clone(), "outside the mesh".to_owned()),
    };
    let (name, note) = (printable(&name), printable(&note));
    (cut(&name), cut(&note))
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        None => name.to_owned(),
        Some(_) => name.chars().take(LONGEST_NAME - 1).collect::<String>() + "…",
    }
}

fn label(edge: &Edge) -> String {
    let port = edge.port.map_or_else(String::new, |port| format!(":{port} "));
    let security = match edge.is_down() {
        // What failed says more than what was not secured.
        true if !edge.secured => String::new(),
        _ => edge.security() + " ",
    };
    match edge.trouble() {
        Some(trouble) => format!("{port}{security}{trouble}"),
        None => format!("{port}{security}×{}", edge.connections),
    }
}

fn class(edge: &Edge) -> &'static str {
    match (edge.is_down(), edge.secured) {
        (true, _) => "d",
        (_, true) => "s",
        _ => "p",
    }
}

fn colour(class: &str) -> &'static str {
    match class {
        "s" => "#1a7f37",
        "p" => "#9a5b00",
        _ => "#cf222e",
    }
}

fn dash(dashes: &str) -> String {
    match dashes {
        "" => String::new(),
        dashes => format!(" stroke-dasharray=\"{dashes}\""),
    }
}

/// By bytes a second: a kilobyte is hardly more than nothing, a gigabyte the widest.
fn stroke(list: &EdgeList, edge: &Edge) -> f64 {
    let time = |time: &Option<String>| humantime::parse_rfc3339(time.as_deref()?).ok();
    let both = time(&list.from).zip(time(&list.until));
    let seconds = both.and_then(|(from, until)| until.duration_since(from).ok());
    let seconds = seconds.map_or(1.0, |window| window.as_secs_f64().max(1.0));
    let rate = (edge.bytes_sent + edge.bytes_received) as f64 / seconds;
    (1.5 + 0.75 * (1.0 + rate / 1_000.0).log10()).min(6.0)
}

fn path(edge: &Edge, line: &Line, stroke: f64, svg: &mut String) {
    let class = class(edge);
    let dashes = dash(match class {
        "s" => "",
        "p" => "7 4",
        _ => "2 4",
    });
    let arrow = 5.0 + stroke;
    let (d, tip, way) = match line {
        Line::Across { points, to_left } => {
            let way = if *to_left { -1.0 } else { 1.0 };
            let mut d = String::new();
            for (n, (x, y)) in points.iter().enumerate() {
                let end = if n + 1 == points.len() { arrow * way } else { 0.0 };
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
            let tip = points.last().copied().unwrap_or_default();
            (d, tip, Some(way))
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
    let (colour, (x, y), half) = (colour(class), tip, arrow * 0.55);
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
    let title = escaped(&format!(
        "{} to {}{}: {}, {} connections, {} sent, {} received",
        edge.source.name,
        edge.destination.name,
        edge.service
            .as_ref()
            .map(|service| format!(" ({service})"))
            .unwrap_or_default(),
        edge.security(),
        edge.connections,
        size(edge.bytes_sent),
        size(edge.bytes_received)
    ));
    svg.push_str(&format!(
        "<g><title>{title}</title><path class=\"{class}\" d=\"{d}\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"{stroke:.1}\"{dashes}/><path class=\"f{class}\" d=\"{head}\" fill=\"{colour}\"/></g>\n"
    ));
}

fn frame(node: &Node, rect: Rect, svg: &mut String) {
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
    let (name, note) = words(node);
    let (middle, at) = (x + width / 2.0, y + height / 2.0);
    text((middle, at - 2.0), "name", NAME, "middle", &name, true, svg);
    text((middle, at + 14.0), "note", NOTE, "middle", &note, false, svg);
}

fn label_at(edge: &Edge, line: &Line, node: &Rect, svg: &mut String) {
    let (at, anchor) = match line {
        Line::Across { points, to_left } => {
            let (x, y) = points.last().copied().unwrap_or_default();
            match to_left {
                true => ((x + 16.0, y - 5.0), "start"),
                false => ((x - 16.0, y - 5.0), "end"),
            }
        }
        Line::Loop { from, height, .. } => ((node.x + 2.0, from.1 - height + 8.0), "start"),
    };
    let class = class(edge);
    // What is in order is grey, so that the rest is seen.
    let class = match (class, edge.failures.is_empty()) {
        ("s", true) => "note",
        ("s", false) => "fd",
        ("p", _) => "fp",
        _ => "fd",
    };
    text(at, class, NOTE, anchor, &label(edge), false, svg);
}

fn text(at: (f64, f64), class: &str, size: f64, anchor: &str, words: &str, bold: bool, svg: &mut String) {
    let fill = match class {
        "name" => "#1f2328",
        "note" => "#59636e",
        "fp" => "#9a5b00",
        _ => "#cf222e",
    };
    let bold = if bold { " font-weight=\"600\"" } else { "" };
    svg.push_str(&format!(
        "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{fill}\"{bold} \
         font-family=\"Inter,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif\">{}</text>\n",
        at.0,
        at.1,
        escaped(words)
    ));
}

/// Not less than it takes in the widest of the fonts, at the size of one.
fn width(words: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '\'' | '|' => 0.32,
        '.' | ',' | ':' | ';' | '/' | ' ' | '-' | '!' | '(' | ')' | '[' | ']' | 'f' | 'r' | 't' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 1.0,
        c if c.is_ascii_uppercase() => 0.76,
        c if c.is_ascii() => 0.65,
        _ => 1.0,
    };
    words.chars().map(of).sum::<f64>() * size
}

/// As text and as the value of an attribute. XML 1.0 has no control characters at all.
fn escaped(words: &str) -> String {
    let text = printable(words);
    let is_character = |c: &char| !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut escaped = String::new();
    for c in text.chars().filter(is_character) {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
