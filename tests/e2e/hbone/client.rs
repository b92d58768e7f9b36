//! A small HBONE client with any certificate, or none. Does not check who answers: the tests ask whom the server lets
//! in, not the other way round.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use harness::Mesh;
use harness::mesh::{Control, ports};
use http::Request;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;

/// Signs leaves, as the mesh's own authority or as one that nobody knows.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

pub(crate) struct Leaf {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    /// With the key of a running control process.
    pub(crate) fn of(control: &Control) -> Result<Self> {
        let key = KeyPair::from_pem(&fs::read_to_string(control.state().join("root-key.pem"))?)?;
        Ok(Self(Issuer::from_ca_cert_pem(
            &fs::read_to_string(control.root())?,
            key,
        )?))
    }

    pub(crate) fn foreign() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Ok(Self(Issuer::new(params, KeyPair::generate()?)))
    }

    pub(crate) fn leaf(&self, uri: &str) -> Result<Leaf> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.into();
        Ok(Leaf {
            certificate,
            key: key.serialize_der(),
        })
    }
}

/// What the client proves and asks.
pub(crate) struct Client {
    tls: ClientConfig,
    method: &'static str,
    forwarded: Option<String>,
}

impl Client {
    pub(crate) fn with(leaf: &Leaf) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.key.clone()));
        let tls = Self::tls().with_client_auth_cert(vec![leaf.certificate.clone()], key);
        Self::new(tls.expect("a key that belongs to its certificate"))
    }

    pub(crate) fn anonymous() -> Self {
        Self::new(Self::tls().with_no_client_auth())
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Names the client on whose behalf it asks, truly or not.
    pub(crate) fn forwarded_for(mut self, client: &str) -> Self {
        self.forwarded = Some(format!("for=\"{client}\""));
        self
    }

    /// Names the service that it asked for, truly or not.
    pub(crate) fn forwarded_host(mut self, host: &str) -> Self {
        self.forwarded = Some(format!("host={host}"));
        self
    }

    fn tls() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider knows TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    }

    fn new(mut tls: ClientConfig) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            tls,
            method: "CONNECT",
            forwarded: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) proxy_status: String,
    /// What came back for what was sent.
    pub(crate) body: Vec<u8>,
    /// Where the tunnel comes from.
    pub(crate) source: SocketAddr,
}

/// One request from outside the mesh to a pod's tunnel port. With status 200 it sends `payload`, ends its side, and reads
/// to the end.
pub(crate) fn connect(
    mesh: &Mesh,
    client: Client,
    server: IpAddr,
    authority: &str,
    payload: &[u8],
) -> Result<Answer> {
    mesh.outside.run_in(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let limit = Duration::from_secs(20);
        runtime
            .block_on(async { tokio::time::timeout(limit, ask(client, server, authority, payload)).await })?
    })?
}

/// Opens a stream, calls `then` when it is there, and gives the code of the reset that ends it.
pub(crate) fn until_reset(
    mesh: &Mesh,
    client: Client,
    to: SocketAddr,
    then: impl FnOnce() -> Result<()> + Send,
) -> Result<Option<h2::Reason>> {
    mesh.outside.run_in(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let reset = async {
            let (_, response, _sender) = request(client, to.ip(), &to.to_string()).await?;
            let (head, mut body) = response.into_parts();
            anyhow::ensure!(head.status == 200, "{}", head.status);
            then()?;
            match body.data().await {
                Some(Err(error)) => Ok(error.reason()),
                other => anyhow::bail!("{other:?} came instead of a reset"),
            }
        };
        let limit = Duration::from_secs(20);
        runtime.block_on(async { tokio::time::timeout(limit, reset).await })?
    })?
}

async fn ask(client: Client, server: IpAddr, authority: &str, payload: &[u8]) -> Result<Answer> {
    let (source, response, mut sender) = request(client, server, authority).await?;
    let (head, mut body) = response.into_parts();
    let proxy_status = head
        .headers
        .get("proxy-status")
        .map(|v| v.to_str())
        .transpose()?
        .unwrap_or_default();
    let mut answer = Answer {
        status: head.status.as_u16(),
        proxy_status: proxy_status.into(),
        body: Vec::new(),
        source,
    };
    if answer.status == 200 {
        sender.send_data(Bytes::copy_from_slice(payload), true)?;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.context("the tunnel broke")?;
            body.flow_control().release_capacity(chunk.len())?;
            answer.body.extend_from_slice(&chunk);
        }
    }
    Ok(answer)
}

/// Where the tunnel comes from, what is answered, and where to send.
async fn request(
    client: Client,
    server: IpAddr,
    authority: &str,
) -> Result<(SocketAddr, http::Response<h2::RecvStream>, h2::SendStream<Bytes>)> {
    let tcp = TcpStream::connect((server, ports::HBONE)).await?;
    let source = tcp.local_addr()?;
    let name = ServerName::from(server);
    let tls = tokio_rustls::TlsConnector::from(Arc::new(client.tls))
        .connect(name, tcp)
        .await?;
    let (mut requests, connection) = h2::client::handshake(tls).await?;
    // Dropped, and so closed, with the runtime.
    tokio::spawn(connection);
    let mut request = Request::builder().method(client.method).uri(authority);
    if let Some(forwarded) = client.forwarded {
        request = request.header("forwarded", forwarded);
    }
    let request = request.body(())?;
    let (response, sender) = requests.send_request(request, false)?;
    Ok((source, response.await?, sender))
}

/// Accepts every certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
