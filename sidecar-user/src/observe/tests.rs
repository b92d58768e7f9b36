//! The room as a role sees it: flows in, numbers and HTTP answers out. Real sockets, on loopback only.

mod admin;
mod bounds;
mod documented;
mod endpoints;
mod heap;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use super::exposition::Format;
use super::*;
use crate::model::{
    Bottleneck, Cause, Direction, Flow, LegFacts, Legs, Outcome, Party, ServiceName, SpiffeId, TcpFacts,
    TlsFacts, Transport,
};

const EOF: Outcome = Outcome::new(Party::Client, Cause::Eof);

/// Far above what anything here takes; a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

fn flow(direction: Direction) -> Flow {
    Flow::new(direction, "10.0.0.1:4000".parse().unwrap(), SystemTime::now())
}

fn connected(flow: &mut Flow, service: &str) {
    flow.original_dst = Some("10.96.0.1:80".parse().unwrap());
    flow.chosen_dst = Some("10.0.0.2:8080".parse().unwrap());
    flow.service = Some(ServiceName {
        namespace: "demo".into(),
        hostname: service.into(),
    });
    flow.source_identity = Some(SpiffeId::new("td.test", "demo", "client").unwrap());
    flow.destination_identity = Some(SpiffeId::new("td.test", "demo", "web").unwrap());
    flow.transport = Transport::Hbone;
    flow.tls = Some(TlsFacts {
        version: "TLSv1.3",
        cipher: "TLS13_AES_128_GCM_SHA256",
        key_exchange: "X25519MLKEM768",
        reused_tunnel: false,
    });
    flow.handshake_time = Some(Duration::from_micros(900));
    flow.connect_time = Some(Duration::from_micros(1200));
}

/// What the kernel is asked for later.
fn read(flow: &mut Flow) {
    flow.legs = Some(Box::new(Legs {
        client: None,
        upstream: Some(LegFacts {
            tcp: TcpFacts {
                rtt: Some(Duration::from_micros(300)),
                segments_sent: 1000,
                segments_retransmitted: 30,
                ..TcpFacts::default()
            },
            is_tunnel: true,
        }),
    }));
    flow.bottleneck = Some(Bottleneck::Network);
}

fn open(observer: &Observer, service: &str) -> OpenFlow {
    let open = observer.shard(0).open(flow(Direction::Outbound));
    open.update(|flow| connected(flow, service));
    open
}

fn scrape(observer: &Observer) -> Samples {
    scrape_at(observer, Instant::now())
}

fn scrape_at(observer: &Observer, now: Instant) -> Samples {
    Samples::parse(&observer.renderer().render(Format::Prometheus, now).unwrap())
}

/// The ids of the newest closed flows, oldest first.
fn closed(observer: &Observer, limit: usize) -> Vec<u64> {
    let (found, _) = observer.closed().newest(limit, |_| true);
    found
        .into_iter()
        .map(|id| observer.closed().get(id).unwrap().id)
        .collect()
}

/// A strict reader of the Prometheus text format: what it does not know is a failed test.
#[derive(Debug)]
struct Samples(HashMap<String, f64>);

impl Samples {
    fn parse(text: &str) -> Self {
        let mut samples = HashMap::new();
        let mut types: HashMap<&str, &str> = HashMap::new();
        let mut helped = HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, words) = rest.split_once(' ').expect(line);
                assert!(helped.insert(name) && !words.is_empty(), "twice or empty: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(kind != "counter" || name.ends_with("_total"), "{line}");
                assert!(helped.contains(name), "no help: {line}");
                assert!(types.insert(name, kind).is_none(), "twice: {line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let name = series.split('{').next().unwrap();
                assert!(
                    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
                    "{line}"
                );
                let histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|s| name.strip_suffix(s));
                let kind = types.get(name).or_else(|| types.get(histogram?)).copied();
                assert!(kind.is_some(), "no type: {line}");
                check_labels(&series[name.len()..]);
                let value: f64 = value.parse().expect(line);
                assert!(
                    samples.insert(series.to_owned(), value).is_none(),
                    "twice: {line}"
                );
            }
        }
        Self(samples)
    }

    /// The sum over all label sets of a metric that hold each of these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let picked = self.0.iter().filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        });
        picked.map(|(_, value)| value).sum()
    }
}

/// `{name="value",…}` with the three escapes, or nothing.
fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let mut rest = labels.strip_prefix('{').expect(labels);
    loop {
        let (name, after) = rest.split_once("=\"").expect(labels);
        assert!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{labels}"
        );
        let mut end = None;
        let mut chars = after.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n'))), "{labels}"),
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        rest = &after[end.expect(labels) + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break assert_eq!(rest, "}", "{labels}"),
        }
    }
}

#[test]
fn a_flow_is_recorded_once_however_it_ends() {
    let observer = Observer::new();
    open(&observer, "web").close(EOF);
    drop(open(&observer, "web"));
    drop(observer.shard(1).open(flow(Direction::Inbound)));

    let samples = scrape(&observer);
    assert_eq!(samples.sum("outrigger_tcp_connections_opened_total", &[]), 3.0);
    assert_eq!(samples.sum("outrigger_tcp_connections_closed_total", &[]), 3.0);
    assert_eq!(samples.sum("outrigger_tcp_connections_active", &[]), 0.0);
    let shut = [
        "by=\"us\"",
        "cause=\"shutdown\"",
        "direction=\"inbound\"",
        "service=\"unknown\"",
    ];
    assert_eq!(samples.sum("outrigger_tcp_connections_closed_total", &shut), 1.0);
    let ended = ["by=\"client\"", "cause=\"eof\"", "service=\"demo/web\""];
    assert_eq!(samples.sum("outrigger_tcp_connections_closed_total", &ended), 1.0);
    assert_eq!(closed(&observer, 10), [1, 2, 3]);
}

#[test]
fn a_flow_whose_walk_panics_is_our_fault() {
    let observer = Observer::new();
    let flow = open(&observer, "s");
    let walk = std::thread::spawn(move || {
        let _flow = flow;
        panic!("a bug");
    });
    assert!(walk.join().is_err());
    let (found, _) = observer.closed().newest(1, |_| true);
    let (_, outcome) = observer.closed().get(found[0]).unwrap().closed.unwrap();
    assert_eq!(outcome, Outcome::new(Party::Us, Cause::Internal));
}

#[test]
fn bytes_of_open_flows_are_counted_once_and_never_go_back() {
    let observer = Observer::new();
    let totals = || {
        let samples = scrape(&observer);
        ["sent", "received"].map(|way| samples.sum(&format!("outrigger_tcp_{way}_bytes_total"), &[]))
    };
    let open = open(&observer, "web");
    assert_eq!(totals(), [0.0, 0.0]);
    open.bytes().add_sent(100);
    assert_eq!(totals(), [100.0, 0.0]);
    open.bytes().add_sent(11);
    open.bytes().add_received(7);
    assert_eq!(totals(), [111.0, 7.0]);
    open.bytes().add_received(3);
    open.close(EOF);
    assert_eq!(totals(), [111.0, 10.0]);
    assert_eq!(totals(), [111.0, 10.0]);
}

#[test]
fn totals_hold_while_shards_work_and_scrapes_run() {
    const FLOWS: u64 = 2000;
    let observer = Observer::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|n| {
                let shard = observer.shard(n);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for _ in 0..FLOWS {
                        let open = shard.open(flow(Direction::Outbound));
                        open.update(|flow| connected(flow, "web"));
                        open.bytes().add_sent(3);
                        kept.push(open);
                        if kept.len() > 600 {
                            kept.swap_remove(kept.len() / 3).close(EOF);
                        }
                    }
                })
            })
            .collect();
        let mut last = 0.0;
        while !workers.iter().all(|worker| worker.is_finished()) {
            let now = scrape(&observer).sum("outrigger_tcp_sent_bytes_total", &[]);
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let samples = scrape(&observer);
    assert_eq!(
        samples.sum("outrigger_tcp_sent_bytes_total", &[]),
        (2 * 3 * FLOWS) as f64
    );
    assert_eq!(
        samples.sum("outrigger_tcp_connections_opened_total", &[]),
        (2 * FLOWS) as f64
    );
    assert_eq!(
        samples.sum("outrigger_tcp_connections_closed_total", &[]),
        (2 * FLOWS) as f64
    );
}

#[test]
fn a_connection_is_pending_until_its_upstream_is_usable() {
    let observer = Observer::new();
    let open = observer.shard(0).open(flow(Direction::Outbound));
    let samples = scrape(&observer);
    assert_eq!(
        samples.sum("outrigger_tcp_connections_pending", &["direction=\"outbound\""]),
        1.0
    );
    assert_eq!(samples.sum("outrigger_tcp_connections_opened_total", &[]), 0.0);
    open.update(|flow| connected(flow, "web"));
    let samples = scrape(&observer);
    assert_eq!(samples.sum("outrigger_tcp_connections_pending", &[]), 0.0);
    assert_eq!(
        samples.sum("outrigger_tcp_connections_active", &["service=\"demo/web\""]),
        1.0
    );
    let within = ["le=\"0.0025\"", "transport=\"hbone\""];
    assert_eq!(
        samples.sum("outrigger_tcp_connect_duration_seconds_bucket", &within),
        1.0
    );
    assert_eq!(
        samples.sum("outrigger_tcp_connect_duration_seconds_bucket", &["le=\"0.001\""]),
        0.0
    );
    assert_eq!(
        samples.sum("outrigger_tls_handshake_duration_seconds_count", &[]),
        1.0
    );
}

#[test]
fn label_sets_past_the_cap_are_counted_as_overflow() {
    let observer = Observer::with_limits(Limits {
        label_sets: 2,
        ..Limits::default()
    });
    for service in ["a", "b", "c", "d", "a"] {
        open(&observer, service).close(EOF);
    }
    let samples = scrape(&observer);
    let opened = |label: &str| samples.sum("outrigger_tcp_connections_opened_total", &[label]);
    assert_eq!(opened("service=\"demo/a\""), 2.0);
    assert_eq!(opened("service=\"demo/b\""), 1.0);
    assert_eq!(opened("service=\"overflow\""), 2.0);
    assert_eq!(opened("source_identity=\"overflow\""), 2.0);
    assert_eq!(samples.sum("outrigger_metrics_label_overflow_total", &[]), 2.0);
}

#[test]
fn hostile_names_cannot_break_the_text() {
    let observer = Observer::new();
    open(&observer, "a\"} 1\nfaked \\").close(EOF);
    let samples = scrape(&observer);
    assert_eq!(
        samples.sum(
            "outrigger_tcp_connections_opened_total",
            &["a\\\"} 1\\nfaked \\\\"]
        ),
        1.0
    );
}

#[test]
fn the_last_closed_flows_are_kept() {
    let observer = Observer::with_limits(Limits {
        closed_flows: 3,
        ..Limits::default()
    });
    for _ in 0..5 {
        open(&observer, "web").close(EOF);
    }
    assert_eq!(closed(&observer, 10), [3, 4, 5]);
    assert_eq!(closed(&observer, 2), [4, 5]);
}

#[test]
fn roles_have_their_own_meters() {
    let observer = Observer::new();
    observer.meters().tunnels.of("outbound").set(3);
    observer.meters().plaintext_accepted.inc();
    observer.meters().identity_expiry.set(1_800_000_000);
    observer.kernel_counters(|| vec![("redirected", 7), ("dropped_strict", 1)]);
    observer.readiness().condition("identity", "none yet");
    let samples = scrape(&observer);
    assert_eq!(
        samples.sum("outrigger_tunnels_open", &["direction=\"outbound\""]),
        3.0
    );
    assert_eq!(
        samples.sum("outrigger_inbound_plaintext_accepted_total", &[]),
        1.0
    );
    assert_eq!(
        samples.sum("outrigger_identity_expiry_timestamp_seconds", &[]),
        1.8e9
    );
    assert_eq!(
        samples.sum("outrigger_kernel_events_total", &["event=\"redirected\""]),
        7.0
    );
    assert_eq!(samples.0["outrigger_condition_met{condition=\"identity\"}"], 0.0);
    assert_eq!(samples.sum("outrigger_build_info", &[]), 1.0);
    assert!(samples.sum("process_resident_memory_bytes", &[]) > 1e6);
    assert!(samples.sum("process_open_fds", &[]) > 2.0);
}

#[test]
fn open_metrics_end_as_they_must() {
    let renderer = Observer::new().renderer();
    let text = renderer.render(Format::OpenMetrics, Instant::now()).unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE outrigger_tcp_connections_opened counter\n"));
}
