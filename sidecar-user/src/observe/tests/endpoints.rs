//! The status and admin endpoints as their clients see them, over real sockets on loopback.

use std::net::{SocketAddr, TcpListener};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;

/// Sends a request as it is and reads to the end of the connection.
pub(super) async fn exchange(address: SocketAddr, request: &str) -> String {
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

pub(super) async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    split(&exchange(address, &request).await)
}

pub(super) fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

pub(super) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(super) fn status(observer: &Observer) -> SocketAddr {
    let (listener, address) = listen();
    tokio::spawn(serve_status(listener, observer.clone()));
    address
}

fn admin(observer: &Observer) -> SocketAddr {
    let (listener, address) = listen();
    tokio::spawn(serve_admin(
        super::admin::at(Some(listener), None),
        super::admin::closures(observer).0,
    ));
    address
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
    let admin = admin(&observer);
    assert_eq!(ask(status, "GET", "/flows", "").await.0, 404);
    assert_eq!(ask(status, "POST", "/metrics", "").await.0, 405);
    assert_eq!(ask(admin, "GET", "/nothing", "").await.0, 404);
    assert_eq!(ask(admin, "PUT", "/drain", "").await.0, 405);
    assert_eq!(ask(admin, "DELETE", "/flows", "").await.0, 405);
    assert_eq!(ask(admin, "GET", "/flows?limit=x", "").await.0, 400);
    let head = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    assert_eq!(split(&exchange(status, &head).await).0, 431);
}

#[tokio::test]
async fn flows_are_listed_with_what_is_known_of_them() {
    let observer = Observer::new();
    let address = admin(&observer);
    let young = observer.shard(1).open(flow(Direction::Inbound));
    let running = open(&observer, "web.demo.svc");
    running.bytes().add_sent(5);
    open(&observer, "db").close(Outcome::new(Party::Upstream, Cause::Reset));

    let (code, body) = ask(address, "GET", "/flows", "").await;
    assert_eq!(code, 200);
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["open"][0]["state"], "connecting");
    assert_eq!(json["open"][0]["service"], serde_json::Value::Null);
    assert_eq!(json["open"][0]["standing"], "stranger");
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
        ("standing=stranger", vec![1]),
        ("standing=own", vec![2, 3]),
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
    let address = admin(&observer);
    let before = open(&observer, "web");
    let mut lines = watch(address, "&service=web").await;
    let name = |event| match event {
        WatchEvent::Opened { flow } => ("opened", flow.id, flow.bytes_sent),
        WatchEvent::Closed { flow } => ("closed", flow.id, flow.bytes_sent),
        other => panic!("{other:?}"),
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
    let address = admin(&observer);
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
    let address = admin(&observer);
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
    let address = admin(&observer);
    let first = watch(address, "").await;
    assert_eq!(ask(address, "GET", "/flows?watch=true", "").await.0, 503);
    drop(first);
    let left = async {
        while observer.watch(watch::Place::Anyone).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("the watcher stays");
}
