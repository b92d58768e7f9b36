//! Asks an authority for a certificate: the Istio certificate service, as a client (`wire.md` 2).
//!
//! The only file here that knows its messages. It does not judge the answer. Each call has a connection of its
//! own: calls are hours apart, and roots and token are read anew for each.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;
use zeroize::Zeroizing;

use super::{Config, Error, Mark};

const CREATE: PathAndQuery =
    PathAndQuery::from_static("/istio.v1.auth.IstioCertificateService/CreateCertificate");
/// What istiod calls the only cluster unless told otherwise.
const CLUSTER: &str = "Kubernetes";
const CONNECT_TIME: Duration = Duration::from_secs(5);
const CALL_TIME: Duration = Duration::from_secs(10);
/// A chain and a bundle of a hundred roots fit in several times.
const MAX_ANSWER: usize = 1 << 20;
/// A Kubernetes token is about 1 KiB; more than this is some other file.
const MAX_TOKEN: usize = 16 << 10;
const ROOTS_REMEDY: &str = "put the authority's root-cert.pem there";
const TOKEN_REMEDY: &str = "put a token there: outrigger token create";

/// A checked configuration.
pub(super) struct Authority {
    config: Config,
    endpoint: Endpoint,
    server_name: String,
    mark: Mark,
}

impl Authority {
    pub(super) fn new(config: Config, mark: Mark) -> Result<Self, Error> {
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
        let endpoint = Endpoint::from(uri.clone());
        Ok(Self {
            config,
            endpoint,
            server_name,
            mark,
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Sends the request and returns the certificate strings as they came.
    pub(super) async fn create(&self, csr: String) -> Result<Vec<String>, Error> {
        let request = self.request(csr)?;
        let channel = self.connect().await?;
        let answer = timeout(CALL_TIME, call(channel, request))
            .await
            .map_err(|_| self.timed_out("answer", CALL_TIME))?;
        answer.map_err(|status| self.refused(&status))
    }

    fn request(&self, csr: String) -> Result<Request<CreateRequest>, Error> {
        let mut request = Request::new(CreateRequest {
            csr,
            validity_duration: i64::try_from(self.config.ttl.as_secs().max(1)).unwrap_or(i64::MAX),
        });
        let metadata = request.metadata_mut();
        metadata.insert("authorization", bearer(&self.config.token)?);
        metadata.insert("clusterid", MetadataValue::from_static(CLUSTER));
        Ok(request)
    }

    async fn connect(&self) -> Result<Channel, Error> {
        let tls = ClientTlsConfig::new()
            .trust_anchors(roots(&self.config.roots)?.roots)
            .domain_name(&self.server_name);
        let mark = self.mark.clone();
        let dial = service_fn(move |uri: Uri| dial(uri, mark.clone()));
        let connect = async {
            let endpoint = self.endpoint.clone().tls_config(tls)?;
            endpoint.connect_with_connector(dial).await
        };
        // The endpoint's own limit ends with TCP and TLS; this one covers HTTP/2's beginning as well.
        timeout(CONNECT_TIME, connect)
            .await
            .map_err(|_| self.timed_out("accept a connection", CONNECT_TIME))?
            .map_err(|source| Error::Connect {
                authority: self.config.authority.clone(),
                server_name: self.server_name.clone(),
                roots: self.config.roots.clone(),
                source,
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
                format!("use a token that was made for {}", self.config.id)
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

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    roots_of(path, &read("roots", path, ROOTS_REMEDY)?)
}

pub(super) fn roots_of(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    let bad = |reason: String| Error::Content {
        field: "roots",
        path: path.to_owned(),
        reason,
        remedy: ROOTS_REMEDY,
    };
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        let cert = cert.map_err(|error| bad(format!("is no PEM: {error}")))?;
        store
            .add(cert)
            .map_err(|error| bad(format!("holds a certificate that is no root: {error}")))?;
    }
    if store.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(store)
}

fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, Error> {
    bearer_of(path, &read("token", path, TOKEN_REMEDY)?)
}

pub(super) fn bearer_of(path: &Path, bytes: &[u8]) -> Result<MetadataValue<Ascii>, Error> {
    let bad = |reason: &str| Error::Content {
        field: "token",
        path: path.to_owned(),
        reason: reason.to_owned(),
        remedy: TOKEN_REMEDY,
    };
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(bad("is empty"));
    }
    if token.len() > MAX_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(bad("is not one line of printable characters"));
    }
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token);
    let mut value = MetadataValue::try_from(header.as_slice()).map_err(|_| bad("is no header value"))?;
    // Keeps it out of debug output and of HPACK's table.
    value.set_sensitive(true);
    Ok(value)
}

fn read(field: &'static str, path: &Path, remedy: &'static str) -> Result<Zeroizing<Vec<u8>>, Error> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|source| Error::Read {
            field,
            path: path.to_owned(),
            remedy,
            source,
        })
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
    use crate::model::SpiffeId;

    /// A file of one test, gone when the test is.
    struct Temporary(std::path::PathBuf);

    impl Temporary {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("outrigger-identity-{}-{name}", std::process::id()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn authority(url: &str) -> Result<Authority, Error> {
        Authority::new(
            Config {
                id: SpiffeId::new("td.test", "demo", "a").unwrap(),
                authority: url.to_owned(),
                server_name: None,
                roots: "roots.pem".into(),
                token: "token".into(),
                ttl: Duration::from_secs(60),
            },
            Arc::new(|_| Ok(())),
        )
    }

    #[test]
    fn the_name_to_verify_is_the_host_without_brackets() {
        for (url, name) in [
            ("https://control.test:15012", "control.test"),
            ("https://10.0.0.1:15012", "10.0.0.1"),
            ("https://[fd99::1]:15012", "fd99::1"),
        ] {
            assert_eq!(authority(url).unwrap().server_name, name);
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

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let file = Temporary::new("token-good", b"  ort_abc\n");
        let value = bearer(&file.0).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer ort_abc");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn a_file_that_is_no_token_is_refused_without_showing_it() {
        for (name, content) in [
            ("empty", &b" \n"[..]),
            ("lines", b"one\ntwo"),
            ("binary", b"a\xffb"),
            ("large", &[b'a'; MAX_TOKEN + 1]),
        ] {
            let file = Temporary::new(name, content);
            let error = bearer(&file.0).unwrap_err();
            assert!(error.is_local());
            let error = error.to_string();
            assert!(
                error.contains("outrigger token create") && error.len() < 300,
                "{error}"
            );
        }
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused_by_its_path() {
        let file = Temporary::new("roots", b"nothing");
        let error = roots(&file.0).unwrap_err().to_string();
        assert!(
            error.contains("holds no certificate") && error.contains("root-cert.pem"),
            "{error}"
        );
    }
}
