//! A peer of the mesh that is made by hand, at the tunnel port of a pod. Believes whoever answers.

#[expect(
    dead_code,
    reason = "shared with the tests of the transport, which use more of it"
)]
#[path = "../../../sidecar-user/src/testing/mod.rs"]
mod testing;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use harness::cluster::Namespace;
use harness::netns::Netns;
use harness::wait;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::testing::authority::{Authority, Leaf};
use self::testing::frames::{Frames, SETTINGS};
use self::testing::stranger;

const MESH_PORT: u16 = 15008;

/// A root of the mesh, with its key.
pub(super) struct Root {
    authority: Authority,
}

/// What a pod makes of a peer.
#[derive(Debug)]
pub(super) enum Met {
    /// It is let in; this is the pod's own certificate.
    Welcome(CertificateDer<'static>),
    Refused(AlertDescription),
}

impl Root {
    /// In PEM.
    pub(super) fn new(certificate: &str, key: &str) -> Self {
        let key = KeyPair::from_pem(key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(certificate, key).unwrap();
        let pem = certificate.to_owned();
        Self {
            authority: Authority::with(issuer, pem, Vec::new()),
        }
    }

    /// A certificate that is as good as its root, and does not end before a test does.
    pub(super) fn leaf(&self, identity: &str) -> Leaf {
        self.authority.leaf(identity, |_| {})
    }

    /// Whether the chain of a pod's certificate leads here and nowhere else.
    pub(super) fn has_signed(&self, leaf: &CertificateDer<'_>) -> bool {
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap();
        roots.add(own).unwrap();
        let provider = Arc::new(stranger::provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().unwrap();
        verifier.verify_client_cert(leaf, &[], UnixTime::now()).is_ok()
    }
}

/// Meets a pod's sidecar, from the first node.
pub(super) fn meet(namespace: &Namespace, pod: &str, leaf: &Leaf) -> Met {
    let address = namespace.get(&["pod", pod]).unwrap()["status"]["podIP"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let node = Netns::open(&harness::cluster::netns("node-1")).unwrap();
    node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let limit = wait::patiently(wait::SOON);
        runtime.unwrap().block_on(within(limit, address, leaf))
    })
    .unwrap()
}

async fn within(limit: Duration, address: IpAddr, leaf: &Leaf) -> Met {
    let mut own = None;
    let greeted = tokio::time::timeout(limit, greet(address, leaf, &mut own)).await;
    match greeted.expect("the sidecar answers") {
        Ok(()) => Met::Welcome(own.expect("a server has a certificate")),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => Met::Refused(*alert),
            _ => panic!("neither welcome nor refused: {error:?}"),
        },
    }
}

async fn greet(address: IpAddr, leaf: &Leaf, own: &mut Option<CertificateDer<'static>>) -> io::Result<()> {
    let tls = stranger::client(Some(leaf), stranger::provider());
    let tcp = TcpStream::connect((address, MESH_PORT)).await?;
    let connector = TlsConnector::from(Arc::new(tls));
    let session = connector.connect(ServerName::from(address), tcp).await?;
    let chain = session.get_ref().1.peer_certificates();
    *own = chain.and_then(<[_]>::first).map(|leaf| leaf.clone().into_owned());
    // TLS 1.3 lets a client be done before it is judged: the alert comes in the place of the first answer.
    Frames::client(session).await?.until(SETTINGS).await?;
    Ok(())
}
