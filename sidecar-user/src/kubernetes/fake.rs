//! An API server of a test: objects by their path, over plain HTTP. Its one rule is that a change may say which version it is of; it
//! knows no watches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
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
    /// Of what was written last.
    version: u64,
    /// Paths that nobody may write.
    read_only: Vec<String>,
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
        self.state.lock().unwrap().write(path, object);
    }

    /// Nobody may change it from now on.
    pub(crate) fn forbid(&self, path: &str) {
        self.state.lock().unwrap().read_only.push(path.into());
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
    let kind = head.headers.get(CONTENT_TYPE);
    let is_merge = kind.is_some_and(|kind| kind == "application/merge-patch+json");
    let (method, path) = (&head.method, head.uri.path());
    let (code, answer) = state.lock().unwrap().answer(method, path, sent, is_merge);
    let answer = Full::from(serde_json::to_vec(&answer).unwrap());
    let answer = Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(answer);
    Ok(answer.unwrap())
}

impl State {
    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.into(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, mut sent: Value, is_merge: bool) -> (u16, Value) {
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
            return (201, self.write(&path, sent));
        }
        if method == Method::PATCH {
            if self.read_only.iter().any(|only| only == path) {
                return failed(403, "Forbidden");
            }
            let found = self.objects.get(path);
            let version = &sent["metadata"]["resourceVersion"];
            let is_of_another =
                |found: &Value| !version.is_null() && found["metadata"]["resourceVersion"] != *version;
            if found.is_some_and(is_of_another) {
                return failed(409, "Conflict");
            }
            let Some(found) = found.filter(|_| is_merge) else {
                return (200, self.write(path, sent));
            };
            let mut merged = found.clone();
            for (key, value) in sent["data"].as_object().into_iter().flatten() {
                match merged["data"].as_object_mut() {
                    Some(data) if value.is_null() => drop(data.remove(key)),
                    _ => merged["data"][key] = value.clone(),
                }
            }
            return (200, self.write(path, merged));
        }
        match self.objects.get(path) {
            Some(object) => (200, object.clone()),
            None => failed(404, "NotFound"),
        }
    }
}
