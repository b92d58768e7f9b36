//! TLS 1.3 with both sides proving a SPIFFE identity. `verify` decides whom to believe.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod verify;

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, CommonState, ProtocolVersion, RootCertStore, ServerConfig, version::TLS13};

use crate::identity::Svid;
use crate::model::{SpiffeId, TlsFacts};
use verify::{Expected, ExpectedServer, MeshClient, WrongIdentity};

const ALPN: &[u8] = b"h2";

/// AES-128 first: 13-16 % faster than AES-256 with AES instructions. The post-quantum hybrid first: it costs
/// 62 + 27 us per handshake, and handshakes are rare with warm tunnels.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use aws_lc_rs::{cipher_suite as suite, kx_group as kx};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx::X25519MLKEM768, kx::X25519, kx::SECP256R1, kx::SECP384R1],
        ..aws_lc_rs::default_provider()
    })
});

/// What the other side of a session proved.
#[derive(Clone, Debug)]
pub struct Peer {
    pub id: SpiffeId,
    pub facts: TlsFacts,
    /// When the proof ends: no new stream is begun on a tunnel after it.
    pub expires: SystemTime,
    /// Leaf first, as it was shown.
    chain: Arc<[CertificateDer<'static>]>,
    side: Side,
}

impl Peer {
    /// Would its proof be accepted now, with the roots that this certificate came with?
    pub fn is_trusted_by(&self, svid: &Svid) -> bool {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return false;
        };
        let now = UnixTime::now();
        let roots = svid.roots().clone();
        match self.side {
            Side::Client => MeshClient::new(roots, svid.id().trust_domain(), PROVIDER.clone())
                .is_ok_and(|verifier| verifier.verify_client_cert(leaf, intermediates, now).is_ok()),
            Side::Server => {
                let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
                ExpectedServer::new(roots, vec![self.id.clone()], PROVIDER.clone())
                    .verify_server_cert(leaf, intermediates, &name, &[], now)
                    .is_ok()
            }
        }
    }

    /// One that has shown nothing.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn for_tests(id: SpiffeId) -> Self {
        Self {
            id,
            facts: TlsFacts {
                version: "none",
                cipher: "none",
                key_exchange: "none",
                reused_tunnel: false,
            },
            expires: SystemTime::now(),
            chain: Arc::new([]),
            side: Side::Client,
        }
    }
}

/// What the peer is in the handshake. A certificate may be good for one of the two only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// The client's side of one dial: the peer must prove one of `expected`.
pub(super) fn client_config(svid: &Svid, expected: Vec<SpiffeId>) -> Arc<ClientConfig> {
    let verifier = ExpectedServer::new(svid.roots().clone(), expected, PROVIDER.clone());
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            svid.certified_key().clone(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // HBONE peers are told apart by identity, not by name.
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// The server's side: clients must prove an identity of our own trust domain. Fails when the trust bundle holds
/// no usable root.
pub fn server_config(svid: &Svid) -> Result<Arc<ServerConfig>, rustls::server::VerifierBuilderError> {
    let verifier = MeshClient::new(svid.roots().clone(), svid.id().trust_domain(), PROVIDER.clone())?;
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            svid.certified_key().clone(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Tunnels stay open; a ticket nobody redeems is work for nothing.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The server's side where people ask an agent: they prove nothing by TLS.
pub fn api_server(svid: &Svid) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
            svid.certified_key().clone(),
        )));
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// The client's side of the same: the agent has to prove that it is one, by a chain to these roots.
pub fn api_client(
    roots: Arc<RootCertStore>,
    namespace: &'static str,
    account: &'static str,
) -> Arc<ClientConfig> {
    let agent = Expected::Account { namespace, account };
    let verifier = ExpectedServer::proving(agent, roots, PROVIDER.clone());
    let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Who is at the other end of an established session.
pub(super) fn peer(session: &CommonState, side: Side, reused_tunnel: bool) -> Option<Peer> {
    let chain = session.peer_certificates()?;
    let leaf = chain.first()?;
    // The first name is the one that policy goes by (wire.md 1.2); verification has refused all but one.
    let id = verify::identities(leaf).ok()?.into_iter().next()?;
    let facts = TlsFacts {
        // Spelt as everybody spells it; rustls says TLSv1_3.
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        },
        cipher: session
            .negotiated_cipher_suite()
            .and_then(|s| s.suite().as_str())
            .unwrap_or("unknown"),
        key_exchange: session
            .negotiated_key_exchange_group()
            .and_then(|g| g.name().as_str())
            .unwrap_or("unknown"),
        reused_tunnel,
    };
    Some(Peer {
        id,
        facts,
        expires: verify::expiry(leaf)?,
        chain: chain.iter().map(|cert| cert.clone().into_owned()).collect(),
        side,
    })
}

/// The identities a refused server proved, when that was the reason of the refusal.
pub(super) fn wrong_identity(error: &io::Error) -> Option<Vec<SpiffeId>> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error else {
        return None;
    };
    other.0.downcast_ref::<WrongIdentity>().map(|w| w.found.clone())
}
