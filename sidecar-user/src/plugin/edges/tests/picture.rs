//! What a picture shows, and that nothing in it lies on something else.

use super::super::svg;
use super::{forty, graph_of, three, twelve};

/// What a picture has, by its own numbers.
#[derive(Debug)]
struct Drawn {
    boxes: Vec<(f64, f64, f64, f64)>,
    words: Vec<(String, (f64, f64, f64, f64))>,
    size: (f64, f64),
}

fn attribute(element: &str, name: &str) -> f64 {
    let (_, rest) = element
        .split_once(&format!(" {name}=\""))
        .unwrap_or_else(|| panic!("{name}: {element}"));
    rest.split('"').next().unwrap().parse().unwrap()
}

fn drawn(svg: &str) -> Drawn {
    let whole = svg;
    let graph = svg.split_once("<g transform").unwrap().1;
    let graph = graph.rsplit_once("</g>").unwrap().0;
    let of = |kind: &str| -> Vec<String> {
        let starts = graph.match_indices(kind).map(|(at, _)| at);
        starts
            .map(|at| {
                graph[at..]
                    .split_once('\n')
                    .map_or(&graph[at..], |(line, _)| line)
                    .to_owned()
            })
            .collect()
    };
    let (rects, texts) = (of("<rect "), of("<text "));
    let boxes = rects.iter().map(|rect| {
        let [x, y, w, h] = ["x", "y", "width", "height"].map(|name| attribute(rect, name));
        (x, y, x + w, y + h)
    });
    let words = texts
        .iter()
        .filter(|text| !text.contains("\"middle\""))
        .map(|text| {
            let said = text
                .split_once('>')
                .unwrap()
                .1
                .split('<')
                .next()
                .unwrap()
                .to_owned();
            let (x, y) = (attribute(text, "x"), attribute(text, "y"));
            // Half an em for a letter is the average of most fonts.
            let width = said.chars().count() as f64 * 5.5;
            let left = if text.contains("\"end\"") { x - width } else { x };
            (said, (left, y - 8.0, left + width, y + 2.0))
        });
    Drawn {
        boxes: boxes.collect(),
        words: words.collect(),
        size: (attribute(whole, "width"), attribute(whole, "height")),
    }
}

fn meet(a: (f64, f64, f64, f64), b: (f64, f64, f64, f64)) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

#[test]
fn in_no_picture_does_anything_lie_on_something_else() {
    for (name, list) in [("three", three()), ("twelve", twelve()), ("forty", forty())] {
        let svg = svg::picture(&list);
        if let Some(dir) = std::env::var_os("OUTRIGGER_PICTURES") {
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.svg")), &svg).unwrap();
        }
        assert_eq!(svg, svg::picture(&list), "{name}: the same flows, the same bytes");
        let drawn = drawn(&svg);
        assert!(drawn.size.0 >= 720.0, "{name}: room for the legend");
        let explained = list.edges.iter().filter(|edge| !edge.secured || edge.failed > 0);
        assert_eq!(
            drawn.words.len(),
            list.edges.len() + explained.count(),
            "{name}: each edge has its words, and more where something is wrong"
        );
        assert_eq!(
            svg.matches("<path class=\"under\"").count(),
            list.edges.len(),
            "{name}: and an arrow"
        );
        let things: Vec<(String, (f64, f64, f64, f64))> = drawn
            .boxes
            .iter()
            .map(|rect| (format!("box {rect:?}"), *rect))
            .chain(drawn.words.clone())
            .collect();
        for (n, (a, at)) in things.iter().enumerate() {
            assert!(
                at.0 >= 0.0 && at.2 <= drawn.size.0 && at.3 <= drawn.size.1,
                "{name}: {a} is outside"
            );
            for (b, other) in &things[n + 1..] {
                assert!(!meet(*at, *other), "{name}: {a} {at:?} meets {b} {other:?}");
            }
        }
    }
}

#[test]
fn a_picture_of_nothing_says_so() {
    let svg = svg::picture(&graph_of(&[]));
    assert!(
        svg.contains("no connection is remembered") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
}

#[test]
fn lines_show_what_is_secured_what_is_not_and_what_failed() {
    let svg = svg::picture(&twelve());
    let line_of = |title: &str| {
        let at = svg
            .find(&format!("<title>{title}"))
            .unwrap_or_else(|| panic!("{title}"));
        svg[at..].lines().next().unwrap().to_owned()
    };
    let secured = line_of("shop/frontend to shop/cart");
    assert!(
        secured.contains("class=\"s\"") && !secured.contains("dasharray"),
        "{secured}"
    );
    let plain = line_of("shop/cart to shop/redis");
    assert!(
        plain.contains("class=\"p\"") && plain.contains("stroke-dasharray=\"7 4\""),
        "{plain}"
    );
    let failed = line_of("shop/checkout to shop/payment");
    assert!(
        failed.contains("class=\"d\"") && failed.contains("stroke=\"#cf222e\""),
        "{failed}"
    );
    // A thousand times the bytes make a wider line.
    let width = |line: &str| attribute(line, "stroke-width");
    assert!(width(&secured) > width(&line_of("shop/frontend to shop/currency")) + 1.0);
    for words in [
        "shop: who talks to whom",
        // Sixty connections in ten minutes.
        ":7070 0.1/s 6.4MiB/s",
        ":5432 ×1 5.1KiB/s",
        "plaintext: no sidecar there",
        "failed: wrong identity",
        "1 of 2 failed: connection refused",
        "77 connections, 93 % by mutual TLS, 4 failed, 2026-01-31 12:00:00 to 12:10:00 UTC",
    ] {
        assert!(svg.contains(&format!(">{words}<")), "{words}");
    }
}
