//! The admin endpoint. Over loopback TCP it answers questions, to every program of the pod but to no web page; what
//! changes something is taken over the unix socket only, from root or the user of this process.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HOST, ORIGIN};
use hyper::{Method, Request, Response, StatusCode};

use super::filter::Query;
use super::following::Following;
use super::http::{
    self, Answer, Caller, Doors, Handler, json, line, not_allowed, reads, respond, text, typed,
};
use super::listing::Listing;
use super::observer::Observer;
use super::pods::Summary;
use super::renderer::SHARED_FOR;
use super::report::rfc3339;
use super::sight::Sight;
use super::socket::{self, AdminSocket};
use super::watch::Place;
use super::why::{Question, WhyReport};
use super::{Error, status};

/// What the endpoint can show and do; the role brings the closures.
pub struct Admin {
    pub observer: Observer,
    /// The configuration in force, as this caller may see it. No secrets in it.
    pub config: Box<dyn Fn(Caller) -> serde_json::Value + Send + Sync>,
    pub log_level: LogLevel,
    pub why: Box<Explain>,
    pub sight: Sight,
    /// Starts a drain and returns at once.
    pub drain: Box<dyn Fn() + Send + Sync>,
    /// Makes it a lame duck, and returns at once.
    pub lame_duck: Box<dyn Fn() + Send + Sync>,
    /// How far it has come.
    pub phase: Box<dyn Fn() -> &'static str + Send + Sync>,
}

#[cfg(test)]
impl Admin {
    /// Of a proxy that serves, and has flows to tell of and nothing else.
    pub fn of_flows(observer: &Observer) -> Self {
        Self {
            observer: observer.clone(),
            config: Box::new(|_| serde_json::Value::Null),
            log_level: LogLevel {
                get: Box::new(String::new),
                set: Box::new(|_| Ok(())),
            },
            why: Box::new(|_| Err(String::new())),
            sight: Sight::of_nothing(),
            drain: Box::new(|| {}),
            lame_duck: Box::new(|| {}),
            phase: Box::new(|| "serving"),
        }
    }
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

/// Where the endpoint answers.
#[derive(Debug, Default)]
pub struct Listeners {
    pub tcp: Option<TcpListener>,
    pub socket: Option<AdminSocket>,
    /// Made by the agent of the node, who alone can reach it: it asks questions there.
    pub agent: Option<UnixListener>,
}

/// Serves until dropped, on each of the listeners that there is. The socket file goes with this future.
pub async fn serve_admin(listeners: Listeners, admin: Admin) -> Result<(), Error> {
    let Listeners { tcp, socket, agent } = listeners;
    let admin = Arc::new(Endpoint {
        socket: socket.as_ref().map(|socket| socket.path().to_owned()),
        admin,
    });
    let doors = |name: [&'static str; 2]| {
        let doors = Doors::private();
        admin.admin.observer.door(name[0], doors.waiting.clone());
        admin.admin.observer.door(name[1], doors.answering.clone());
        doors
    };
    let closing = || admin.admin.observer.closing();
    let over_tcp = async {
        let Some(listener) = tcp else { return Ok(()) };
        let listener = loopback(listener)?;
        let doors = doors(["admin", "admin_answers"]);
        http::serve(listener, Arc::new(Guarded(admin.clone())), doors, closing()).await;
        Ok(())
    };
    let over_unix = async {
        let Some(socket) = &socket else { return Ok(()) };
        let doors = doors(["admin_socket", "admin_socket_answers"]);
        http::serve(socket.listener()?, admin.clone(), doors, closing()).await;
        Ok(())
    };
    let by_agent = async {
        let Some(listener) = agent else { return Ok(()) };
        let listener = socket::watched(listener)?;
        let doors = doors(["agent", "agent_answers"]);
        // Another proxy never accepts here: each has a listener of its own.
        let forever = tokio::sync::watch::Sender::new(false);
        http::serve(
            listener,
            Arc::new(OfAgent(admin.clone())),
            doors,
            forever.subscribe(),
        )
        .await;
        Ok(())
    };
    let (tcp, unix, agent) = tokio::join!(over_tcp, over_unix, by_agent);
    tcp.and(unix).and(agent)
}

/// Flows in one answer unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 1000;
/// Some 70 MB of JSON, written piece by piece; nobody reads more at once.
const MAX_LIMIT: usize = 100_000;
/// The same for whoever is not the owner: 7 MB are time enough of the thread that renews certificates.
const MAX_LIMIT_OF_ANYONE: usize = 10_000;

const INDEX: &str = "\
GET  /flows     open flows and the last closed ones, JSON
                ?direction=inbound|outbound &service=[NAMESPACE/]HOSTNAME &identity=SPIFFE-ID|NAMESPACE/ACCOUNT
                &standing=own|proven|plaintext|stranger &destination=ADDRESS:PORT &port=PORT &failed=true|false
                &cause=CAUSE &slowerThan=TIME &state=open|closed &limit=N
                &watch=true (a line of JSON for each event)
GET  /why       what would happen to a connection, and why, JSON
                ?destination=ADDRESS:PORT or ?source=ADDRESS&port=PORT (inbound) &protocol=tcp|udp
GET  /identity  who this proxy is: its certificates, whence they come, and when the next one is due, JSON
GET  /endpoints who stands behind a service, by the registry and the balancer of this proxy, JSON
                ?service=NAMESPACE/HOSTNAME or ?service=ADDRESS, with :PORT for one port of it
GET  /policies  which policies hold for this workload, and whether somebody would be let in, JSON
                ?from=none|SPIFFE-ID|NAMESPACE/ACCOUNT &port=PORT &address=ADDRESS (of the client)
GET  /summary   version, identity, state, start and number of open flows, JSON
GET  /config    the configuration in force, JSON
GET  /loglevel  the log filter
GET  /drain     who is served: serving, lame-duck, draining or cut
GET  /readyz    what is missing, with the reasons
GET  /metrics   Prometheus metrics
Over the unix socket, for root and the user of this process:
PUT  /loglevel  sets the log filter to the body, e.g. debug (also POST)
POST /drain     end as after SIGTERM: serve on for a while, then refuse new connections and let open ones finish
POST /lame-duck not ready any more, and serve on until SIGTERM or a drain
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
struct Guarded(Arc<Endpoint>);

/// The agent of the node. It asks as anybody may, whatever its user; who watches flows for it has places of its own. Of changes it asks for
/// one, a drain: it has made this socket in a directory of its own, so nobody without its rights, which include ending this process,
/// connects to it.
struct OfAgent(Arc<Endpoint>);

impl Handler for OfAgent {
    async fn answer(&self, request: Request<Incoming>, _: Caller) -> Response<Answer> {
        if request.uri().path() == "/flows" && reads(request.method()) {
            let query = request.uri().query().unwrap_or_default();
            return self.0.flows(query, Caller::Anyone, Place::Agent);
        }
        if request.uri().path() == "/drain" && request.method() == Method::POST {
            return self.0.drain();
        }
        // Nobody else gets here, and why a pod has no certificate is the agent's to tell.
        let caller = match request.uri().path() {
            "/identity" if reads(request.method()) => Caller::Owner,
            _ => Caller::Anyone,
        };
        self.0.answer(request, caller).await
    }
}

struct Endpoint {
    admin: Admin,
    /// Where changes are taken.
    socket: Option<PathBuf>,
}

impl Handler for Guarded {
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<Answer> {
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
        self.0.answer(request, caller).await
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

impl Handler for Endpoint {
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<Answer> {
        let (method, path) = (request.method(), request.uri().path());
        let query = request.uri().query().unwrap_or_default();
        let is_owner = caller == Caller::Owner;
        let sets = method == Method::PUT || method == Method::POST;
        match path {
            "/" if reads(method) => text(StatusCode::OK, INDEX),
            "/flows" if reads(method) => self.flows(query, caller, Place::Anyone),
            "/why" if reads(method) => self.why(query),
            "/identity" | "/endpoints" | "/policies" if reads(method) => {
                match self.admin.sight.answer(path, query, caller) {
                    Ok(body) => typed(StatusCode::OK, "application/json", body + "\n"),
                    Err(reason) => text(StatusCode::BAD_REQUEST, reason + "\n"),
                }
            }
            "/summary" if reads(method) => json(&self.summary(caller)),
            "/config" if reads(method) => json(&(self.admin.config)(caller)),
            "/readyz" if reads(method) => {
                let verdict = self.admin.observer.readiness().ready();
                status::probed("readiness", &verdict.told_to(caller), true)
            }
            "/metrics" if reads(method) => {
                // The owner need not take what another reader was given.
                let max_age = if is_owner {
                    std::time::Duration::ZERO
                } else {
                    SHARED_FOR
                };
                status::metrics(&self.admin.observer, &request, max_age).await
            }
            "/loglevel" if reads(method) => text(StatusCode::OK, (self.admin.log_level.get)() + "\n"),
            "/loglevel" if sets && !is_owner => self.not_here("-X PUT -d debug", path),
            "/loglevel" if sets => match line(request).await {
                Ok(level) => self.set_log_level(&level),
                Err(answer) => *answer,
            },
            "/drain" if reads(method) => text(StatusCode::OK, (self.admin.phase)().to_owned() + "\n"),
            "/drain" if method == Method::POST && !is_owner => self.not_here("-X POST", path),
            "/drain" if method == Method::POST => self.drain(),
            "/lame-duck" if method == Method::POST && !is_owner => self.not_here("-X POST", path),
            "/lame-duck" if method == Method::POST => {
                (self.admin.lame_duck)();
                text(StatusCode::ACCEPTED, "lame-duck\n")
            }
            "/lame-duck" => not_allowed("POST"),
            "/" | "/flows" | "/why" | "/identity" | "/endpoints" | "/policies" | "/summary" | "/config"
            | "/readyz" | "/metrics" => not_allowed("GET, HEAD"),
            "/loglevel" => not_allowed("GET, HEAD, PUT, POST"),
            "/drain" => not_allowed("GET, HEAD, POST"),
            path => text(StatusCode::NOT_FOUND, format!("no such path: {path}\n{INDEX}")),
        }
    }
}

impl Endpoint {
    fn drain(&self) -> Response<Answer> {
        (self.admin.drain)();
        text(StatusCode::ACCEPTED, "draining\n")
    }

    /// Who may change this proxy, and how.
    fn not_here(&self, options: &str, path: &str) -> Response<Answer> {
        let remedy = match self.socket.as_deref().map(Path::display) {
            Some(socket) => format!("curl --unix-socket {socket} {options} http://localhost{path}"),
            None => "this proxy has none: set listen.adminSocket to the path of one".into(),
        };
        text(
            StatusCode::FORBIDDEN,
            format!("only root and the user of this proxy may do this, over its unix socket:\n{remedy}\n"),
        )
    }

    fn why(&self, query: &str) -> Response<Answer> {
        match Question::parse(query).and_then(|question| (self.admin.why)(&question)) {
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
        match (self.admin.log_level.set)(level) {
            Ok(()) => text(StatusCode::OK, (self.admin.log_level.get)() + "\n"),
            Err(reason) => text(StatusCode::BAD_REQUEST, format!("`{level}`: {reason}\n")),
        }
    }

    fn summary(&self, caller: Caller) -> Summary {
        let (observer, config) = (&self.admin.observer, (self.admin.config)(caller));
        Summary {
            version: env!("CARGO_PKG_VERSION").into(),
            state: (self.admin.phase)().into(),
            identity: config["workload"]["identity"].as_str().map(str::to_owned),
            started: rfc3339(observer.started()),
            open_flows: observer.open_flows(),
            missing: observer.readiness().missing_for(caller),
        }
    }

    fn flows(&self, query: &str, caller: Caller, place: Place) -> Response<Answer> {
        let query = match Query::parse(query) {
            Ok(query) => query,
            Err(reason) => return text(StatusCode::BAD_REQUEST, reason + "\n"),
        };
        let most = match caller {
            Caller::Owner => MAX_LIMIT,
            Caller::Anyone => MAX_LIMIT_OF_ANYONE,
        };
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(most);
        let observer = &self.admin.observer;
        if !query.watch {
            let list = Answer::Stream(Box::new(Listing::new(observer.clone(), query, limit)));
            return respond(StatusCode::OK, "application/json", list);
        }
        match Following::new(observer, query, limit, place) {
            Some(events) => {
                let events = Answer::Stream(Box::new(events));
                respond(StatusCode::OK, "application/x-ndjson", events)
            }
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many watchers; end one first\n",
            ),
        }
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
