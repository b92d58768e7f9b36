//! Who may ask the admin endpoint for what, over real sockets.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::endpoints::{ask, exchange, listen, split};
use super::*;

pub(super) fn closures(observer: &Observer) -> (Admin, Arc<AtomicBool>) {
    let level = Arc::new(std::sync::Mutex::new(String::from("info")));
    let drained = Arc::new(AtomicBool::new(false));
    let admin = Admin {
        observer: observer.clone(),
        config: Box::new(|caller| serde_json::json!({"whole": caller == Caller::Owner})),
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
        sight: sight::Sight::of_nothing(),
        phase: Box::new(|| "serving"),
        lame_duck: Box::new({
            let drained = drained.clone();
            move || drained.store(true, Relaxed)
        }),
        drain: Box::new({
            let drained = drained.clone();
            move || drained.store(true, Relaxed)
        }),
    };
    (admin, drained)
}

pub(super) fn at(tcp: Option<std::net::TcpListener>, socket: Option<AdminSocket>) -> Listeners {
    Listeners {
        tcp,
        socket,
        agent: None,
    }
}

/// Both listeners of one endpoint.
struct Both {
    tcp: std::net::SocketAddr,
    unix: PathBuf,
    drained: Arc<AtomicBool>,
    served: tokio::task::JoinHandle<Result<(), Error>>,
}

fn serve(name: &str, observer: &Observer) -> Both {
    let unix = std::env::temp_dir().join(format!("outrigger-{}-{name}.sock", std::process::id()));
    let (listener, tcp) = listen();
    let (admin, drained) = closures(observer);
    let socket = AdminSocket::bind(&unix).unwrap();
    Both {
        tcp,
        unix,
        drained,
        served: tokio::spawn(serve_admin(at(Some(listener), Some(socket)), admin)),
    }
}

async fn ask_unix(path: &Path, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let length = body.len();
    let request = format!("{method} {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    split(&answer)
}

#[tokio::test]
async fn over_tcp_questions_are_answered_and_nothing_is_changed() {
    let admin = serve("questions", &Observer::new());
    assert!(ask(admin.tcp, "GET", "/", "").await.1.contains("/loglevel"));
    let config = ask(admin.tcp, "GET", "/config", "").await;
    assert_eq!(config, (200, "{\"whole\":false}\n".into()));
    assert_eq!(
        ask(admin.tcp, "GET", "/loglevel", "").await,
        (200, "info\n".into())
    );
    for (method, path) in [
        ("POST", "/drain"),
        ("POST", "/lame-duck"),
        ("PUT", "/loglevel"),
        ("POST", "/loglevel"),
    ] {
        let (code, body) = ask(admin.tcp, method, path, "debug").await;
        assert_eq!(code, 403, "{method} {path}");
        let remedy = format!("curl --unix-socket {}", admin.unix.display());
        assert!(
            body.contains(&remedy) && body.contains(&format!("http://localhost{path}")),
            "{body}"
        );
    }
    assert!(!admin.drained.load(Relaxed));
    assert_eq!(ask(admin.tcp, "GET", "/loglevel", "").await.1, "info\n");
}

#[tokio::test]
async fn what_a_proxy_says_of_itself_is_whole_for_its_owner_and_its_agent() {
    let path = std::env::temp_dir().join(format!("outrigger-{}-itself.agent", std::process::id()));
    let (listener, tcp) = listen();
    let (admin, _) = closures(&Observer::new());
    let unix = path.with_extension("sock");
    let listeners = Listeners {
        tcp: Some(listener),
        socket: Some(AdminSocket::bind(&unix).unwrap()),
        agent: Some(std::os::unix::net::UnixListener::bind(&path).unwrap()),
    };
    let served = tokio::spawn(serve_admin(listeners, admin));
    let (code, body) = ask(tcp, "GET", "/identity", "").await;
    assert!(
        code == 200 && body.contains("demo/sa/web") && !body.contains("control.test"),
        "{code} {body}"
    );
    for socket in [&unix, &path] {
        let (code, body) = ask_unix(socket, "GET", "/identity", "").await;
        assert!(code == 200 && body.contains("control.test"), "{code} {body}");
    }
    let (code, body) = ask(tcp, "GET", "/endpoints?service=demo/web:80", "").await;
    assert!(
        code == 200 && body.contains(r#""asked":"demo/web:80""#),
        "{code} {body}"
    );
    let (code, body) = ask(tcp, "GET", "/endpoints?service=web", "").await;
    assert!(
        code == 400 && body.contains("NAMESPACE/HOSTNAME"),
        "{code} {body}"
    );
    let policies = ask(tcp, "GET", "/policies", "").await;
    assert_eq!(policies, (400, "nobody knows\n".into()));
    assert_eq!(ask(tcp, "POST", "/policies", "").await.0, 405);
    served.abort();
    let _ = std::fs::remove_file(&path);
}

#[tokio::test]
async fn without_a_socket_the_refusal_names_the_setting() {
    let (listener, address) = listen();
    let (admin, _) = closures(&Observer::new());
    tokio::spawn(serve_admin(at(Some(listener), None), admin));
    let (code, body) = ask(address, "POST", "/drain", "").await;
    assert!(
        code == 403 && body.contains("set listen.adminSocket"),
        "{code} {body}"
    );
}

#[tokio::test]
async fn over_the_unix_socket_the_owner_changes_what_he_asks_for() {
    let admin = serve("changes", &Observer::new());
    let ask = |method, path, body| ask_unix(&admin.unix, method, path, body);
    assert_eq!(
        ask("GET", "/config", "").await,
        (200, "{\"whole\":true}\n".into())
    );
    assert_eq!(ask("PUT", "/loglevel", "debug\n").await, (200, "debug\n".into()));
    let wrong = (400, "`loud`: no such level\n".into());
    assert_eq!(ask("POST", "/loglevel", "loud").await, wrong);
    let long = "x".repeat(2000);
    assert_eq!(ask_unix(&admin.unix, "PUT", "/loglevel", &long).await.0, 413);
    assert_eq!(ask("GET", "/drain", "").await, (200, "serving\n".into()));
    assert_eq!(ask("PUT", "/drain", "").await.0, 405);
    assert!(!admin.drained.load(Relaxed));
    for path in ["/drain", "/lame-duck"] {
        assert_eq!(ask("POST", path, "").await.0, 202);
        assert!(admin.drained.swap(false, Relaxed), "{path}");
    }
    admin.served.abort();
    assert!(admin.served.await.is_err_and(|e| e.is_cancelled()));
    assert!(!admin.unix.exists(), "the file goes with its owner");
}

#[tokio::test]
async fn what_is_missing_the_owner_learns_in_full() {
    let observer = Observer::new();
    let identity = observer.readiness().condition("identity", "no certificate");
    identity.unmet_because("no certificate", "cannot read /run/secrets/token");
    let admin = serve("readyz", &observer);
    let (code, body) = ask_unix(&admin.unix, "GET", "/readyz", "").await;
    assert!(code == 503 && body.contains("/run/secrets/token"), "{body}");
    let (code, body) = ask(admin.tcp, "GET", "/readyz", "").await;
    assert!(
        code == 503 && body.contains("no certificate") && !body.contains("token"),
        "{body}"
    );
    let status = super::endpoints::status(&observer);
    for path in ["/readyz", "/readyz?verbose", "/startupz?verbose"] {
        let (code, body) = ask(status, "GET", path, "").await;
        assert!(code == 503 && !body.contains("token"), "{body}");
    }
}

#[tokio::test]
async fn web_pages_do_not_reach_the_admin_endpoint() {
    let admin = serve("pages", &Observer::new());
    for headers in [
        "Host: evil.example",
        "Host: localhost\r\nOrigin: https://evil.example",
    ] {
        let request = format!("GET /flows HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        assert_eq!(split(&exchange(admin.tcp, &request).await).0, 403, "{headers}");
    }
}

#[tokio::test]
async fn the_admin_endpoint_refuses_a_public_address() {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let (admin, _) = closures(&Observer::new());
    let error = serve_admin(at(Some(listener), None), admin).await.unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
}

/// As a node's agent makes it for a sidecar.
fn serve_agent(name: &str, observer: &Observer) -> (PathBuf, std::net::SocketAddr, Arc<AtomicBool>) {
    let path = std::env::temp_dir().join(format!("outrigger-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let (tcp, address) = listen();
    let (admin, drained) = closures(observer);
    let listeners = Listeners {
        agent: Some(std::os::unix::net::UnixListener::bind(&path).unwrap()),
        ..at(Some(tcp), None)
    };
    tokio::spawn(serve_admin(listeners, admin));
    (path, address, drained)
}

#[tokio::test]
async fn an_agent_asks_as_anybody_may_and_drains_and_changes_nothing_else() {
    let observer = Observer::new();
    let (agent, _, drained) = serve_agent("agent-asks", &observer);
    let open = observer.shard(0).open(flow(Direction::Outbound));
    let (status, body) = ask_unix(&agent, "GET", "/summary", "").await;
    let summary: Summary = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &*summary.state, summary.open_flows), (200, "serving", 1));
    drop(open);
    assert_eq!(
        ask_unix(&agent, "GET", "/config", "").await.1,
        "{\"whole\":false}\n"
    );
    for (method, path) in [("POST", "/lame-duck"), ("PUT", "/loglevel")] {
        assert_eq!(ask_unix(&agent, method, path, "debug").await.0, 403, "{path}");
    }
    assert_eq!(ask_unix(&agent, "PUT", "/drain", "").await.0, 405);
    assert!(!drained.load(Relaxed));
    let (status, body) = ask_unix(&agent, "POST", "/drain", "").await;
    assert_eq!((status, &*body), (202, "draining\n"));
    assert!(drained.load(Relaxed));
    std::fs::remove_file(agent).unwrap();
}

#[tokio::test]
async fn programs_of_the_pod_that_watch_take_no_place_of_the_agent() {
    let observer = Observer::with_limits(Limits {
        watchers: 1,
        ..Limits::default()
    });
    let (agent, tcp, _) = serve_agent("agent-watches", &observer);
    let _taken = observer.watch(watch::Place::Anyone).unwrap();
    assert_eq!(ask(tcp, "GET", "/flows?watch=true", "").await.0, 503);
    let mut stream = UnixStream::connect(&agent).await.unwrap();
    stream
        .write_all(b"GET /flows?watch=true HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head[9..12], b"200");
    std::fs::remove_file(agent).unwrap();
}

#[tokio::test]
async fn a_watch_is_told_of_the_last_flows_of_a_process_that_ends() {
    let observer = Observer::new();
    let (agent, _, _) = serve_agent("agent-end", &observer);
    let mut stream = UnixStream::connect(&agent).await.unwrap();
    stream
        .write_all(b"GET /flows?watch=true&state=closed HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    for _ in 0..200 {
        observer.shard(0).open(flow(Direction::Outbound)).close(EOF);
    }
    observer.finish_watches().await;
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest.matches("\"event\":\"closed\"").count(), 200);
    assert!(!rest.contains("dropped"), "nobody was too slow");
    std::fs::remove_file(agent).unwrap();
}
