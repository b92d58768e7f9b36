//! The status and admin endpoints as their clients see them, over real sockets on loopback.

use std::net::{SocketAddr, TcpListener};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::*;

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
        why: Box::new(|question| Err(format!("asked about port {}", question.port))),
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
