//! The Istio certificate service, `istio.v1.auth.IstioCertificateService/CreateCertificate` (`wire.md` 2).
//!
//! The only file that knows its messages. It translates: token → identity, `Refusal` → gRPC status; what is
//! signed is decided in `sign.rs`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tracing::field::{DisplayValue, display};
use tracing::{debug, error, info, warn};

use super::listener::{self, LIMITS, Peer};
use super::{Ca, Config, Error, Refusal, Tokens};
use crate::model::SpiffeId;

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
const MAX_AGE_GRACE: Duration = Duration::from_secs(20);
/// How long calls under way may take once the service is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop` is done.
pub async fn serve(
    config: &Config,
    ca: Arc<Ca>,
    tokens: Tokens,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let tls = Arc::new(listener::tls_config(ca.clone(), &config.server_names)?);
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let server = Server::builder()
        .timeout(REQUEST_TIME)
        .max_concurrent_streams(MAX_STREAMS)
        .concurrency_limit_per_connection(MAX_STREAMS as usize)
        .http2_max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_connection_age(MAX_AGE)
        .max_connection_age_grace(MAX_AGE_GRACE)
        .add_service(CertificateService(Arc::new(Authority { ca, tokens })))
        .serve_with_incoming_shutdown(listener::incoming(listener, tls, LIMITS), async {
            stop.await;
            let _ = stopping.send(());
        });
    let overdue = async {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = server => served.map_err(|source| Error::Serve { source }),
        () = overdue => Ok(()),
    }
}

struct Authority {
    ca: Arc<Ca>,
    tokens: Tokens,
}

impl Authority {
    fn create(&self, request: &Request<CreateRequest>, now: SystemTime) -> Result<CreateResponse, Status> {
        let identity = self.caller(request)?;
        let message = request.get_ref();
        if let Some(other) = message.impersonated().filter(|name| *name != identity.as_str()) {
            return Err(Status::permission_denied(format!(
                "ImpersonatedIdentity: `{other}` is asked for, but the token stands for {identity}"
            )));
        }
        let ttl = u64::try_from(message.validity_duration)
            .ok()
            .map(Duration::from_secs);
        let leaf = self.ca.sign(&message.csr, &identity, ttl, now).map_err(status)?;
        info!(target: "outrigger::audit", %identity, asked_seconds = message.validity_duration, peer = peer(request), "certificate issued");
        Ok(CreateResponse {
            cert_chain: vec![leaf, self.ca.root_pem().to_owned()],
        })
    }

    fn caller(&self, request: &Request<CreateRequest>) -> Result<SpiffeId, Status> {
        let header = request.metadata().get("authorization").ok_or_else(|| {
            Status::unauthenticated("no authorization: send `Bearer` and a bootstrap token")
        })?;
        let token = header
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or_else(|| Status::unauthenticated("authorization: it is not `Bearer` and a token"))?;
        match self.tokens.identity(token) {
            Ok(Some(identity)) => Ok(identity),
            Ok(None) => Err(Status::unauthenticated(
                "the token is unknown or revoked; make one: outrigger token create",
            )),
            Err(error) => {
                error!(%error, "tokens cannot be checked");
                Err(Status::unavailable(
                    "tokens cannot be checked; see the log of the authority",
                ))
            }
        }
    }
}

fn status(refusal: Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::BadRequest { .. } => Status::invalid_argument(message),
        Refusal::OtherName { .. } | Refusal::ForeignDomain { .. } => Status::permission_denied(message),
        Refusal::RootExpired => Status::failed_precondition(message),
        Refusal::Failed(source) => {
            error!(%source, "signing failed");
            Status::internal(message)
        }
    }
}

fn peer<T>(request: &Request<T>) -> Option<DisplayValue<SocketAddr>> {
    request.extensions().get::<Peer>().map(|peer| display(peer.0))
}

#[derive(Clone)]
struct CertificateService(Arc<Authority>);

impl NamedService for CertificateService {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for CertificateService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let create = Create(self.0.clone());
        Box::pin(async move {
            if request.uri().path() != CREATE {
                return Ok(Status::unimplemented("only CreateCertificate is served").into_http());
            }
            let mut grpc =
                tonic::server::Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST);
            Ok(grpc.unary(create, request).await)
        })
    }
}

struct Create(Arc<Authority>);

impl Service<Request<CreateRequest>> for Create {
    type Response = Response<CreateResponse>;
    type Error = Status;
    type Future = Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<CreateRequest>) -> Self::Future {
        let answer = self.0.create(&request, SystemTime::now());
        if let Err(status) = &answer {
            match status.code() {
                // Anyone can send these, so they must not fill the log.
                tonic::Code::Unauthenticated => {
                    debug!(peer = peer(&request), %status, "certificate refused")
                }
                _ => warn!(peer = peer(&request), %status, "certificate refused"),
            }
        }
        ready(answer.map(Response::new))
    }
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
mod tests {
    use super::*;
    use crate::issuer::scratch::Scratch;
    use crate::issuer::token;
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};
    use tonic::Code;

    struct Fixture {
        authority: Authority,
        token: String,
        _scratch: Scratch,
    }

    fn id(account: &str) -> SpiffeId {
        SpiffeId::new("td.test", "demo", account).unwrap()
    }

    fn fixture() -> Fixture {
        let scratch = Scratch::new();
        let dir = scratch.join("state");
        let token = token::create(&dir, &id("a")).unwrap();
        let ca = Ca::ephemeral("td.test", Duration::from_secs(3600), SystemTime::now()).unwrap();
        let authority = Authority {
            ca: Arc::new(ca),
            tokens: Tokens::open(&dir).unwrap(),
        };
        Fixture {
            authority,
            token,
            _scratch: scratch,
        }
    }

    fn message() -> CreateRequest {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        CreateRequest {
            csr: request.pem().unwrap(),
            validity_duration: 60,
            metadata: None,
        }
    }

    fn impersonating(name: &str) -> CreateRequest {
        let value = Value {
            string_value: Some(name.to_owned()),
        };
        CreateRequest {
            metadata: Some(Struct {
                fields: HashMap::from([("ImpersonatedIdentity".to_owned(), value)]),
            }),
            ..message()
        }
    }

    impl Fixture {
        fn call(&self, authorization: &str, message: CreateRequest) -> Result<CreateResponse, Status> {
            let mut request = Request::new(message);
            if !authorization.is_empty() {
                let value = authorization.parse().unwrap();
                request.metadata_mut().insert("authorization", value);
            }
            self.authority.create(&request, SystemTime::now())
        }

        fn with_token(&self, message: CreateRequest) -> Result<CreateResponse, Status> {
            self.call(&format!("Bearer {}", self.token), message)
        }
    }

    #[test]
    fn the_answer_is_the_leaf_and_then_the_root_each_in_a_string_of_its_own() {
        let fixture = fixture();
        let chain = fixture.with_token(message()).unwrap().cert_chain;
        let [leaf, root] = &chain[..] else {
            panic!("{chain:?}");
        };
        assert_eq!(leaf.matches("BEGIN CERTIFICATE").count(), 1);
        assert_eq!(root, fixture.authority.ca.root_pem());
    }

    #[test]
    fn nobody_is_served_without_a_known_token() {
        let fixture = fixture();
        let token = fixture.token.clone();
        for authorization in [
            String::new(),
            token.clone(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            "Bearer ort_guess".to_owned(),
            format!("Basic {token}"),
            format!("Bearer {token}0"),
        ] {
            let status = fixture.call(&authorization, message()).unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{authorization}: {status}");
            assert!(!status.message().contains(&token));
        }
        let scheme = format!("bearer {token}");
        assert!(fixture.call(&scheme, message()).is_ok(), "the scheme has no case");
    }

    #[test]
    fn a_bad_request_is_an_invalid_argument_that_names_the_trouble() {
        let csr = "nonsense".to_owned();
        let status = fixture()
            .with_token(CreateRequest { csr, ..message() })
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("CERTIFICATE REQUEST"), "{status}");
    }

    #[test]
    fn another_identity_is_not_lent() {
        let fixture = fixture();
        let status = fixture.with_token(impersonating(id("b").as_str())).unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(fixture.with_token(impersonating(id("a").as_str())).is_ok());
    }

    #[test]
    fn any_validity_asked_for_is_answered() {
        let fixture = fixture();
        for validity_duration in [i64::MIN, -1, 0, 1, i64::MAX] {
            let message = CreateRequest {
                validity_duration,
                ..message()
            };
            assert!(fixture.with_token(message).is_ok(), "{validity_duration}");
        }
    }
}
