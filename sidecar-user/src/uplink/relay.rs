//! A sidecar's request for a certificate goes on to the control process as it is, with the agent's own token beside the pod's. What
//! comes back is handed back as it is, an error too.
//!
//! The messages are not read here: whom a token stands for, the control process decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

use super::control::Control;
use crate::error_chain;
use crate::grpc::{Answering, Answers};
use crate::model::{AGENT_TOKEN, LocalPod};

const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// A request is a CSR of at most 16 KiB and a few words.
const MAX_REQUEST: usize = 64 << 10;
/// Requests at a time, from all pods of the node; the others wait for their turn.
const AT_A_TIME: usize = 32;
/// For all tries of one request. A sidecar waits no longer than ten seconds.
const CALL_TIME: Duration = Duration::from_secs(9);
/// A replica that does not answer is left after this time.
const TRY_TIME: Duration = Duration::from_secs(4);
/// Replicas that are tried for one request.
const TRIES: usize = 3;
/// Of a sidecar's headers, those that go on. It cannot say who its agent is.
const CARRIED: [&str; 4] = ["authorization", "clusterid", "content-type", "te"];

/// Read at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The control process has answered, with a certificate or a refusal.
    pub answered: u64,
    /// No replica has.
    pub unanswered: u64,
}

/// The certificate service, as the agent serves it. Cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Shared>);

struct Shared {
    control: Arc<Control>,
    turns: Semaphore,
    answered: AtomicU64,
    unanswered: AtomicU64,
}

impl Relay {
    pub fn new(control: Arc<Control>) -> Self {
        Self(Arc::new(Shared {
            control,
            turns: Semaphore::new(AT_A_TIME),
            answered: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        }))
    }

    pub fn counts(&self) -> Counts {
        Counts {
            answered: self.0.answered.load(Ordering::Relaxed),
            unanswered: self.0.unanswered.load(Ordering::Relaxed),
        }
    }

    /// It alone. Other services of the agent are added to it.
    pub fn routes(&self) -> Routes {
        Routes::new(Answering(self.clone()))
    }
}

impl Shared {
    async fn relay(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        if request.uri().path() != CREATE {
            return Err(Status::unimplemented("only CreateCertificate is relayed"));
        }
        let pod = request.extensions().get::<LocalPod>().cloned();
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_REQUEST).collect().await;
        let body = body
            .map_err(|_| Status::invalid_argument("the request is too long"))?
            .to_bytes();
        let tried = async {
            let _turn = self.turns.acquire().await;
            self.try_replicas(&head, body).await
        };
        let late = || Status::unavailable("no replica of the control process has answered in time");
        let answer = timeout(CALL_TIME, tried).await.unwrap_or_else(|_| Err(late()));
        let pod = pod.as_ref().map(|pod| &*pod.uid);
        match &answer {
            Ok(_) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                debug!(
                    pod,
                    "a request for a certificate was answered by the control process"
                );
            }
            Err(status) => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                warn!(
                    pod,
                    error = status.message(),
                    "a request for a certificate was not answered by the control process"
                );
            }
        }
        answer
    }

    async fn try_replicas(
        &self,
        head: &http::request::Parts,
        body: Bytes,
    ) -> Result<http::Response<Body>, Status> {
        let unavailable = |why: String| Status::unavailable(format!("control cannot be asked: {why}"));
        let mut failed = String::new();
        for _ in 0..TRIES {
            let token = self.control.token().await;
            let token = token.map_err(|error| unavailable(error_chain(&error)))?;
            let mut request = http::Request::new(Body::new(Full::new(body.clone())));
            *request.method_mut() = http::Method::POST;
            *request.uri_mut() = http::Uri::from_static(CREATE);
            *request.version_mut() = http::Version::HTTP_2;
            for name in CARRIED {
                if let Some(value) = head.headers.get(name) {
                    request.headers_mut().insert(name, value.clone());
                }
            }
            let token = http::HeaderValue::from_bytes(token.as_bytes());
            let mut token = token.map_err(|_| unavailable("control.token is no header".into()))?;
            token.set_sensitive(true);
            request.headers_mut().insert(AGENT_TOKEN, token);
            let channel = self.control.channel().await;
            let mut channel = channel.map_err(|error| unavailable(error_chain(&error)))?;
            let call = async { channel.ready().await?.call(request).await };
            match timeout(TRY_TIME, call).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failed = error_chain(&error),
                Err(_) => {
                    failed = format!("it does not answer within {TRY_TIME:?}");
                    self.control.leave();
                }
            }
        }
        Err(unavailable(failed))
    }
}

impl NamedService for Relay {
    const NAME: &'static str = SERVICE;
}

impl Answers for Relay {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        self.0.relay(request).await.unwrap_or_else(Status::into_http)
    }
}
