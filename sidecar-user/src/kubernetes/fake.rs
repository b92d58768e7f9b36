//! An API server of a test: objects by their path, over plain HTTP. It knows no rules of its own, and no watches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Client;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Ends when dropped.
pub(crate) struct Fake {
    pub(crate) client: Client,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// By the path of their collection and their name.
    objects: BTreeMap<String, Value>,
    /// The status of a review, by token.
    tokens: BTreeMap<String, Value>,
    asked: Vec<String>,
    is_away: bool,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::<Mutex<State>>::default();
        let served = state.clone();
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = served.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(state.clone(), request));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self {
            client: Client::at(&url),
            state,
            server,
        }
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.into(), object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// What a review says of the token.
    pub(crate) fn token(&self, token: &str, status: Value) {
        self.state.lock().unwrap().tokens.insert(token.into(), status);
    }

    /// Whether it answers nothing but errors.
    pub(crate) fn away(&self, is_away: bool) {
        self.state.lock().unwrap().is_away = is_away;
    }

    /// How often something was asked for below this path.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter(|asked| asked.starts_with(path)).count()
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (code, answer) = state.lock().unwrap().answer(&head.method, head.uri.path(), sent);
    let answer = Full::from(serde_json::to_vec(&answer).unwrap());
    let answer = Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(answer);
    Ok(answer.unwrap())
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, mut sent: Value) -> (u16, Value) {
        self.asked.push(path.into());
        let failed = |code: u16, reason: &str| {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": reason, "reason": reason, "code": code });
            (code, status)
        };
        if self.is_away {
            return failed(503, "ServiceUnavailable");
        }
        if path == REVIEWS {
            let token = sent["spec"]["token"].as_str().unwrap_or_default();
            sent["status"] = self
                .tokens
                .get(token)
                .cloned()
                .unwrap_or(json!({ "authenticated": false }));
            return (201, sent);
        }
        if method == Method::POST {
            let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return failed(409, "AlreadyExists");
            }
            self.objects.insert(path, sent.clone());
            return (201, sent);
        }
        if method == Method::PATCH {
            self.objects.insert(path.into(), sent.clone());
            return (200, sent);
        }
        match self.objects.get(path) {
            Some(object) => (200, object.clone()),
            None => failed(404, "NotFound"),
        }
    }
}
