//! The graph as text for Graphviz. Lays nothing out.

use std::collections::BTreeSet;

use super::super::columns::printable;
use super::super::words::{rate, short_time};
use super::graph::{Edge, EdgeList, Node};

pub(super) fn text(list: &EdgeList) -> String {
    let mut text = String::from(
        "digraph outrigger {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n  \
         edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    let nodes: BTreeSet<&Node> = list
        .edges
        .iter()
        .flat_map(|edge| [&edge.source, &edge.destination])
        .collect();
    for node in nodes {
        let style = match &*node.kind {
            "workload" => "",
            _ => ", style=\"rounded,dashed\"",
        };
        text.push_str(&format!(
            "  {} [label={}{style}];\n",
            quoted(&node.name),
            quoted(&node.name)
        ));
    }
    for edge in &list.edges {
        let (from, to) = (quoted(&edge.source.name), quoted(&edge.destination.name));
        text.push_str(&format!(
            "  {from} -> {to} [label={}, {}];\n",
            quoted(&label(edge)),
            style(edge)
        ));
    }
    text + "}\n"
}

fn label(edge: &Edge) -> String {
    let port = edge.port.map_or_else(String::new, |port| format!(":{port} "));
    let mut label = format!("{port}{}\n{} connections", edge.security(), edge.connections);
    for (name, what) in [
        ("/s", edge.connections_per_second.map(rate)),
        (" RTT", edge.rtt_median_seconds.map(short_time)),
    ] {
        if let Some(what) = what {
            label.push_str(&format!(", {what}{name}"));
        }
    }
    if let Some(trouble) = edge.trouble() {
        label.push('\n');
        label.push_str(&trouble);
    }
    label
}

fn style(edge: &Edge) -> &'static str {
    match (edge.is_down(), edge.secured) {
        (true, _) => "style=dotted, color=\"#cf222e\", fontcolor=\"#cf222e\"",
        (_, true) => "style=solid, color=\"#1a7f37\"",
        _ => "style=dashed, color=\"#b35900\", fontcolor=\"#b35900\"",
    }
}

/// A string of the language: `\n` breaks the line, and a backslash of a name is no escape.
fn quoted(name: &str) -> String {
    let lines: Vec<String> = name
        .split('\n')
        .map(|line| printable(line).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}
