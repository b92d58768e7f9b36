//! Edges from flows, and what is drawn of them. Pictures are read back: nothing in them may lie on something else.

mod picture;

use std::collections::BTreeSet;

use super::super::golden;
use super::*;
use crate::observe::{FlowReport, LegReport, TlsReport};

/// A flow as its report: who, to whom, and how it went.
#[derive(Clone, Copy)]
struct Talk<'a> {
    outbound: bool,
    from: &'a str,
    to: &'a str,
    port: u16,
    bytes: u64,
    end: &'a str,
}

/// `from` and `to` are `namespace/account`, or addresses. `end` is a cause, or `open`.
fn flow(talk: &Talk<'_>) -> FlowReport {
    let identity = |name: &str| {
        name.contains('/').then(|| {
            let (namespace, account) = name.split_once('/').unwrap();
            format!("spiffe://td.test/ns/{namespace}/sa/{account}")
        })
    };
    let (source, destination) = (identity(talk.from), identity(talk.to));
    let mesh = source.is_some() && destination.is_some() && talk.port != 5432;
    let host = |name: &str| {
        if name.contains('/') {
            "10.0.0.9".to_owned()
        } else {
            name.to_owned()
        }
    };
    let is_open = talk.end == "open";
    let came_up = ["open", "eof", "reset"].contains(&talk.end);
    let json = serde_json::json!({
        "id": 1, "state": if is_open { "open" } else { "closed" },
        "direction": if talk.outbound { "outbound" } else { "inbound" },
        "standing": match (talk.outbound, &source, came_up) {
            (true, ..) => "own",
            (_, Some(_), _) => "proven",
            (_, None, true) => "plaintext",
            _ => "stranger",
        },
        "opened": "2026-01-31T12:00:00.000Z",
        "closed": (!is_open).then_some("2026-01-31T12:10:00.000Z"),
        "closedBy": (!is_open).then_some(if talk.end == "denied" { "policy" } else { "upstream" }),
        "closeCause": (!is_open).then_some(talk.end),
        "ageSeconds": 600.0,
        "client": format!("{}:4000", host(talk.from)),
        "originalDst": format!("{}:{}", host(talk.to), talk.port), "chosenDst": format!("{}:{}", host(talk.to), talk.port),
        "service": (talk.outbound && talk.to.contains('/')).then(|| format!("{}.svc", talk.to)),
        "sourceIdentity": source, "destinationIdentity": destination,
        "transport": if mesh { "hbone" } else { "plain" },
        "tls": null, "connectSeconds": null, "handshakeSeconds": null,
        "tcp": {"client": leg((!talk.outbound).then_some(0.0015)), "upstream": leg(talk.outbound.then_some(0.0015))},
        "bytesSent": talk.bytes / 4, "bytesReceived": talk.bytes - talk.bytes / 4,
    });
    let mut report: FlowReport = serde_json::from_value(json).unwrap();
    if mesh && came_up {
        report.tls = Some(TlsReport {
            version: "TLSv1.3".into(),
            cipher: "TLS13_AES_128_GCM_SHA256".into(),
            key_exchange: "X25519MLKEM768".into(),
            reused_tunnel: false,
        });
    }
    report
}

/// What the kernel says of a connection with such a round trip time.
fn leg(rtt: Option<f64>) -> Option<serde_json::Value> {
    let mut leg = serde_json::to_value(LegReport::default()).unwrap();
    leg["rttSeconds"] = rtt?.into();
    Some(leg)
}

fn talk<'a>(from: &'a str, to: &'a str, port: u16, bytes: u64, end: &'a str) -> Talk<'a> {
    Talk {
        outbound: from.contains('/'),
        from,
        to,
        port,
        bytes,
        end,
    }
}

fn graph_of(talks: &[Talk<'_>]) -> EdgeList {
    let closed = talks.iter().map(flow).collect();
    let list = FlowList {
        closed,
        ..FlowList::default()
    };
    graph::of(&list, None)
}

fn three() -> EdgeList {
    graph_of(&[
        talk("demo/client", "demo/web", 8080, 5 << 20, "eof"),
        talk("demo/client", "demo/web", 8080, 5 << 20, "open"),
        talk("demo/web", "demo/db", 5432, 90_000, "eof"),
        talk("demo/web", "203.0.113.7", 443, 2_000, "eof"),
    ])
}

fn twelve() -> EdgeList {
    let often = std::iter::repeat_n(talk("shop/frontend", "shop/cart", 7070, 64 << 20, "eof"), 60);
    let others = [
        talk("shop/frontend", "shop/catalog", 3550, 90 << 20, "eof"),
        talk("shop/frontend", "shop/catalog", 3550, 0, "connection_refused"),
        talk("shop/frontend", "shop/currency", 7000, 1 << 20, "eof"),
        talk("shop/frontend", "shop/checkout", 5050, 9 << 20, "eof"),
        talk("shop/frontend", "shop/ads", 9555, 3 << 20, "eof"),
        talk("shop/checkout", "shop/cart", 7070, 2 << 20, "eof"),
        talk("shop/checkout", "shop/payment", 50051, 0, "wrong_identity"),
        talk("shop/checkout", "shop/email", 8080, 40_000, "eof"),
        talk("shop/checkout", "shop/currency", 7000, 40_000, "eof"),
        talk("shop/checkout", "shop/shipping", 50051, 40_000, "eof"),
        talk("shop/cart", "shop/redis", 5432, 3 << 20, "eof"),
        // A circle, both ways between two, and one that talks to itself.
        talk("shop/shipping", "shop/frontend", 8080, 7_000, "eof"),
        talk("shop/email", "shop/checkout", 5050, 7_000, "eof"),
        talk("shop/redis", "shop/redis", 16379, 90 << 20, "eof"),
        talk("shop/redis", "shop/redis", 6379, 0, "denied"),
        talk("192.0.2.14", "shop/frontend", 8080, 9 << 20, "eof"),
        talk("198.51.100.1", "shop/frontend", 8080, 0, "denied"),
    ];
    graph_of(&often.chain(others).collect::<Vec<_>>())
}

/// Five tiers of eight, each of which talks to the next one or two, and now and then to one before.
fn forty() -> EdgeList {
    let mut random = fastrand::Rng::with_seed(7);
    let name = |n: usize| format!("tier-{}/service-{n:02}", n / 8);
    let names: Vec<String> = (0..40).map(name).collect();
    let mut talks = Vec::new();
    for n in 0..40_usize {
        for _ in 0..random.usize(1..3) {
            let tier = match random.u8(..12) {
                0 => (n / 8).saturating_sub(1),
                1..3 => n / 8 + 2,
                _ => n / 8 + 1,
            };
            let to = tier.min(4) * 8 + random.usize(..8);
            let port = [8080, 9090, 5432][random.usize(..3)];
            let (end, bytes) = match random.u8(..6) {
                0 => ("denied", 0),
                _ => ("eof", 1 << random.u32(8..34)),
            };
            talks.push(talk(&names[n], &names[to], port, bytes, end));
        }
    }
    graph_of(&talks)
}

fn said(edge: &Edge) -> String {
    let row: Vec<String> = row(edge).into_iter().map(|cell| cell.text).collect();
    row.join(" ")
}

fn screen(width: Option<usize>) -> Screen {
    Screen {
        width,
        ..Screen::default()
    }
}

#[test]
fn an_edge_says_how_much_went_over_it_and_why_it_is_not_secured() {
    let list = three();
    let said: Vec<String> = list.edges.iter().map(said).collect();
    assert_eq!(
        said,
        [
            "demo/client demo/web demo/web.svc 8080 mTLS 1.3 0 <0.01 1.5ms 17.1KiB 2 2.5MiB 7.5MiB",
            "demo/web 203.0.113.7 - 443 plaintext: not in the registry 0 <0.01 1.5ms 3B 1 500B 1.5KiB",
            "demo/web demo/db demo/db.svc 5432 plaintext: no sidecar there 0 <0.01 1.5ms 150B 1 22.0KiB 65.9KiB",
        ]
    );
    assert_eq!((list.flows, list.edges[0].open), (4, 1));
    let failed = twelve();
    let trouble: Vec<String> = failed.edges.iter().filter_map(Edge::trouble).collect();
    let told = [
        "failed: wrong identity",
        "1 of 2 failed: connection refused",
        "failed: denied",
        "failed: denied",
    ];
    assert_eq!(trouble, told);
}

#[test]
fn a_connection_that_both_ends_tell_of_counts_once() {
    let seen = talk("demo/a", "demo/b", 80, 1000, "eof");
    let other_end = Talk {
        outbound: false,
        ..seen
    };
    let list = graph_of(&[
        talk("demo/a", "demo/b", 80, 1000, "eof"),
        talk("demo/a", "demo/b", 80, 0, "timed_out"),
        other_end,
    ]);
    assert_eq!(list.edges.len(), 1);
    let edge = &list.edges[0];
    assert_eq!((edge.connections, edge.failed, edge.bytes_sent), (2, 1, 250));
}

/// Refused by the client's own proxy, which found no endpoint.
fn undialled(from: &str, to: &str, port: u16) -> FlowReport {
    let mut flow = flow(&talk(from, to, port, 0, "no_endpoint"));
    flow.closed_by = Some("us".into());
    flow.transport = "plain".into();
    flow.chosen_dst = None;
    flow.destination_identity = None;
    flow
}

#[test]
fn what_found_no_endpoint_belongs_to_those_that_did_and_is_no_plaintext() {
    let up = talk("demo/a", "demo/web", 8080, 1000, "eof");
    // The Service's port is another one than its pods'.
    let closed = vec![
        flow(&up),
        undialled("demo/a", "demo/web", 80),
        undialled("demo/a", "demo/gone", 80),
    ];
    let list = FlowList {
        closed,
        ..FlowList::default()
    };
    let list = graph::of(&list, None);
    let told: Vec<_> = list
        .edges
        .iter()
        .map(|edge| {
            (
                &*edge.destination.name,
                edge.port,
                edge.connections,
                edge.failed,
                edge.security(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("demo/gone.svc", Some(80), 1, 1, "nobody was dialled".to_owned()),
            ("demo/web", Some(8080), 2, 1, "mTLS 1.3".to_owned()),
        ]
    );
    assert!(list.edges[0].is_down());
}

#[test]
fn a_pod_without_a_sidecar_is_known_by_its_name() {
    let mut list = graph_of(&[
        talk("192.0.2.14", "demo/web", 80, 10, "eof"),
        talk("192.0.2.15", "demo/web", 80, 10, "eof"),
    ]);
    list.name_pods(&[("192.0.2.14".parse().unwrap(), "demo/old-0".to_owned())].into());
    let sources: Vec<_> = list
        .edges
        .iter()
        .map(|edge| (&*edge.source.name, &*edge.source.kind))
        .collect();
    assert_eq!(sources, [("demo/old-0", "pod"), ("192.0.2.15", "address")]);
    let svg = svg::picture(&list);
    assert!(svg.contains(">old-0<") && !svg.contains("192.0.2.14"), "{svg}");
}

#[test]
fn many_addresses_are_one_node_and_strangers_another() {
    let addresses: Vec<String> = (0..60).map(|n| format!("192.0.2.{n}")).collect();
    let mut talks: Vec<Talk<'_>> = addresses
        .iter()
        .map(|from| talk(from, "demo/web", 80, 10, "eof"))
        .collect();
    talks.extend(
        addresses
            .iter()
            .map(|from| talk(from, "demo/web", 80, 0, "denied")),
    );
    let list = graph_of(&talks);
    let names: BTreeSet<&str> = list.edges.iter().map(|edge| &*edge.source.name).collect();
    assert_eq!(names.len(), 16 + 2, "{names:?}");
    let of = |name: &str| {
        list.edges
            .iter()
            .find(|edge| edge.source.name == name)
            .unwrap()
            .connections
    };
    assert_eq!((of("other addresses"), of("strangers")), (44, 60));
}

#[test]
fn tables_fit_eighty_columns_and_use_two_hundred() {
    let list = twelve();
    for room in [80, 200] {
        golden::same(&format!("edges-{room}"), &table(&list, &screen(Some(room)), true));
    }
    for room in [80, 120, 200] {
        let text = table(&list, &screen(Some(room)), true);
        assert_eq!(text.lines().count(), list.edges.len() + 1);
        assert!(
            text.lines().all(|line| line.chars().count() <= room),
            "{room}: {text}"
        );
        assert!(
            text.contains("SECURED") && text.contains("shop/frontend"),
            "{text}"
        );
    }
    assert!(table(&list, &screen(Some(200)), true).contains("RECV"));
    assert!(table(&list, &screen(None), false).starts_with("192.0.2.14"));
}

#[test]
fn graphviz_gets_a_node_for_each_end_and_an_edge_for_each_edge() {
    let text = dot::text(&three());
    assert!(text.starts_with("digraph outrigger {\n  rankdir=LR;\n"), "{text}");
    for line in [
        "  \"203.0.113.7\" [label=\"203.0.113.7\", style=\"rounded,dashed\"];\n",
        "  \"demo/web\" [label=\"demo/web\"];\n",
        "  \"demo/client\" -> \"demo/web\" [label=\":8080 mTLS 1.3\\n2 connections, <0.01/s, 1.5ms RTT\", style=solid, color=\"#1a7f37\"];\n",
        "  \"demo/web\" -> \"demo/db\" [label=\":5432 plaintext: no sidecar there\\n1 connections, <0.01/s, 1.5ms RTT\", style=dashed, \
         color=\"#b35900\", fontcolor=\"#b35900\"];\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert_eq!(text.matches(" -> ").count(), 3);
}

#[test]
fn names_break_neither_text_nor_picture() {
    let mut list = three();
    let evil = "a\"]; x [\\n<script>&\u{1b}[31m'\u{ffff}";
    list.edges[0].source.name = evil.into();
    list.edges[0].service = Some(evil.into());
    let text = dot::text(&list);
    assert!(text.contains("\"a\\\"]; x [\\\\n<script>&?[31m"), "{text}");
    let svg = svg::picture(&list);
    assert!(svg.contains("a&quot;]; x [\\n&lt;script&gt;&amp;?[31m'"), "{svg}");
    assert!(!svg.contains("<script") && !svg.contains('\u{1b}') && !svg.contains('\u{ffff}'));
}
