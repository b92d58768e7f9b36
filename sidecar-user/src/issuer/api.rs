//! The Istio certificate service, `istio.v1.auth.IstioCertificateService/CreateCertificate` (`wire.md` 2).
//!
//! The only file that knows its messages. It translates: token → identity, `Refusal` → gRPC status; what is
//! signed is decided in `sign.rs`.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use tracing::field::{DisplayValue, display};
use tracing::{debug, error, info, warn};

use super::guard::Guard;
use super::judge::{Credentials, Doubt, Judge, Proved};
use super::listener::{self, Peer};
use super::service::Service;
use super::{Config, Error, Refusal, Refused, certificate};
use crate::grpc::{Answering, Answers};
use crate::model::CallerKind;

const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// A request is a CSR of at most 16 KiB and a few words.
const MAX_REQUEST: usize = 64 << 10;
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// A client makes one call every few hours; these bound one that misbehaves.
const MAX_STREAMS: u32 = 16;
const MAX_HEADERS: u32 = 16 << 10;
const WINDOW: u32 = 64 << 10;
/// Connections are asked to go after this time, and cut after the grace.
const MAX_AGE: Duration = Duration::from_secs(300);
/// In a cluster agents keep theirs open. Replicas that have come since get their part of them so late.
const MAX_AGE_OF_AGENTS: Duration = Duration::from_secs(30 * 60);
const MAX_AGE_GRACE: Duration = Duration::from_secs(20);
/// How long calls under way may take once the service is told to stop.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop` is done. `others` are served at the same port, to whoever shows a good token: each of their requests has a
/// [`crate::model::Caller`] in its extensions.
pub async fn serve(
    config: &Config,
    service: Arc<Service>,
    others: Routes,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let tls = Arc::new(certificate::tls_config(
        service.store.clone(),
        &config.server_names,
    )?);
    let (mut handshakes, incoming) = listener::incoming(listener, tls, service.door.clone())?;
    let max_age = match service.judge {
        Judge::Listed(_) => MAX_AGE,
        Judge::Reviewed(_) => MAX_AGE_OF_AGENTS,
    };
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .timeout(REQUEST_TIME)
        .max_concurrent_streams(MAX_STREAMS)
        .concurrency_limit_per_connection(MAX_STREAMS as usize)
        .http2_max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_connection_age(max_age)
        .max_connection_age_grace(MAX_AGE_GRACE)
        .layer(Guard::new(service.clone(), CREATE))
        .add_routes(others.add_service(Answering(CertificateService(service))))
        .serve_with_incoming_shutdown(incoming, async {
            stop.await;
            let _ = stopping.send(());
        });
    let overdue = async {
        if stopped.await.is_err() {
            return std::future::pending().await;
        }
        handshakes.close();
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served.map_err(|source| Error::Serve { source }),
        () = overdue => Ok(()),
    }
}

/// What the client is told, and what is counted.
#[derive(Debug)]
struct Denial {
    why: Refused,
    status: Status,
}

impl Service {
    async fn create(
        &self,
        request: &Request<CreateRequest>,
        now: SystemTime,
    ) -> Result<CreateResponse, Denial> {
        let visit = request.extensions().get::<Peer>();
        let address = visit.map(|peer| peer.address().ip());
        let credentials = Credentials::read(request.metadata(), address)?;
        let proved = self.judge.judge(credentials, now).await?;
        if let Some(Peer(visit)) = visit {
            visit.prove(&proved.place());
        }
        let Proved { caller, through } = proved;
        // Its own is for those who ask it over the API server, and takes nothing that it could not have as any pod of its node.
        let is_for_itself = || {
            through
                .as_ref()
                .is_some_and(|through| through.name == caller.name)
        };
        if caller.kind == CallerKind::Agent && !is_for_itself() {
            let text =
                "an agent asks for the pods of its node, and through itself for itself, and for nobody else";
            return Err(Denial::new(Refused::OtherName, Status::permission_denied(text)));
        }
        let (identity, message) = (caller.identity, request.get_ref());
        if let Some(other) = message.impersonated().filter(|name| *name != identity.as_str()) {
            let text = format!(
                "ImpersonatedIdentity: `{}` is asked for, but the token stands for {identity}",
                other.escape_debug()
            );
            return Err(Denial::new(Refused::OtherName, Status::permission_denied(text)));
        }
        let ttl = u64::try_from(message.validity_duration)
            .ok()
            .map(Duration::from_secs);
        let (issued, ca) = self
            .store
            .issue(&message.csr, &identity, ttl, now)
            .map_err(Denial::from)?;
        self.door.stats.issued();
        // A record, which no limit on the lines of a place cuts short: whoever causes it has a token.
        info!(
            target: "outrigger::audit",
            %identity,
            serial = issued.serial,
            not_after = %humantime::format_rfc3339_seconds(issued.not_after),
            token = %caller.name,
            through = through.as_ref().map(display),
            peer = peer(request),
            "certificate issued"
        );
        Ok(CreateResponse {
            cert_chain: vec![issued.pem, ca.bundle().to_owned()],
        })
    }
}

impl Denial {
    fn new(why: Refused, status: Status) -> Self {
        Self { why, status }
    }
}

impl From<Doubt> for Denial {
    fn from(doubt: Doubt) -> Self {
        Self::new(doubt.why, doubt.status())
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::BadRequest { .. } => Self::new(Refused::BadRequest, Status::invalid_argument(message)),
            Refusal::OtherName { .. } => Self::new(Refused::OtherName, Status::permission_denied(message)),
            Refusal::ForeignDomain { .. } => {
                Self::new(Refused::ForeignDomain, Status::permission_denied(message))
            }
            Refusal::RootExpired => Self::new(Refused::Failed, Status::failed_precondition(message)),
            // Another replica may, or this one in a moment.
            Refusal::NotNoted => Self::new(Refused::Failed, Status::unavailable(message)),
            Refusal::Failed(source) => {
                error!(%source, "signing failed");
                Self::new(Refused::Failed, Status::internal(message))
            }
        }
    }
}

fn peer<T>(request: &Request<T>) -> Option<DisplayValue<SocketAddr>> {
    request
        .extensions()
        .get::<Peer>()
        .map(|peer| display(peer.address()))
}

#[derive(Clone)]
struct CertificateService(Arc<Service>);

impl NamedService for CertificateService {
    const NAME: &'static str = SERVICE;
}

impl Answers for CertificateService {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        if request.uri().path() != CREATE {
            return Status::unimplemented("only CreateCertificate is served").into_http();
        }
        // While it lasts, the connection is none that asks nothing.
        let _under_way = request
            .extensions()
            .get::<Peer>()
            .map(|peer| peer.0.begin_request());
        let mut grpc = tonic::server::Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST);
        let create = service_fn(move |request| create(self.0.clone(), request));
        grpc.unary(create, request).await
    }
}

async fn create(
    service: Arc<Service>,
    request: Request<CreateRequest>,
) -> Result<Response<CreateResponse>, Status> {
    let answer = service.create(&request, SystemTime::now()).await;
    answer.map(Response::new).map_err(|Denial { why, status }| {
        service.door.stats.refused(why);
        match why.is_anyones() {
            // Anyone can send these, so they must not fill the log.
            true => debug!(peer = peer(&request), %status, "certificate refused"),
            false => warn!(peer = peer(&request), %status, "certificate refused"),
        }
        status
    })
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    metadata: Option<Struct>,
}

impl CreateRequest {
    /// Shared ztunnels ask in the name of their pods. It is compared, never believed.
    fn impersonated(&self) -> Option<&str> {
        let value = self.metadata.as_ref()?.fields.get("ImpersonatedIdentity")?;
        value.string_value.as_deref()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

/// `google.protobuf.Struct`, of which only strings matter here.
#[derive(Clone, PartialEq, prost::Message)]
struct Struct {
    #[prost(map = "string, message", tag = "1")]
    fields: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, optional, tag = "3")]
    string_value: Option<String>,
}

#[cfg(test)]
mod tests;
