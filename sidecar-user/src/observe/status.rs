//! The status endpoint: metrics and probes, open to whoever reaches the pod. It only reads, and what is missing it says in
//! general words: details are for the owner, at the admin socket and in the log.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::{Request, Response, StatusCode};

use super::Error;
use super::exposition::Format;
use super::http::{self, Answer, Caller, Doors, Handler, not_allowed, reads, respond, text};
use super::observer::Observer;
use super::readiness::Told;
use super::renderer::SHARED_FOR;

/// Serves until dropped. Add all conditions of readiness before.
pub async fn serve_status(listener: TcpListener, observer: Observer) -> Result<(), Error> {
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|source| Error::Listener {
            endpoint: "status",
            source,
        })?;
    let doors = Doors::public();
    observer.door("status", doors.waiting.clone());
    observer.door("status_answers", doors.answering.clone());
    let closing = observer.closing();
    http::serve(listener, Arc::new(Status { observer }), doors, closing).await;
    Ok(())
}

struct Status {
    observer: Observer,
}

const INDEX: &str = "\
GET /metrics   Prometheus metrics
GET /startupz  200 once every condition of readiness has been met
GET /readyz    200 while every condition is met; ?verbose lists them (also /ready, /healthz/ready)
GET /livez     200 while this process answers (also /live)
";

impl Handler for Status {
    async fn answer(&self, request: Request<Incoming>, caller: Caller) -> Response<Answer> {
        let probe = match request.uri().path() {
            "/" | "/metrics" | "/livez" | "/live" => None,
            "/startupz" => Some("startup"),
            "/readyz" | "/ready" | "/healthz/ready" => Some("readiness"),
            path => return text(StatusCode::NOT_FOUND, format!("no such path: {path}\n{INDEX}")),
        };
        if !reads(request.method()) {
            return not_allowed("GET, HEAD");
        }
        if let Some(probe) = probe {
            let readiness = self.observer.readiness();
            let verdict = match probe {
                "startup" => readiness.started(),
                _ => readiness.ready(),
            };
            return probed(probe, &verdict.told_to(caller), is_verbose(&request));
        }
        match request.uri().path() {
            "/metrics" => metrics(&self.observer, &request, SHARED_FOR).await,
            "/" => text(StatusCode::OK, INDEX),
            _ => text(StatusCode::OK, "ok\n"),
        }
    }
}

/// In the format that the request asks for, not older than `max_age`.
pub(super) async fn metrics(
    observer: &Observer,
    request: &Request<Incoming>,
    max_age: Duration,
) -> Response<Answer> {
    let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    match observer.renderer().current(format, max_age).await {
        Ok(shared) => respond(StatusCode::OK, format.content_type(), Answer::Shared(shared, 0)),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write the metrics: {error}\n"),
        ),
    }
}

fn is_verbose(request: &Request<Incoming>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

/// The kubelet shows the body of a failed probe to the user, so it names what is missing.
pub(super) fn probed(probe: &str, verdict: &Told, verbose: bool) -> Response<Answer> {
    let status = if verdict.well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if verdict.well && !verbose {
        return text(status, "ok\n");
    }
    let mut body = String::new();
    for (name, reason) in &verdict.conditions {
        match reason {
            Some(reason) if verbose => body.extend(["[-]", name, ": ", reason, "\n"]),
            Some(reason) => body.extend([name, ": ", reason, "\n"]),
            None if verbose => body.extend(["[+]", name, " ok\n"]),
            None => {}
        }
    }
    if verdict.conditions.is_empty() {
        body.push_str("no condition is known yet\n");
    }
    if verbose {
        body.extend([
            probe,
            " check ",
            if verdict.well { "passed" } else { "failed" },
            "\n",
        ]);
    }
    text(status, body)
}
