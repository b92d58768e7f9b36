//! Asks an authority for a certificate: the Istio certificate service, as a client (`wire.md` 2).
//!
//! The only file here that knows its messages. It does not judge the answer. Each call has a connection of its
//! own: calls are hours apart, and roots and token are read anew for each (`files.rs`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use tracing::warn;

use super::{Ask, Error, Mark, Open, Way, files};
use crate::model::SpiffeId;

const CREATE: PathAndQuery =
    PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
const CONNECT_TIME: Duration = Duration::from_secs(5);
const CALL_TIME: Duration = Duration::from_secs(10);
/// A chain and a bundle of a hundred roots fit in several times.
const MAX_ANSWER: usize = 1 << 20;

/// A checked configuration.
pub(super) struct Authority {
    id: SpiffeId,
    config: Ask,
    cluster: MetadataValue<Ascii>,
    reach: Reach,
    /// The log says once that others can read the token.
    warned: AtomicBool,
}

enum Reach {
    /// Over the network, by TLS.
    Network {
        endpoint: Box<Endpoint>,
        server_name: String,
        mark: Mark,
    },
    /// Through the agent of this node, which opens a stream for each call.
    Agent(Open),
}

impl Authority {
    pub(super) fn new(id: SpiffeId, config: Ask, way: Way) -> Result<Self, Error> {
        let reach = match way {
            Way::Network(mark) => Self::by_network(&config, mark)?,
            Way::Agent(open) => Reach::Agent(open),
        };
        let cluster = config.cluster.parse().map_err(|_| Error::Cluster {
            value: config.cluster.clone(),
        })?;
        Ok(Self {
            id,
            config,
            cluster,
            reach,
            warned: AtomicBool::new(false),
        })
    }

    fn by_network(config: &Ask, mark: Mark) -> Result<Reach, Error> {
        let fail = |reason| Error::Authority {
            value: config.authority.clone(),
            reason,
        };
        let uri: Uri = config.authority.parse().map_err(|_| fail("is no URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(fail("is not https, and a token must not travel in the clear"));
        }
        let host = uri.host().ok_or_else(|| fail("names no host"))?;
        let server_name = match &config.server_name {
            Some(name) => name.clone(),
            // A URL writes an IPv6 address in brackets, a certificate does not.
            None => host.trim_matches(['[', ']']).to_owned(),
        };
        Ok(Reach::Network {
            endpoint: Box::new(Endpoint::from(uri)),
            server_name,
            mark,
        })
    }

    pub(super) fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(super) fn config(&self) -> &Ask {
        &self.config
    }

    /// Sends the request and returns the certificate strings as they came. `known` are roots that the authority itself
    /// has told of: while its root is replaced they are ahead of the file, which somebody has to bring.
    pub(super) async fn create(
        &self,
        csr: String,
        known: Option<&RootCertStore>,
    ) -> Result<Vec<String>, Error> {
        let (mut roots, token) = self.read_files().await?;
        roots
            .roots
            .extend(known.into_iter().flat_map(|known| known.roots.iter().cloned()));
        let request = self.request(csr, token);
        let channel = self.connect(roots).await?;
        let answer = timeout(CALL_TIME, call(channel, request))
            .await
            .map_err(|_| self.timed_out("answer", CALL_TIME))?;
        answer.map_err(|status| self.refused(&status))
    }

    /// Beside the runtime: a disk may take its time.
    async fn read_files(&self) -> Result<(RootCertStore, MetadataValue<Ascii>), Error> {
        let (roots, token) = (self.config.roots.clone(), self.config.token.clone());
        let is_agents = matches!(self.reach, Reach::Agent(_));
        let read = tokio::task::spawn_blocking(move || {
            let roots = match is_agents {
                // Whoever serves at the door of this pod is root of the node.
                true => RootCertStore::empty(),
                false => files::roots(&roots)?,
            };
            Ok((roots, files::token(&token)?))
        });
        let (roots, token) = match read.await {
            Ok(read) => read?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if let Some(mode) = token.exposed
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            let path = self.config.token.display();
            warn!(
                "identity.token: {path} can be read by others (mode {mode:04o}), who can then be this workload; run: \
                 chmod 0600 {path}"
            );
        }
        Ok((roots, token.header))
    }

    fn request(&self, csr: String, token: MetadataValue<Ascii>) -> Request<CreateRequest> {
        let mut request = Request::new(CreateRequest {
            csr,
            validity_duration: i64::try_from(self.config.ttl.as_secs().max(1)).unwrap_or(i64::MAX),
        });
        let metadata = request.metadata_mut();
        metadata.insert("authorization", token);
        metadata.insert("clusterid", self.cluster.clone());
        request
    }

    async fn connect(&self, roots: RootCertStore) -> Result<Channel, Error> {
        let connect = async {
            match &self.reach {
                Reach::Network {
                    endpoint,
                    server_name,
                    mark,
                } => {
                    let tls = ClientTlsConfig::new()
                        .trust_anchors(roots.roots)
                        .domain_name(server_name);
                    let mark = mark.clone();
                    let dial = service_fn(move |uri: Uri| dial(uri, mark.clone()));
                    let endpoint = Endpoint::clone(endpoint).tls_config(tls)?;
                    endpoint.connect_with_connector(dial).await
                }
                Reach::Agent(open) => {
                    let stream = open();
                    let mut stream = Some(async move { stream.await.map(TokioIo::new) });
                    // Asked for once: a call is one connection.
                    let dial = service_fn(move |_| {
                        let stream = stream.take();
                        async move {
                            match stream {
                                Some(stream) => stream.await,
                                None => Err(io::ErrorKind::NotConnected.into()),
                            }
                        }
                    });
                    Endpoint::from_static("http://agent")
                        .connect_with_connector(dial)
                        .await
                }
            }
        };
        // The endpoint's own limit ends with TCP and TLS; this one covers HTTP/2's beginning as well.
        timeout(CONNECT_TIME, connect)
            .await
            .map_err(|_| self.timed_out("accept a connection", CONNECT_TIME))?
            .map_err(|source| match &self.reach {
                Reach::Network { server_name, .. } => Error::Connect {
                    authority: self.config.authority.clone(),
                    server_name: server_name.clone(),
                    roots: self.config.roots.clone(),
                    source,
                },
                Reach::Agent(_) => Error::Agent { source },
            })
    }

    fn timed_out(&self, stage: &'static str, limit: Duration) -> Error {
        Error::TimedOut {
            authority: self.config.authority.clone(),
            stage,
            limit,
        }
    }

    fn refused(&self, status: &Status) -> Error {
        let remedy = match status.code() {
            tonic::Code::Unauthenticated => {
                format!("put a valid token into {}", self.config.token.display())
            }
            tonic::Code::PermissionDenied => {
                format!("use a token that was made for {}", self.id)
            }
            tonic::Code::Unavailable if matches!(self.reach, Reach::Agent(_)) => {
                "see that the control process runs, and the log of this node's agent".to_owned()
            }
            _ => "see the authority's log".to_owned(),
        };
        Error::Refused {
            authority: self.config.authority.clone(),
            code: status.code(),
            message: status.message().to_owned(),
            remedy,
        }
    }
}

/// Our own connector, because the socket has to be marked before it connects.
async fn dial(uri: Uri, mark: Mark) -> io::Result<TokioIo<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in lookup_host((host, uri.port_u16().unwrap_or(443))).await? {
        match dial_one(addr, &mark).await {
            Ok(stream) => return Ok(TokioIo::new(stream)),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn dial_one(addr: SocketAddr, mark: &Mark) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    mark(socket.as_fd())?;
    socket.set_nodelay(true)?;
    socket.connect(addr).await
}

async fn call(channel: Channel, request: Request<CreateRequest>) -> Result<Vec<String>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<CreateRequest, CreateResponse> = ProstCodec::default();
    let answer = grpc.unary(request, CREATE, codec).await?;
    Ok(answer.into_inner().cert_chain)
}

/// Without `metadata`: that is for callers who ask in another's name.
#[derive(Clone, PartialEq, prost::Message)]
struct CreateRequest {
    #[prost(string, tag = "1")]
    csr: String,
    #[prost(int64, tag = "3")]
    validity_duration: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateResponse {
    #[prost(string, repeated, tag = "1")]
    cert_chain: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn authority(url: &str) -> Result<Authority, Error> {
        Authority::new(
            SpiffeId::new("td.test", "demo", "a").unwrap(),
            Ask {
                authority: url.to_owned(),
                server_name: None,
                roots: "roots.pem".into(),
                token: "token".into(),
                cluster: "c1".into(),
                ttl: Duration::from_secs(60),
                refresh: Duration::from_secs(60),
            },
            Way::Network(Arc::new(|_| Ok(()))),
        )
    }

    #[test]
    fn the_name_to_verify_is_the_host_without_brackets() {
        for (url, name) in [
            ("https://control.test:15012", "control.test"),
            ("https://10.0.0.1:15012", "10.0.0.1"),
            ("https://[fd99::1]:15012", "fd99::1"),
        ] {
            let Reach::Network { server_name, .. } = authority(url).unwrap().reach else {
                panic!("it is in the network");
            };
            assert_eq!(server_name, name);
        }
    }

    #[test]
    fn what_is_no_https_url_is_refused_by_its_field() {
        for url in [
            "",
            "control.test:15012",
            "http://control.test",
            "https://",
            "https:// x",
        ] {
            let error = authority(url).err().unwrap().to_string();
            assert!(error.starts_with("identity.authority:"), "{error}");
        }
    }
}
