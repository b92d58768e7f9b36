//! Whom to believe. Chains are checked by webpki against the workload's own trust bundle; then the leaf must be a
//! SPIFFE leaf (one URI name, no CA), and that name must be the right one. DNS names are never looked at.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::SpiffeId;
use crate::pki;

#[derive(Debug, thiserror::Error)]
#[error("the peer proved {found:?}, expected one of {expected:?}")]
pub(super) struct WrongIdentity {
    pub(super) expected: Vec<SpiffeId>,
    pub(super) found: Vec<SpiffeId>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NotALeaf {
    #[error("the certificate cannot be parsed")]
    Malformed,
    #[error("a CA certificate cannot stand for a workload")]
    Ca,
    #[error("the certificate has {count} URI names; a SPIFFE leaf has exactly one")]
    UriNames { count: usize },
    #[error(
        "the certificate names no workload identity (spiffe://<trust domain>/ns/<namespace>/sa/<account>)"
    )]
    NoIdentity,
    #[error("the client is of trust domain {found}, this mesh is {expected}")]
    TrustDomain { expected: String, found: String },
}

/// The workload identities in a leaf.
pub(super) fn identities(leaf: &CertificateDer<'_>) -> Result<Vec<SpiffeId>, NotALeaf> {
    let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| NotALeaf::Malformed)?;
    if cert.is_ca() {
        return Err(NotALeaf::Ca);
    }
    let uris = pki::uris(&cert).map_err(|_| NotALeaf::Malformed)?;
    if uris.len() != 1 {
        return Err(NotALeaf::UriNames { count: uris.len() });
    }
    let ids: Vec<SpiffeId> = uris.iter().filter_map(|uri| uri.parse().ok()).collect();
    if ids.is_empty() {
        Err(NotALeaf::NoIdentity)
    } else {
        Ok(ids)
    }
}

/// When a leaf ends.
pub(super) fn expiry(leaf: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, cert) = X509Certificate::from_der(leaf).ok()?;
    pki::time(cert.validity().not_after).ok()
}

fn refuse(reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

/// A server is believed when it proves what is expected. An empty expectation always fails.
#[derive(Debug)]
pub(super) struct ExpectedServer {
    roots: Arc<RootCertStore>,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
pub(super) enum Expected {
    OneOf(Vec<SpiffeId>),
    /// Of whatever trust domain: the roots are those of one.
    Account {
        namespace: &'static str,
        account: &'static str,
    },
}

impl ExpectedServer {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        expected: Vec<SpiffeId>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self::proving(Expected::OneOf(expected), roots, provider)
    }

    pub(super) fn proving(
        expected: Expected,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            roots,
            expected,
            provider,
        }
    }
}

impl Expected {
    fn is_met_by(&self, id: &SpiffeId) -> bool {
        match self {
            Self::OneOf(ids) => ids.contains(id),
            Self::Account { namespace, account } => {
                id.namespace() == *namespace && id.service_account() == *account
            }
        }
    }

    /// For the error.
    fn told(&self) -> Vec<SpiffeId> {
        match self {
            Self::OneOf(ids) => ids.clone(),
            Self::Account { namespace, account } => SpiffeId::new("trust-domain", namespace, account)
                .into_iter()
                .collect(),
        }
    }
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let found = identities(leaf).map_err(refuse)?;
        if found.iter().any(|id| self.expected.is_met_by(id)) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refuse(WrongIdentity {
                expected: self.expected.told(),
                found,
            }))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A client is believed when it proves any identity of our own trust domain; what it may do is policy's question.
#[derive(Debug)]
pub(super) struct MeshClient {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl MeshClient {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        trust_domain: &str,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
        Ok(Self {
            chain,
            trust_domain: trust_domain.to_owned(),
        })
    }
}

impl ClientCertVerifier for MeshClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Mesh clients have one certificate; naming our roots would only tell strangers about us.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let found = identities(leaf).map_err(refuse)?;
        match found.iter().find(|id| id.trust_domain() != self.trust_domain) {
            None => Ok(verified),
            Some(stranger) => Err(refuse(NotALeaf::TrustDomain {
                expected: self.trust_domain.clone(),
                found: stranger.trust_domain().to_owned(),
            })),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::testing::authority::Authority;

    fn leaf(names: &[&str]) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|n| rcgen::SanType::URI((*n).try_into().unwrap()))
            .collect();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_leaf_names_exactly_one_workload() {
        let good = leaf(&["spiffe://td.test/ns/a/sa/b"]);
        assert_eq!(
            identities(&good).unwrap(),
            [SpiffeId::new("td.test", "a", "b").unwrap()]
        );
        assert!(expiry(&good).unwrap() > SystemTime::now());
        let two = leaf(&["spiffe://td.test/ns/a/sa/b", "spiffe://td.test/ns/a/sa/c"]);
        assert!(matches!(identities(&two), Err(NotALeaf::UriNames { count: 2 })));
        assert!(matches!(
            identities(&leaf(&[])),
            Err(NotALeaf::UriNames { count: 0 })
        ));
        assert!(matches!(
            identities(&leaf(&["spiffe://td.test/web"])),
            Err(NotALeaf::NoIdentity)
        ));
    }

    /// A stranger chooses these bytes, before anything about them is verified.
    #[test]
    fn mutilated_certificates_are_refused_and_never_a_panic() {
        let ca = Authority::new("root");
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let (roots, provider) = (Arc::new(roots), crate::transport::tls::PROVIDER.clone());
        let id = SpiffeId::new("td.test", "a", "b").unwrap();
        let server = ExpectedServer::new(roots.clone(), vec![id.clone()], provider.clone());
        let client = MeshClient::new(roots, "td.test", provider).unwrap();
        let name = ServerName::try_from("td.test").unwrap();
        let now = UnixTime::now();
        let believed = |leaf: &CertificateDer<'_>| {
            let _ = expiry(leaf);
            [
                server.verify_server_cert(leaf, &[], &name, &[], now).is_ok(),
                client.verify_client_cert(leaf, &[], now).is_ok(),
            ]
        };
        let good = ca.leaf(id.as_str(), |_| {}).chain.swap_remove(0);
        assert_eq!(believed(&good), [true, true]);
        let random = &mut fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let mut der = good.to_vec();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..der.len());
                match random.u8(..3) {
                    0 => der[at] = random.u8(..),
                    1 => der.truncate(at.max(1)),
                    _ => der.insert(at, random.u8(..)),
                }
            }
            if der != *good {
                assert_eq!(believed(&der.into()), [false, false]);
            }
        }
    }
}
