//! The view against events in time, keys and a screen, without a terminal: what is added up, what is drawn, and how much work that is.

use allocation_counter::measure;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::super::golden;
use super::app::Next;
use super::draw::draw;
use super::model::{Model, Row};
use super::*;
use crate::observe::{FlowReport, WatchEvent};

/// A flow of `demo/client` to `demo/NAME`, opened so many seconds after the view began.
fn flow(name: &str, id: u64, opened: f64) -> FlowReport {
    let second = (opened as u64).min(59);
    serde_json::from_value(serde_json::json!({
        "pod": "demo/client-0", "id": id, "state": "open", "direction": "outbound", "standing": "own",
        "opened": format!("2026-01-31T12:00:{second:02}.{:03}Z", id % 1000), "closed": null, "closedBy": null, "closeCause": null,
        "ageSeconds": 0.0, "client": "10.0.0.5:40000", "originalDst": "10.96.0.10:80", "chosenDst": "10.0.0.9:8080",
        "service": format!("demo/{name}.svc"), "sourceIdentity": "spiffe://td.test/ns/demo/sa/client",
        "destinationIdentity": format!("spiffe://td.test/ns/demo/sa/{name}"), "transport": "hbone",
        "tls": {"version": "TLSv1.3", "cipher": "c", "keyExchange": "k", "reusedTunnel": false},
        "connectSeconds": 0.001, "handshakeSeconds": null, "bytesSent": 0, "bytesReceived": 0
    }))
    .unwrap()
}

fn moved(mut flow: FlowReport, sent: u64, received: u64, age: f64) -> FlowReport {
    (flow.bytes_sent, flow.bytes_received, flow.age_seconds) = (sent, received, age);
    flow
}

fn ended(mut flow: FlowReport, cause: &'static str, age: f64) -> WatchEvent {
    flow.state = "closed".into();
    flow.closed = Some(flow.opened.replace('Z', "9Z"));
    (flow.close_cause, flow.closed_by) = (Some(cause.into()), Some("upstream".into()));
    flow.age_seconds = age;
    WatchEvent::Closed { flow }
}

fn opened(flow: FlowReport) -> WatchEvent {
    WatchEvent::Opened { flow }
}

/// A view that has been told of one flow that was open before it.
fn begun() -> Model {
    let mut model = Model::default();
    model.event(
        0,
        opened(moved(flow("web", 1, 0.0), 1 << 30, 1 << 30, 3_600.0)),
        0.0,
    );
    model
}

fn row(model: &Model, name: &str, now: f64) -> Row {
    let rows = model.rows(now);
    let of = rows.iter().filter(|row| row.destination.starts_with(name));
    let found: Vec<&Row> = of.collect();
    assert_eq!(found.len(), 1, "{name}: {rows:?}");
    found[0].clone()
}

#[test]
fn what_was_open_before_brings_no_rates_and_what_it_moves_from_then_on_does() {
    let mut model = begun();
    let seen = row(&model, "demo/web:8080", 1.0);
    assert_eq!((seen.open, seen.connections, seen.rates.bytes()), (1, 0, 0.0));
    let later = moved(flow("web", 1, 0.0), (1 << 30) + 1_000, (1 << 30) + 9_000, 3_602.0);
    model.open_flows(0, vec![later.clone()], true, 2.0);
    let seen = row(&model, "demo/web:8080", 2.0);
    assert_eq!((seen.rates.sent, seen.rates.received), (500.0, 4_500.0));
    assert_eq!((&*seen.security, seen.is_secured), ("mTLS 1.3", true));
    let last = moved(later, (1 << 30) + 2_000, (1 << 30) + 9_000, 0.0);
    model.event(0, ended(last, "eof", 3_603.0), 4.0);
    let seen = row(&model, "demo/web", 4.0);
    assert_eq!((seen.open, seen.rates.sent, seen.failed), (0, 500.0, 0));
    assert_eq!(row(&model, "demo/web", 30.0).rates.bytes(), 0.0, "a window later");
}

#[test]
fn connections_a_second_are_those_that_open_and_each_counts_once() {
    let mut model = begun();
    for n in 0..20 {
        let new = flow("db", 10 + n, 1.0);
        model.event(0, opened(new.clone()), 1.5);
        // The list may tell of it as well.
        model.open_flows(0, vec![moved(new.clone(), 10, 0, 0.2)], false, 1.6);
        model.event(0, ended(moved(new, 100, 0, 0.0), "eof", 0.5), 1.9);
    }
    let seen = row(&model, "demo/db", 4.0);
    assert_eq!((seen.open, seen.connections), (0, 20));
    assert_eq!((seen.rates.connections, seen.rates.sent), (5.0, 500.0));
}

#[test]
fn a_connection_that_both_ends_tell_of_counts_once() {
    let mut model = begun();
    let new = flow("db", 10, 1.0);
    let mut other = new.clone();
    (other.pod, other.direction, other.standing) =
        (Some("demo/db-0".into()), "inbound".into(), "proven".into());
    // The server is on a node that is asked as well.
    model.event(1, opened(moved(other.clone(), 0, 0, 9.0)), 0.5);
    model.event(0, opened(new), 2.0);
    let seen = row(&model, "demo/db", 3.0);
    assert_eq!((seen.open, seen.connections), (1, 1));
}

#[test]
fn failures_are_told_with_their_causes_and_stand_in_the_detail() {
    let mut model = begun();
    for (n, cause) in ["denied", "denied", "timed_out"].into_iter().enumerate() {
        model.event(0, ended(flow("db", 10 + n as u64, 3.0), cause, 0.001), 3.0);
    }
    let seen = row(&model, "demo/db", 5.0);
    assert_eq!((seen.failed, seen.connections, seen.rates.failed), (3, 3, 0.6));
    let most = &seen.failures[0];
    assert_eq!((&*most.0, most.2), ("denied", 2));
    assert_eq!(seen.last_failure.as_ref().unwrap().0, "timed_out");
    // A flood of others does not push them out.
    for n in 0..3_000 {
        model.event(0, ended(flow("db", 100 + n, 4.0), "eof", 0.001), 4.0);
    }
    let flows = model.flows(&seen.pair);
    let failed = flows
        .iter()
        .filter(|flow| flow.close_cause.as_deref() != Some("eof"));
    assert_eq!(
        (failed.count(), flows.len()),
        (3, 1_003),
        "and what is kept has a bound"
    );
}

#[test]
fn what_never_came_up_did_not_go_in_plaintext() {
    let mut model = begun();
    let mut plain = flow("db", 10, 3.0);
    (plain.tls, plain.transport) = (None, "plain".into());
    let security = |model: &Model| order::cells(&row(model, "demo/db", 5.0))[2].text.clone();
    model.event(0, ended(plain.clone(), "denied", 0.001), 3.0);
    assert_eq!(security(&model), "-");
    plain.id = 11;
    model.event(0, ended(plain, "eof", 0.001), 4.0);
    assert_eq!(security(&model), "plaintext");
}

#[test]
fn a_flow_whose_end_was_not_told_goes_when_two_whole_lists_do_not_have_it() {
    let mut model = begun();
    let open = |model: &Model| model.rows(9.0).iter().map(|row| row.open).sum::<u64>();
    model.open_flows(0, vec![], false, 2.0);
    model.open_flows(0, vec![], false, 4.0);
    assert_eq!(open(&model), 1, "a list that is cut says nothing");
    model.open_flows(0, vec![], true, 6.0);
    assert_eq!(open(&model), 1, "the list may be older than the flow");
    model.open_flows(1, vec![], true, 7.0);
    assert_eq!(open(&model), 1, "of another node");
    model.open_flows(0, vec![], true, 8.0);
    assert_eq!(open(&model), 0);
    model.open_flows(0, vec![], true, 400.0);
    assert!(model.rows(400.0).is_empty(), "and a pair that is silent goes");
}

#[test]
fn what_is_open_when_a_node_comes_back_is_not_new() {
    let mut model = begun();
    model.lost(0);
    assert_eq!(row(&model, "demo/web", 60.0).open, 0);
    model.event(0, opened(moved(flow("db", 9, 30.0), 5, 5, 20.0)), 60.0);
    let seen = row(&model, "demo/db", 61.0);
    assert_eq!((seen.open, seen.connections, seen.rates.bytes()), (1, 0, 0.0));
}

#[test]
fn strangers_and_addresses_do_not_fill_the_view() {
    let mut model = begun();
    for port in 1..2_000_u16 {
        let mut scan = flow("web", u64::from(port), 1.0);
        (scan.source_identity, scan.destination_identity, scan.service) = (None, None, None);
        (scan.direction, scan.standing) = ("inbound".into(), "stranger".into());
        scan.original_dst = Some(format!("10.0.0.5:{port}"));
        scan.chosen_dst = None;
        model.event(0, ended(scan.clone(), "denied", 0.001), 2.0);
        scan.standing = "plaintext".into();
        scan.original_dst = Some("10.0.0.5:80".into());
        scan.client = format!("192.0.{}.{}:4000", port / 250, port % 250);
        model.event(0, ended(scan, "eof", 0.001), 2.0);
    }
    let rows = model.rows(3.0);
    assert!(rows.len() <= 70, "{}", rows.len());
    let strangers: Vec<&Row> = rows.iter().filter(|row| row.source == "strangers").collect();
    assert_eq!((strangers.len(), strangers[0].failed), (1, 1_999));
}

/// So many pairs, each with one open flow that has moved bytes; and some with trouble.
fn many(pairs: u64) -> Model {
    let mut model = begun();
    let flows = |sent: u64| -> Vec<FlowReport> {
        let of = |n| moved(flow(&format!("svc-{n:04}"), 10 + n, 1.0), n * sent, n * sent, 0.5);
        (0..pairs).map(of).collect()
    };
    model.open_flows(0, flows(0), false, 1.0);
    model.open_flows(0, flows(1_000), false, 3.0);
    for n in (0..pairs).step_by(3) {
        let mut failed = flow(&format!("svc-{n:04}"), 10_000 + n, 2.0);
        failed.connect_seconds = None;
        model.event(0, ended(failed, "connection_refused", 0.001), 3.0);
    }
    model
}

fn app(model: &Model) -> App {
    let mut app = App::new(1, true);
    app.refresh(model, 4.0);
    app
}

fn screen_of(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn press(app: &mut App, model: &Model, keys: &str) -> Next {
    let mut next = Next::Stay;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\x08' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        next = app.key(KeyEvent::new(code, KeyModifiers::NONE), model, 4.0);
    }
    next
}

#[test]
fn eighty_columns_hold_what_matters_and_two_hundred_all_of_it() {
    let model = many(2);
    for (width, height, name) in [(80, 24, "top-80"), (200, 50, "top-200")] {
        let told = screen_of(&mut app(&model), width, height).join("\n") + "\n";
        golden::same(name, &told);
    }
}

#[test]
fn the_table_that_is_printed_once_has_the_same_columns() {
    let mut rows = many(5).rows(4.0);
    Order::default().sort(&mut rows);
    for width in [80, 200] {
        let screen = Screen {
            width: Some(width),
            ..Screen::default()
        };
        let text = list::table(&rows, &screen, true);
        assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        golden::same(&format!("top-once-{width}"), &text);
    }
}

#[test]
fn three_thousand_pairs_are_as_much_work_to_draw_as_fill_the_screen() {
    let work = |pairs| {
        let model = many(pairs);
        let mut app = app(&model);
        let mut terminal = Terminal::new(TestBackend::new(200, 50)).unwrap();
        let drawn = measure(|| {
            terminal.draw(|frame| draw(&mut app, frame)).unwrap();
        });
        assert_eq!(app.rows.len() as u64, pairs + 1);
        drawn.count_total
    };
    let (screen, thousands) = (work(60), work(3_000));
    assert!(
        thousands < screen + screen / 10,
        "{screen} and {thousands} allocations"
    );
}

#[test]
fn every_size_is_drawn_and_nothing_stands_outside() {
    let model = many(30);
    let mut app = app(&model);
    for (width, height) in [(0, 0), (1, 1), (19, 4), (20, 4), (33, 5), (80, 24), (400, 9)] {
        screen_of(&mut app, width, height);
    }
    press(&mut app, &model, "\n");
    for (width, height) in [(20, 4), (33, 5), (80, 24)] {
        screen_of(&mut app, width, height);
    }
    press(&mut app, &model, "\n?");
    for (width, height) in [(20, 4), (33, 5), (80, 24)] {
        screen_of(&mut app, width, height);
    }
}

#[test]
fn keys_move_sort_filter_and_quit() {
    let model = many(100);
    let mut app = app(&model);
    screen_of(&mut app, 80, 24);
    let first = |app: &App| app.rows[0].destination.clone();
    assert_eq!(first(&app), "demo/svc-0099:8080", "the most bytes first");
    press(&mut app, &model, "jjk");
    assert_eq!(app.pairs.at(), 1);
    press(&mut app, &model, "r");
    assert_eq!(
        app.rows[app.pairs.at()].destination,
        "demo/svc-0098:8080",
        "the same row"
    );
    press(&mut app, &model, "G");
    assert_eq!(app.pairs.at(), 100);
    let told = screen_of(&mut app, 80, 24);
    assert!(told[22].contains("demo/svc-0099"), "{told:?}");
    press(&mut app, &model, "g2");
    assert_eq!(first(&app), "demo/svc-0000:8080", "by the second column");
    press(&mut app, &model, "2");
    assert_eq!(first(&app), "demo/web:8080", "and the other way round");
    press(&mut app, &model, "/svc-001");
    assert_eq!(app.rows.len(), 10, "while it is typed");
    assert!(screen_of(&mut app, 80, 24)[23].contains("/svc-001"));
    assert_eq!(
        press(&mut app, &model, "q\x08\n"),
        Next::Stay,
        "a letter of the filter"
    );
    assert_eq!((app.filter.as_str(), app.rows.len()), ("svc-001", 10));
    press(&mut app, &model, "\x1b/!svc-\n");
    assert_eq!(app.rows.len(), 1);
    press(&mut app, &model, "\x1b");
    assert_eq!(app.rows.len(), 101);
    assert_eq!(press(&mut app, &model, "?q"), Next::Stay, "any key ends the help");
    assert_eq!(press(&mut app, &model, "q"), Next::Quit);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.key(control_c, &model, 4.0), Next::Quit);
}

#[test]
fn what_is_paused_does_not_move() {
    let mut model = many(3);
    let mut app = app(&model);
    press(&mut app, &model, " ");
    model.event(0, opened(flow("new", 77, 4.0)), 4.0);
    app.refresh(&model, 5.0);
    assert_eq!(app.rows.len(), 4);
    assert!(screen_of(&mut app, 80, 24)[0].contains("PAUSED"));
    press(&mut app, &model, " ");
    assert_eq!(app.rows.len(), 5);
}

#[test]
fn a_row_opens_to_its_flows_and_a_flow_to_its_explanation() {
    let model = many(4);
    let mut app = app(&model);
    screen_of(&mut app, 120, 24);
    press(&mut app, &model, "/svc-0003\n\n");
    let told = screen_of(&mut app, 120, 24).join("\n");
    assert!(told.contains("demo/client → demo/svc-0003:8080"), "{told}");
    assert!(
        told.contains("connection_refused by upstream") && !told.contains("ENDPOINT"),
        "{told}"
    );
    press(&mut app, &model, "\n");
    let told = screen_of(&mut app, 120, 24).join("\n");
    assert!(
        told.contains("10.96.0.10:80 failed at") && told.contains("Esc back"),
        "{told}"
    );
    press(&mut app, &model, "\x1b\x1b");
    assert!(app.detail.is_none());
    assert_eq!(app.filter, "svc-0003", "a step at a time");
}

#[test]
fn the_mouse_sorts_by_a_click_on_a_name_and_scrolls() {
    let model = many(100);
    let mut app = app(&model);
    let told = screen_of(&mut app, 80, 24);
    let mouse = |kind, column, row| MouseEvent {
        kind,
        column,
        row,
        modifiers: KeyModifiers::NONE,
    };
    let at = told[1].find("DESTINATION").unwrap() as u16;
    let click = MouseEventKind::Down(MouseButton::Left);
    app.mouse(mouse(click, at + 2, 1), &model);
    assert_eq!(app.rows[0].destination, "demo/svc-0000:8080");
    app.mouse(mouse(MouseEventKind::ScrollDown, 5, 5), &model);
    assert_eq!(app.pairs.at(), 3);
    app.mouse(mouse(click, 5, 7), &model);
    assert_eq!(app.pairs.at(), 5);
    assert!(app.detail.is_none());
    app.mouse(mouse(click, 5, 7), &model);
    assert!(app.detail.is_some(), "the second click on a row opens it");
}

#[test]
fn names_drive_no_terminal() {
    let mut model = begun();
    let mut evil = flow("x", 5, 1.0);
    evil.destination_identity = None;
    evil.service = Some("demo/\u{1b}[31m\u{7}evil".into());
    model.event(0, ended(evil, "denied", 0.001), 2.0);
    let mut app = app(&model);
    press(&mut app, &model, "/evil\n");
    for keys in ["", "\n", "\n"] {
        press(&mut app, &model, keys);
        let told = screen_of(&mut app, 100, 24).join("\n");
        assert!(!told.contains('\u{1b}') && !told.contains('\u{7}'), "{told}");
        assert!(told.contains("evil"), "{told}");
    }
}

#[test]
fn without_colours_there_are_none() {
    let model = many(6);
    for (is_coloured, expected) in [(true, true), (false, false)] {
        let mut app = App::new(1, is_coloured);
        app.refresh(&model, 4.0);
        app.problems = vec!["agent is away".into()];
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
        terminal.draw(|frame| draw(&mut app, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let colours = buffer
            .content()
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset);
        assert_eq!(colours, expected);
    }
}

/// Against a real endpoint, as where there is no terminal.
#[test]
fn without_a_terminal_the_table_is_printed_once() {
    use clap::Parser;

    use super::super::served::Endpoint;
    use super::super::{Cli, Verb};

    let endpoint = Endpoint::with_a_flow("top");
    let unix = endpoint.path().to_owned();
    let unix = unix.as_str();
    let run = |args: &[&str]| {
        let args = ["x", "top", "--interval", "500ms", "--once"].iter().chain(args);
        let Verb::Top(top) = Cli::try_parse_from(args).unwrap().verb else {
            panic!("top")
        };
        let mut out = Vec::new();
        top.run(&mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let text = run(&["--unix", unix, "-o", "wide"]).unwrap();
    assert!(text.starts_with("SOURCE") && text.contains("BYTES/S"), "{text}");
    let json = run(&["--unix", unix, "-o", "json"]).unwrap();
    assert!(json.contains("\"kind\":\"TopList\""), "{json}");
    endpoint.end();
    let error = run(&["--unix", unix]).unwrap_err().to_string();
    assert!(error.contains("nobody"), "{error}");
    assert!(Cli::try_parse_from(["x", "top", "--interval", "1ms"]).is_err());
}
