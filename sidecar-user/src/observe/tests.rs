//! The room as a role sees it: flows in, numbers and HTTP answers out. Real sockets, on loopback only.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::exposition::Format;
use super::*;
use crate::model::{Cause, Direction, Flow, Outcome, Party, ServiceName, SpiffeId, TlsFacts, Transport};

const EOF: Outcome = Outcome::new(Party::Client, Cause::Eof);

/// Far above what anything here takes; a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(30);

fn flow(direction: Direction) -> Flow {
    Flow {
        id: 0,
        direction,
        opened: SystemTime::now(),
        client: "10.0.0.1:4000".parse().unwrap(),
        original_dst: None,
        chosen_dst: None,
        service: None,
        source_identity: None,
        destination_identity: None,
        transport: Transport::Plain,
        tls: None,
        connect_time: None,
        handshake_time: None,
        bytes: Arc::default(),
        closed: None,
    }
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

fn open(observer: &Observer, service: &str) -> OpenFlow {
    let open = observer.shard(0).open(flow(Direction::Outbound));
    open.update(|flow| connected(flow, service));
    open
}

fn scrape(observer: &Observer) -> Samples {
    Samples::parse(&observer.exposition(Format::Prometheus).unwrap())
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
    let (closed, _) = observer.closed_flows(&Default::default(), 10);
    assert_eq!(closed.iter().map(|f| f.id).collect::<Vec<_>>(), [1, 2, 3]);
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
    let (closed, total) = observer.closed_flows(&Default::default(), 2);
    assert_eq!(
        (closed.iter().map(|f| f.id).collect::<Vec<_>>(), total),
        (vec![4, 5], 3)
    );
}

#[test]
fn roles_have_their_own_meters() {
    let observer = Observer::new();
    observer.meters().tunnels_outbound.set(3);
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
    let text = Observer::new().exposition(Format::OpenMetrics).unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE outrigger_tcp_connections_opened counter\n"));
}

/// Sends a request as it is and reads to the end of the connection.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the server does not answer");
    String::from_utf8(answer).unwrap()
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    split(&exchange(address, &request).await)
}

fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn status(observer: &Observer) -> SocketAddr {
    let (listener, address) = listen();
    tokio::spawn(serve_status(listener, observer.clone()));
    address
}

fn admin(observer: &Observer) -> (SocketAddr, Arc<AtomicBool>) {
    let (listener, address) = listen();
    let (admin, drained) = closures(observer);
    tokio::spawn(serve_admin(Some(listener), None, admin));
    (address, drained)
}

fn closures(observer: &Observer) -> (Admin, Arc<AtomicBool>) {
    let level = Arc::new(std::sync::Mutex::new(String::from("info")));
    let drained = Arc::new(AtomicBool::new(false));
    let admin = Admin {
        observer: observer.clone(),
        config: Box::new(|| serde_json::json!({"mode": "strict"})),
        log_level: LogLevel {
            get: Box::new({
                let level = level.clone();
                move || lock(&level).clone()
            }),
            set: Box::new(move |new| match new {
                "info" | "debug" => {
                    *lock(&level) = new.to_owned();
                    Ok(())
                }
                _ => Err("no such level".into()),
            }),
        },
        drain: Box::new({
            let drained = drained.clone();
            move || drained.store(true, Relaxed)
        }),
    };
    (admin, drained)
}

#[tokio::test]
async fn probes_follow_the_conditions_and_name_what_is_missing() {
    let observer = Observer::new();
    let identity = observer.readiness().condition("identity", "no certificate yet");
    let listeners = observer.readiness().condition("listeners", "not bound yet");
    let address = status(&observer);
    let get = |path: &'static str| ask(address, "GET", path, "");

    listeners.met();
    assert_eq!(
        get("/startupz").await,
        (503, "identity: no certificate yet\n".into())
    );
    assert_eq!(
        get("/readyz").await,
        (503, "identity: no certificate yet\n".into())
    );
    assert_eq!(get("/livez").await, (200, "ok\n".into()));
    identity.met();
    for path in ["/startupz", "/readyz", "/ready", "/healthz/ready", "/live"] {
        assert_eq!(get(path).await, (200, "ok\n".into()), "{path}");
    }
    let verbose = "[+]identity ok\n[+]listeners ok\nreadiness check passed\n";
    assert_eq!(get("/readyz?verbose").await, (200, verbose.into()));
    observer.readiness().drain();
    assert_eq!(
        get("/readyz").await,
        (503, "draining: this proxy is shutting down\n".into())
    );
    assert_eq!(get("/startupz").await.0, 200);
}

#[tokio::test]
async fn metrics_come_in_the_format_that_was_asked_for() {
    let observer = Observer::new();
    open(&observer, "web").close(EOF);
    let address = status(&observer);
    let (code, body) = ask(address, "GET", "/metrics", "").await;
    assert_eq!(code, 200);
    assert_eq!(
        Samples::parse(&body).sum("outrigger_tcp_connections_opened_total", &[]),
        1.0
    );
    let request = "GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\
                   Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let answer = exchange(address, request).await;
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(answer.ends_with("# EOF\n"));
}

#[tokio::test]
async fn wrong_paths_methods_and_sizes_are_answered_as_such() {
    let observer = Observer::new();
    let status = status(&observer);
    let (admin, _) = admin(&observer);
    assert_eq!(ask(status, "GET", "/flows", "").await.0, 404);
    assert_eq!(ask(status, "POST", "/metrics", "").await.0, 405);
    assert_eq!(ask(admin, "GET", "/metrics", "").await.0, 404);
    assert_eq!(ask(admin, "GET", "/drain", "").await.0, 405);
    assert_eq!(ask(admin, "DELETE", "/flows", "").await.0, 405);
    assert_eq!(ask(admin, "GET", "/flows?limit=x", "").await.0, 400);
    assert_eq!(ask(admin, "PUT", "/loglevel", &"x".repeat(2000)).await.0, 413);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    assert_eq!(split(&exchange(status, &head).await).0, 431);
}

#[tokio::test]
async fn strangers_holding_sockets_do_not_keep_a_probe_out() {
    let observer = Observer::new();
    let address = status(&observer);
    let mut strangers = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
        strangers.push(stream);
    }
    assert_eq!(ask(address, "GET", "/livez", "").await, (200, "ok\n".into()));
}

#[tokio::test]
async fn the_admin_endpoint_shows_and_does_what_it_says() {
    let observer = Observer::new();
    let (address, drained) = admin(&observer);
    assert!(ask(address, "GET", "/", "").await.1.contains("/loglevel"));
    assert_eq!(
        ask(address, "GET", "/config", "").await,
        (200, "{\"mode\":\"strict\"}\n".into())
    );
    assert_eq!(ask(address, "GET", "/loglevel", "").await, (200, "info\n".into()));
    assert_eq!(
        ask(address, "PUT", "/loglevel", "debug\n").await,
        (200, "debug\n".into())
    );
    assert_eq!(
        ask(address, "POST", "/loglevel", "loud").await,
        (400, "`loud`: no such level\n".into())
    );
    assert!(!drained.load(Relaxed));
    assert_eq!(ask(address, "POST", "/drain", "").await.0, 202);
    assert!(drained.load(Relaxed));
}

#[tokio::test]
async fn web_pages_do_not_reach_the_admin_endpoint() {
    let (address, drained) = admin(&Observer::new());
    for headers in [
        "Host: evil.example",
        "Host: localhost\r\nOrigin: https://evil.example",
    ] {
        let request = format!("POST /drain HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        assert_eq!(split(&exchange(address, &request).await).0, 403, "{headers}");
    }
    assert!(!drained.load(Relaxed));
}

#[tokio::test]
async fn the_admin_endpoint_refuses_a_public_address() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let (admin, _) = closures(&Observer::new());
    let error = serve_admin(Some(listener), None, admin).await.unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
}

#[tokio::test]
async fn flows_are_listed_with_what_is_known_of_them() {
    let observer = Observer::new();
    let (address, _) = admin(&observer);
    let young = observer.shard(1).open(flow(Direction::Inbound));
    let running = open(&observer, "web.demo.svc");
    running.bytes().add_sent(5);
    open(&observer, "db").close(Outcome::new(Party::Upstream, Cause::Reset));

    let (code, body) = ask(address, "GET", "/flows", "").await;
    assert_eq!(code, 200);
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["open"][0]["state"], "connecting");
    assert_eq!(json["open"][0]["service"], serde_json::Value::Null);
    let web = &json["open"][1];
    assert_eq!(web["state"], "open");
    assert_eq!(web["bytesSent"], 5);
    assert_eq!(web["originalDst"], "10.96.0.1:80");
    assert_eq!(web["chosenDst"], "10.0.0.2:8080");
    assert_eq!(web["sourceIdentity"], "spiffe://td.test/ns/demo/sa/client");
    assert_eq!(web["tls"]["keyExchange"], "X25519MLKEM768");
    assert!(humantime::parse_rfc3339(web["opened"].as_str().unwrap()).is_ok());
    let db = &json["closed"][0];
    assert_eq!(
        (&db["closedBy"], &db["closeCause"]),
        (&"upstream".into(), &"reset".into())
    );
    let list: FlowList = serde_json::from_str(&body).unwrap();
    assert_eq!(serde_json::to_value(&list).unwrap(), json);

    for (query, ids) in [
        ("direction=inbound", vec![1]),
        ("state=open", vec![1, 2]),
        ("state=closed", vec![3]),
        ("service=demo/db", vec![3]),
        ("service=web.demo.svc", vec![2]),
        ("service=other/db", vec![]),
        ("identity=demo/web", vec![2, 3]),
        ("identity=spiffe://td.test/ns/demo/sa/client&state=open", vec![2]),
        ("state=open&limit=1", vec![2]),
    ] {
        let (_, body) = ask(address, "GET", &format!("/flows?{query}"), "").await;
        let list: FlowList = serde_json::from_str(&body).unwrap();
        let found: Vec<u64> = list.open.iter().chain(&list.closed).map(|f| f.id).collect();
        assert_eq!(found, ids, "{query}");
        assert_eq!(list.truncated, query.contains("limit"), "{query}");
    }
    drop((young, running));
}

/// Starts a watch and gives back its lines, without the head. HTTP/1.0, so that they come unframed.
async fn watch(address: SocketAddr, query: &str) -> tokio::io::Lines<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /flows?watch=true{query} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("200"));
    while !lines.next_line().await.unwrap().unwrap().is_empty() {}
    lines
}

async fn event(lines: &mut tokio::io::Lines<BufReader<TcpStream>>) -> WatchEvent {
    let line = tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .expect("no event");
    serde_json::from_str(&line.unwrap().expect("the stream ended")).unwrap()
}

#[tokio::test]
async fn a_watcher_sees_what_is_open_and_then_each_event_once() {
    let observer = Observer::new();
    let (address, _) = admin(&observer);
    let before = open(&observer, "web");
    let mut lines = watch(address, "&service=web").await;
    let name = |event| match event {
        WatchEvent::Opened { flow } => ("opened", flow.id, flow.bytes_sent),
        WatchEvent::Closed { flow } => ("closed", flow.id, flow.bytes_sent),
        WatchEvent::Dropped { reason } => panic!("{reason}"),
    };
    assert_eq!(name(event(&mut lines).await), ("opened", 1, 0));
    let unrelated = open(&observer, "db");
    let after = open(&observer, "web");
    assert_eq!(name(event(&mut lines).await), ("opened", 3, 0));
    before.bytes().add_sent(9);
    before.close(EOF);
    assert_eq!(name(event(&mut lines).await), ("closed", 1, 9));
    drop((unrelated, after));
    assert_eq!(name(event(&mut lines).await), ("closed", 3, 0));
}

#[tokio::test]
async fn a_flow_that_fails_early_is_told_as_opened_and_closed() {
    let observer = Observer::new();
    let (address, _) = admin(&observer);
    let mut lines = watch(address, "").await;
    let refused = observer.shard(0).open(flow(Direction::Outbound));
    refused.close(Outcome::new(Party::Us, Cause::NoEndpoint));
    assert!(matches!(event(&mut lines).await, WatchEvent::Opened { .. }));
    let WatchEvent::Closed { flow } = event(&mut lines).await else {
        panic!("not closed")
    };
    assert_eq!(flow.close_cause.as_deref(), Some("no_endpoint"));
}

#[tokio::test]
async fn a_slow_watcher_is_cut_off_and_told_so() {
    let observer = Observer::with_limits(Limits {
        watch_queue: 4,
        ..Limits::default()
    });
    let (address, _) = admin(&observer);
    let mut lines = watch(address, "").await;
    // Nothing else runs on this thread meanwhile: the queue cannot be drained.
    for _ in 0..10 {
        open(&observer, "web").close(EOF);
    }
    for _ in 0..4 {
        assert!(!matches!(event(&mut lines).await, WatchEvent::Dropped { .. }));
    }
    let WatchEvent::Dropped { reason } = event(&mut lines).await else {
        panic!("not told")
    };
    assert!(reason.contains("too slow"), "{reason}");
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(
        scrape(&observer).sum("outrigger_tcp_connections_closed_total", &[]),
        10.0
    );
}

#[tokio::test]
async fn watchers_are_few_and_leave_when_they_hang_up() {
    let observer = Observer::with_limits(Limits {
        watchers: 1,
        ..Limits::default()
    });
    let (address, _) = admin(&observer);
    let first = watch(address, "").await;
    assert_eq!(ask(address, "GET", "/flows?watch=true", "").await.0, 503);
    drop(first);
    let left = async {
        while observer.watch().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("the watcher stays");
}

#[tokio::test]
async fn the_unix_socket_serves_and_its_file_goes() {
    let path = std::env::temp_dir().join(format!("outrigger-{}-serve.sock", std::process::id()));
    let observer = Observer::new();
    let (admin, _) = closures(&observer);
    let socket = AdminSocket::bind(&path).unwrap();
    let served = tokio::spawn(serve_admin(None, Some(socket), admin));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /loglevel HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(split(&answer), (200, "info\n".into()));
    served.abort();
    assert!(served.await.is_err_and(|e| e.is_cancelled()));
    assert!(!path.exists());
}
