//! The admin endpoint: flows, configuration, log level, drain. It is for those who own this process: a loopback
//! address, guarded against web pages, and a unix socket with tight permissions.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{HOST, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};

use super::Error;
use super::filter::{Query, State};
use super::http::{self, Answer, Handler, Lines, json, line, not_allowed, reads, respond, text};
use super::observer::Observer;
use super::report::{FlowList, FlowReport, WatchEvent};
use super::socket::AdminSocket;
use super::watch::{Event, Happened, Watching};
use super::why::{Question, WhyReport};

/// What the endpoint can show and do; the role brings the closures.
pub struct Admin {
    pub observer: Observer,
    /// The configuration in force. No secrets in it.
    pub config: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    pub log_level: LogLevel,
    pub why: Box<Explain>,
    /// Starts a drain and returns at once.
    pub drain: Box<dyn Fn() + Send + Sync>,
}

/// Says what would happen to a connection; an error is a sentence for the caller.
pub type Explain = dyn Fn(&Question) -> Result<WhyReport, String> + Send + Sync;

/// The door to the log's filter, usually a reload handle of `tracing-subscriber`.
pub struct LogLevel {
    pub get: Box<dyn Fn() -> String + Send + Sync>,
    /// An error is a sentence for the caller.
    pub set: Box<SetLevel>,
}

/// Takes a filter such as `debug`.
pub type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Serves until dropped, on each of the listeners that there is. The socket file goes with this future.
pub async fn serve_admin(
    tcp: Option<TcpListener>,
    socket: Option<AdminSocket>,
    admin: Admin,
) -> Result<(), Error> {
    let admin = Arc::new(admin);
    let over_tcp = async {
        let Some(listener) = tcp else { return Ok(()) };
        let listener = loopback(listener)?;
        http::serve(listener, Arc::new(Guarded(admin.clone()))).await;
        Ok(())
    };
    let over_unix = async {
        let Some(socket) = &socket else { return Ok(()) };
        http::serve(socket.listener()?, Arc::new(Trusted(admin.clone()))).await;
        Ok(())
    };
    let (tcp, unix) = tokio::join!(over_tcp, over_unix);
    tcp.and(unix)
}

/// Flows in one answer unless `limit` says otherwise, for each of the two lists.
const DEFAULT_LIMIT: usize = 1000;
/// Some 70 MB of JSON; nobody reads more at once.
const MAX_LIMIT: usize = 100_000;
/// Events written at once to a watcher: enough that a burst is not a packet an event.
const BATCH: usize = 64;

const INDEX: &str = "\
GET  /flows     open flows and the last closed ones, JSON
                ?direction=inbound|outbound &service=[NAMESPACE/]HOSTNAME &identity=SPIFFE-ID|NAMESPACE/ACCOUNT
                &state=open|closed &limit=N &watch=true (a line of JSON for each event)
GET  /why       what would happen to a connection, and why, JSON
                ?destination=ADDRESS:PORT or ?source=ADDRESS&port=PORT (inbound) &protocol=tcp|udp
GET  /config    the configuration in force, JSON
GET  /loglevel  the log filter; PUT or POST sets it to the body, e.g. debug
POST /drain     stop taking connections and let the open ones finish
";

fn loopback(listener: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    let unusable = |source| Error::Listener {
        endpoint: "admin",
        source,
    };
    let address = listener.local_addr().map_err(unusable)?;
    if !address.ip().to_canonical().is_loopback() {
        return Err(Error::NotLoopback { address });
    }
    listener.set_nonblocking(true).map_err(unusable)?;
    tokio::net::TcpListener::from_std(listener).map_err(unusable)
}

/// Over TCP anybody on the machine gets in, and so does a web page in somebody's browser.
struct Guarded(Arc<Admin>);

/// Over the unix socket the file's permissions have said who gets in.
struct Trusted(Arc<Admin>);

impl Handler for Guarded {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        // A page that rebinds its name to 127.0.0.1 sends that name here.
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        if !host.is_some_and(is_loopback_host) {
            return text(
                StatusCode::FORBIDDEN,
                "the Host header must be localhost or a loopback address\n",
            );
        }
        // A page may post here without asking first, but its browser says where it comes from.
        if request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "requests of web pages are refused\n");
        }
        self.0.answer(request).await
    }
}

impl Handler for Trusted {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        self.0.answer(request).await
    }
}

pub(super) fn is_loopback_host(host: &str) -> bool {
    if let Ok(authority) = host.parse::<hyper::http::uri::Authority>() {
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("?");
        if !port.is_empty()
            && port
                .strip_prefix(':')
                .is_none_or(|port| port.parse::<u16>().is_err())
        {
            return false;
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        return name.eq_ignore_ascii_case("localhost")
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.to_canonical().is_loopback());
    }
    false
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let method = request.method().clone();
        match request.uri().path() {
            "/" if reads(&method) => text(StatusCode::OK, INDEX),
            "/flows" if reads(&method) => self.flows(request.uri().query().unwrap_or_default()),
            "/why" if reads(&method) => self.why(request.uri().query().unwrap_or_default()),
            "/config" if reads(&method) => json(&(self.config)()),
            "/loglevel" if reads(&method) => text(StatusCode::OK, (self.log_level.get)() + "\n"),
            "/loglevel" if method == Method::PUT || method == Method::POST => match line(request).await {
                Ok(level) => self.set_log_level(&level),
                Err(answer) => *answer,
            },
            "/drain" if method == Method::POST => {
                (self.drain)();
                text(StatusCode::ACCEPTED, "draining\n")
            }
            "/" | "/flows" | "/why" | "/config" => not_allowed("GET, HEAD"),
            "/loglevel" => not_allowed("GET, HEAD, PUT, POST"),
            "/drain" => not_allowed("POST"),
            path => text(StatusCode::NOT_FOUND, format!("no such path: {path}\n{INDEX}")),
        }
    }

    fn why(&self, query: &str) -> Response<Answer> {
        match Question::parse(query).and_then(|question| (self.why)(&question)) {
            Ok(report) => json(&report),
            Err(reason) => text(StatusCode::BAD_REQUEST, reason + "\n"),
        }
    }

    fn set_log_level(&self, level: &str) -> Response<Answer> {
        if level.is_empty() {
            return text(
                StatusCode::BAD_REQUEST,
                "the body is empty; send a filter such as debug\n",
            );
        }
        match (self.log_level.set)(level) {
            Ok(()) => text(StatusCode::OK, (self.log_level.get)() + "\n"),
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("`{level}`: {reason}\n")),
        }
    }

    fn flows(&self, query: &str) -> Response<Answer> {
        let query = match Query::parse(query) {
            Ok(query) => query,
            Err(reason) => return text(StatusCode::BAD_REQUEST, reason + "\n"),
        };
        if query.watch {
            return self.watch(query);
        }
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        let now = SystemTime::now();
        let mut list = FlowList::default();
        // Open ones first: a flow that closes in between is then in both lists, not in none.
        if query.state != Some(State::Closed) {
            let (flows, total) = self.observer.open_flows(&query.filter, limit, false);
            list.truncated |= total > limit;
            list.open = flows.iter().map(|flow| FlowReport::new(flow, now)).collect();
        }
        if query.state != Some(State::Open) {
            let (flows, total) = self.observer.closed_flows(&query.filter, limit);
            list.truncated |= total > limit;
            let closed: HashSet<u64> = flows.iter().map(|flow| flow.id).collect();
            list.open.retain(|flow| !closed.contains(&flow.id));
            list.closed = flows.iter().map(|flow| FlowReport::new(flow, now)).collect();
        }
        json(&list)
    }

    fn watch(&self, query: Query) -> Response<Answer> {
        let Some(watching) = self.observer.watch() else {
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many watchers; end one first\n",
            );
        };
        // After the subscription: what opens meanwhile is in both, and is told once.
        let mut first = Vec::new();
        let mut told = HashSet::new();
        if query.state != Some(State::Closed) {
            let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
            let now = SystemTime::now();
            for flow in self.observer.open_flows(&query.filter, limit, true).0 {
                told.insert(flow.id);
                let flow = FlowReport::new(&flow, now);
                push(&mut first, &WatchEvent::Opened { flow });
            }
        }
        let stream = Stream {
            first: Some(first.into()),
            told,
            watching: Some(watching),
            query,
            queue: self.observer.watch_queue(),
        };
        respond(
            StatusCode::OK,
            "application/x-ndjson",
            Answer::Stream(Box::new(stream)),
        )
    }
}

/// The answer to a watcher: what is open, then what happens.
struct Stream {
    first: Option<Bytes>,
    /// Flows of `first`, whose opening may also wait in the queue.
    told: HashSet<u64>,
    watching: Option<Watching>,
    query: Query,
    queue: usize,
}

impl Stream {
    fn wanted(&self, (happened, flow): &Event) -> bool {
        let state = match happened {
            Happened::Opened => State::Open,
            Happened::Closed => State::Closed,
        };
        self.query.state.is_none_or(|wanted| wanted == state)
            && self.query.filter.passes(flow)
            && !(*happened == Happened::Opened && self.told.contains(&flow.id))
    }
}

impl Lines for Stream {
    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take()
            && !first.is_empty()
        {
            return Poll::Ready(Some(first));
        }
        let mut lines = Vec::new();
        let mut events = Vec::with_capacity(BATCH);
        while lines.is_empty() {
            let Some(watching) = &mut self.watching else {
                return Poll::Ready(None);
            };
            if ready!(watching.events.poll_recv_many(cx, &mut events, BATCH)) == 0 {
                // The queue was full, or it would not have ended.
                self.watching = None;
                let reason = format!("too slow: more than {} events were waiting", self.queue);
                push(&mut lines, &WatchEvent::Dropped { reason });
                break;
            }
            let now = SystemTime::now();
            for event in events.drain(..).filter(|event| self.wanted(event)) {
                let flow = FlowReport::new(&event.1, now);
                let event = match event.0 {
                    Happened::Opened => WatchEvent::Opened { flow },
                    Happened::Closed => WatchEvent::Closed { flow },
                };
                push(&mut lines, &event);
            }
        }
        Poll::Ready(Some(lines.into()))
    }
}

fn push(lines: &mut Vec<u8>, event: &WatchEvent) {
    // Strings, numbers and options: there is nothing here that JSON cannot say.
    if serde_json::to_writer(&mut *lines, event).is_ok() {
        lines.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback_host;

    #[test]
    fn only_loopback_hosts_get_in() {
        for host in [
            "localhost",
            "LOCALHOST:15000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:15000",
            "[::1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1:15000",
            "127.0.0.1.nip.io",
            "[::]",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
