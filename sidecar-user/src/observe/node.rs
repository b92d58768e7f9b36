//! The admin endpoint of a node's agent, at its unix socket: what it remembers of the flows of all pods, and how they are; and the one
//! change that it takes, a drain. What the answers are, and what is done, the role knows.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::http::{self, Answer, Caller, Doors, Handler, Pieces, not_allowed, reads, respond, text, typed};
use super::observer::Observer;
use super::socket::AdminSocket;
use super::{Error, status};

/// What the endpoint shows; the role brings the answers.
pub struct NodeAdmin {
    pub observer: Observer,
    pub answer: Box<AnswerTo>,
}

/// Given within 20 s.
pub type AnswerTo = dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// A question, with its query string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Flows(String),
    Why(String),
    Pods(String),
    /// What one pod's proxy says of itself, by the path of the proxy's own endpoint.
    OfProxy(&'static str, String),
    /// About the agent and its node.
    Node,
    /// A change: that the sidecar of one pod ends as after SIGTERM.
    Drain(String),
}

pub enum Reply {
    /// A whole document.
    Json(String),
    /// JSON that is made as it is read.
    Stream(Box<dyn Pieces>),
    /// An object a line.
    Lines(Box<dyn Pieces>),
    /// The question makes no sense; a sentence for the caller.
    Wrong(String),
    /// There is nobody who could answer; a sentence for the caller.
    Missing(String),
    /// As many are answered as may be.
    Busy(String),
    /// Nobody knows who asks.
    Unknown(String),
    /// Whoever asks may not.
    Forbidden(String),
}

const INDEX: &str = "\
GET /flows    flows of all pods, JSON: those that are open, and those that this agent remembers
              ?pod=NAMESPACE/NAME &since=10m &until=TIME &after=CURSOR, and what a proxy's /flows takes
              &watch=true (a line of JSON for each event)
GET /why      what would happen to a connection of a pod, and what happened to those that failed, JSON
              ?pod=NAMESPACE/NAME &since=10m &all=true, and what a proxy's /why takes
GET /identity, GET /endpoints, GET /policies
              what a pod's proxy says of itself, JSON
              ?pod=NAMESPACE/NAME, and what the proxy's own takes
GET /pods     the pods of this node, and what is wrong with them, JSON
              ?pod=NAMESPACE/NAME or &namespace=NAME, both as often as wanted, as with the two above
GET /node     this agent, its node and what is attached there, JSON
POST /drain   has the sidecar of a pod end as after SIGTERM
              ?pod=NAMESPACE/NAME
GET /metrics  Prometheus metrics
GET /healthz  200 while this process answers
";

/// More than an answer takes that has to wait for sidecars.
const ANSWER: Duration = Duration::from_secs(20);

/// Serves until dropped. The socket file goes with this future.
pub async fn serve_node(socket: AdminSocket, node: NodeAdmin) -> Result<(), Error> {
    let doors = Doors::private();
    node.observer.door("admin_socket", doors.waiting.clone());
    node.observer
        .door("admin_socket_answers", doors.answering.clone());
    let closing = node.observer.closing();
    http::serve(socket.listener()?, Arc::new(node), doors, closing).await;
    Ok(())
}

impl Handler for NodeAdmin {
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<Answer> {
        // Whatever has become of the file's mode.
        if caller != Caller::Owner {
            return text(
                StatusCode::FORBIDDEN,
                "only root and the user of this agent may ask\n",
            );
        }
        match request.uri().path() {
            "/" | "/metrics" | "/healthz" if !reads(request.method()) => not_allowed("GET, HEAD"),
            "/" => text(StatusCode::OK, INDEX),
            "/metrics" => status::metrics(&self.observer, &request, Duration::ZERO).await,
            "/healthz" => text(StatusCode::OK, "ok\n"),
            path => match asked(&request) {
                Ok(Some(asked)) => answered((self.answer)(asked)).await,
                Ok(None) => text(StatusCode::NOT_FOUND, format!("no such path: {path}\n{INDEX}")),
                Err(methods) => not_allowed(methods),
            },
        }
    }
}

/// `None`: by no path of this endpoint. The error is the methods that the path takes.
pub(super) fn asked<B>(request: &Request<B>) -> Result<Option<Asked>, &'static str> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (asked, is_change) = match request.uri().path() {
        "/flows" => (Asked::Flows(query), false),
        "/why" => (Asked::Why(query), false),
        "/pods" => (Asked::Pods(query), false),
        "/identity" => (Asked::OfProxy("/identity", query), false),
        "/endpoints" => (Asked::OfProxy("/endpoints", query), false),
        "/policies" => (Asked::OfProxy("/policies", query), false),
        "/node" => (Asked::Node, false),
        "/drain" => (Asked::Drain(query), true),
        _ => return Ok(None),
    };
    match is_change {
        true if request.method() != Method::POST => Err("POST"),
        false if !reads(request.method()) => Err("GET, HEAD"),
        _ => Ok(Some(asked)),
    }
}

pub(super) async fn answered(reply: impl Future<Output = Reply>) -> Response<Answer> {
    match tokio::time::timeout(ANSWER, reply).await {
        Ok(Reply::Json(body)) => typed(StatusCode::OK, JSON, body + "\n"),
        Ok(Reply::Stream(pieces)) => respond(StatusCode::OK, JSON, Answer::Stream(pieces)),
        Ok(Reply::Lines(pieces)) => respond(StatusCode::OK, "application/x-ndjson", Answer::Stream(pieces)),
        Ok(Reply::Wrong(reason)) => text(StatusCode::BAD_REQUEST, reason + "\n"),
        Ok(Reply::Missing(reason)) => text(StatusCode::NOT_FOUND, reason + "\n"),
        Ok(Reply::Busy(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        Ok(Reply::Unknown(reason)) => text(StatusCode::UNAUTHORIZED, reason + "\n"),
        Ok(Reply::Forbidden(reason)) => text(StatusCode::FORBIDDEN, reason + "\n"),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the sidecars took too long\n"),
    }
}

const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_takes_its_own_methods_and_only_a_post_is_a_change() {
        let of = |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            asked(&request)
        };
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(
                of(method.clone(), "/pods?namespace=a"),
                Ok(Some(Asked::Pods("namespace=a".into())))
            );
            assert_eq!(of(method.clone(), "/node"), Ok(Some(Asked::Node)));
            assert_eq!(of(method, "/drain?pod=a/b"), Err("POST"));
        }
        assert_eq!(
            of(Method::POST, "/drain?pod=a/b"),
            Ok(Some(Asked::Drain("pod=a/b".into())))
        );
        for path in ["/flows", "/why", "/pods", "/node"] {
            assert_eq!(of(Method::POST, path), Err("GET, HEAD"), "{path}");
        }
        assert_eq!(of(Method::POST, "/drains"), Ok(None));
    }
}
