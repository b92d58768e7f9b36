//! Handshakes that must fail, and peers unlike ourselves that must not be refused: each as a client of our server and
//! as a server of our client.

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::{AlertDescription, Error as TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::authority::uri;

/// Why a handshake failed: what our side says, and what the peer is told.
type Refused = (TlsError, TlsError);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Client,
    Server,
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A peer with this certificate in this role, of a mesh with this root.
async fn meet(ca: &Authority, role: Role, leaf: &Leaf, provider: CryptoProvider) -> Result<(), Refused> {
    match role {
        Role::Client => call(ca, stranger::client(Some(leaf), provider)).await,
        Role::Server => answer(ca, stranger::server(leaf, provider)).await,
    }
}

/// A client of our server. It got in when it has our settings.
async fn call(ca: &Authority, config: ClientConfig) -> Result<(), Refused> {
    let gateway = gateway(&ca.svid(&id("server"))).await;
    let greeted = async {
        let session = shake_hands(gateway.addr, config).await?;
        Frames::client(session).await?.until(frames::SETTINGS).await
    };
    let Err(told) = greeted.await else {
        return Ok(());
    };
    while gateway.failures.borrow().is_empty() {
        tokio::task::yield_now().await;
    }
    let said = gateway.failures.borrow_mut().pop_front();
    Err((said_by(said.unwrap()), tls_error(&told)))
}

/// A server of our client. It was believed when it is asked for a connection.
async fn answer(ca: &Authority, config: ServerConfig) -> Result<(), Refused> {
    let (addr, mut sessions) = listen(config).await;
    let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(addr, &id("server")));
    let request = to("10.0.0.2:80");
    let asked = pool.connect(&key, &svid, &request);
    let served = async {
        let mut frames = Frames::server(sessions.recv().await.unwrap()?, &[(3, 100)]).await?;
        let stream = frames.until(frames::HEADERS).await?.stream;
        frames.send(&Frame::ok(stream)).await?;
        Ok(frames)
    };
    match tokio::join!(asked, served) {
        (Ok(_), Ok(_)) => Ok(()),
        (Err(said), Err(told)) => Err((said_by(said), tls_error(&told))),
        (asked, served) => panic!("one side only: {asked:?}, {served:?}"),
    }
}

fn said_by(error: Error) -> TlsError {
    match error {
        Error::Tls { source, .. } => tls_error(&source),
        error => panic!("no refusal by TLS: {error:?}"),
    }
}

fn tls_error(error: &std::io::Error) -> TlsError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    Clone::clone(inner.unwrap_or_else(|| panic!("no error of TLS: {error:?}")))
}

#[track_caller]
fn refused(what: &str, met: Result<(), Refused>, fault: &str, alert: AlertDescription) {
    let (said, told) = met.expect_err(what);
    assert!(format!("{said:?}").contains(fault), "{what}: {said:?}");
    assert_eq!(told, TlsError::AlertReceived(alert), "{what}");
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_now_is_refused_in_both_roles_with_its_fault() {
    use AlertDescription as Alert;
    type Spoil = fn(Role, &mut CertificateParams);
    let spoilt: [(&str, Spoil, &str, Alert); 7] = [
        (
            "expired",
            |_, leaf| {
                leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
                leaf.not_after = rcgen::date_time_ymd(2020, 1, 2);
            },
            "Expired",
            Alert::CertificateExpired,
        ),
        (
            "not valid yet",
            |_, leaf| leaf.not_before = rcgen::date_time_ymd(2999, 1, 1),
            "NotValidYet",
            Alert::CertificateExpired,
        ),
        (
            "for the other role",
            |role, leaf| {
                leaf.extended_key_usages = vec![match role {
                    Role::Client => ExtendedKeyUsagePurpose::ServerAuth,
                    Role::Server => ExtendedKeyUsagePurpose::ClientAuth,
                }];
            },
            "InvalidPurpose",
            Alert::UnsupportedCertificate,
        ),
        (
            "an authority's own",
            |_, leaf| leaf.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            "CaUsedAsEndEntity",
            Alert::CertificateUnknown,
        ),
        (
            "of two names",
            |_, leaf| leaf.subject_alt_names.push(uri(id("other").as_str())),
            "UriNames { count: 2 }",
            Alert::CertificateUnknown,
        ),
        (
            "of no name",
            |_, leaf| leaf.subject_alt_names.clear(),
            "UriNames { count: 0 }",
            Alert::CertificateUnknown,
        ),
        (
            "of a name that is no workload",
            |_, leaf| leaf.subject_alt_names = vec![uri("spiffe://td.test/node/7")],
            "NoIdentity",
            Alert::CertificateUnknown,
        ),
    ];
    locally(async {
        let ca = Authority::new("root");
        for (what, spoil, fault, alert) in spoilt {
            for role in ROLES {
                let leaf = ca.leaf(id("server").as_str(), |leaf| spoil(role, leaf));
                let met = meet(&ca, role, &leaf, stranger::provider()).await;
                refused(&format!("{what}, {role:?}"), met, fault, alert);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_in_both_roles() {
    locally(async {
        let ca = Authority::new("root");
        for role in ROLES {
            let leaf = Authority::new("other").leaf(id("server").as_str(), |_| {});
            let met = meet(&ca, role, &leaf, stranger::provider()).await;
            refused(
                "another authority",
                met,
                "UnknownIssuer",
                AlertDescription::UnknownCA,
            );
            // Found by its name, and not believed.
            let leaf = Authority::new("root").leaf(id("server").as_str(), |_| {});
            let met = meet(&ca, role, &leaf, stranger::provider()).await;
            refused(
                "of the same name",
                met,
                "BadSignature",
                AlertDescription::DecryptError,
            );
            let mut leaf = ca.below("intermediate").leaf(id("server").as_str(), |_| {});
            leaf.chain.truncate(1);
            let met = meet(&ca, role, &leaf, stranger::provider()).await;
            refused(
                "without its intermediate",
                met,
                "UnknownIssuer",
                AlertDescription::UnknownCA,
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_certificate_or_of_another_trust_domain_is_refused() {
    locally(async {
        let ca = Authority::new("root");
        let met = call(&ca, stranger::client(None, stranger::provider())).await;
        refused(
            "nobody",
            met,
            "NoCertificatesPresented",
            AlertDescription::CertificateRequired,
        );
        let leaf = ca.leaf("spiffe://other.test/ns/t/sa/client", |_| {});
        let met = call(&ca, stranger::client(Some(&leaf), stranger::provider())).await;
        refused(
            "a foreigner",
            met,
            "TrustDomain",
            AlertDescription::CertificateUnknown,
        );
    })
    .await;
}

#[tokio::test]
async fn peers_with_other_keys_chains_and_cryptography_are_met_in_both_roles() {
    locally(async {
        let ca = Authority::new("root");
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let id = id("server");
        let leaf = || ca.leaf(id.as_str(), |_| {});
        let all = stranger::provider;
        let groups = |group| CryptoProvider {
            kx_groups: vec![group],
            ..all()
        };
        let suites = |suite| CryptoProvider {
            cipher_suites: vec![suite],
            ..all()
        };
        for role in ROLES {
            for (what, leaf, provider) in [
                ("an RSA key", ca.leaf_for(&rsa, id.as_str(), |_| {}), all()),
                (
                    "an intermediate",
                    ca.below("one").leaf(id.as_str(), |_| {}),
                    all(),
                ),
                (
                    "two intermediates",
                    ca.below("one").below("two").leaf(id.as_str(), |_| {}),
                    all(),
                ),
                ("P-256 only", leaf(), groups(kx_group::SECP256R1)),
                ("P-384 only", leaf(), groups(kx_group::SECP384R1)),
                ("X25519 only", leaf(), groups(kx_group::X25519)),
                ("the hybrid only", leaf(), groups(kx_group::X25519MLKEM768)),
                (
                    "AES-256 only",
                    leaf(),
                    suites(cipher_suite::TLS13_AES_256_GCM_SHA384),
                ),
                (
                    "AES-128 only",
                    leaf(),
                    suites(cipher_suite::TLS13_AES_128_GCM_SHA256),
                ),
            ] {
                let met = meet(&ca, role, &leaf, provider).await;
                assert!(met.is_ok(), "{what}, {role:?}: {met:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_names_no_protocol_is_met_and_one_that_names_only_another_is_not() {
    locally(async {
        let ca = Authority::new("root");
        let leaf = ca.leaf(id("server").as_str(), |_| {});
        for protocols in [vec![], vec![b"http/1.1".to_vec(), b"h2".to_vec()]] {
            let mut client = stranger::client(Some(&leaf), stranger::provider());
            client.alpn_protocols = protocols.clone();
            assert!(call(&ca, client).await.is_ok(), "a client with {protocols:?}");
            let mut server = stranger::server(&leaf, stranger::provider());
            server.alpn_protocols = protocols.clone();
            assert!(answer(&ca, server).await.is_ok(), "a server with {protocols:?}");
        }
        let mut client = stranger::client(Some(&leaf), stranger::provider());
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let met = call(&ca, client).await;
        let alert = AlertDescription::NoApplicationProtocol;
        refused("a client of HTTP/1.1", met, "NoApplicationProtocol", alert);
        let mut server = stranger::server(&leaf, stranger::provider());
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (told, said) = answer(&ca, server).await.unwrap_err();
        assert_eq!(
            (told, said),
            (TlsError::AlertReceived(alert), TlsError::NoApplicationProtocol)
        );
    })
    .await;
}

#[tokio::test]
async fn with_two_roots_in_the_bundle_peers_of_both_are_met_in_both_roles() {
    locally(async {
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let bundle = format!("{}{}", old.pem(), new.pem());
        let ours = |account: &str| new.svid_trusting(&id(account), &bundle);
        for theirs in [&old, &new] {
            let leaf = theirs.leaf(id("stranger").as_str(), |_| {});
            let gateway = gateway(&ours("server")).await;
            let session = shake_hands(gateway.addr, stranger::client(Some(&leaf), stranger::provider()));
            let mut peer = Frames::client(session.await.unwrap()).await.unwrap();
            peer.until(frames::SETTINGS).await.unwrap();

            let (addr, mut sessions) = listen(stranger::server(&leaf, stranger::provider())).await;
            let (pool, svid, key) = (pool(), ours("client"), key(addr, &id("stranger")));
            let request = to("10.0.0.2:80");
            let (asked, _peer) = tokio::join!(pool.connect(&key, &svid, &request), async {
                let session = sessions.recv().await.unwrap().unwrap();
                let mut peer = Frames::server(session, &[(3, 100)]).await.unwrap();
                let stream = peer.until(frames::HEADERS).await.unwrap().stream;
                peer.send(&Frame::ok(stream)).await.unwrap();
                peer
            });
            assert_eq!(asked.unwrap().peer.id, id("stranger"));
        }
    })
    .await;
}

/// The alert protocol_version, as a whole record.
const PROTOCOL_VERSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 70];

/// One handshake message in one record of TLS 1.2.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let mut message = vec![22, 3, 3];
    message.extend(length(body.len() + 4));
    message.extend([kind, 0]);
    message.extend(length(body.len()));
    message.extend_from_slice(body);
    message
}

#[tokio::test]
async fn a_client_of_tls_1_2_is_refused() {
    locally(async {
        let ca = Authority::new("root");
        let gateway = gateway(&ca.svid(&id("server"))).await;
        let mut hello = vec![3, 3];
        hello.extend([7; 32]);
        // No session, ECDHE-ECDSA with AES-128-GCM, no compression, P-256, ECDSA with SHA-256.
        hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
        hello.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
        let mut tcp = TcpStream::connect(gateway.addr).await.unwrap();
        tcp.write_all(&record(1, &hello)).await.unwrap();
        let mut alert = [0; 7];
        tcp.read_exact(&mut alert).await.unwrap();
        assert_eq!(alert, PROTOCOL_VERSION);
    })
    .await;
}

#[tokio::test]
async fn a_server_of_tls_1_2_is_refused() {
    locally(async {
        let ca = Authority::new("root");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (pool, svid) = (pool(), ca.svid(&id("client")));
        let key = key(listener.local_addr().unwrap(), &id("server"));
        let request = to("10.0.0.2:80");
        let served = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = [0; 5];
            tcp.read_exact(&mut head).await.unwrap();
            let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            tcp.read_exact(&mut hello).await.unwrap();
            // The same suite as above, chosen without the extension that a server of TLS 1.3 says so with.
            let mut answer = vec![3, 3];
            answer.extend([7; 32]);
            answer.extend([0, 0xc0, 0x2b, 0]);
            tcp.write_all(&record(2, &answer)).await.unwrap();
            let mut alert = [0; 7];
            tcp.read_exact(&mut alert).await.unwrap();
            alert
        };
        let (asked, alert) = tokio::join!(pool.connect(&key, &svid, &request), served);
        let said = said_by(asked.unwrap_err());
        assert!(matches!(said, TlsError::PeerIncompatible(_)), "{said:?}");
        assert_eq!(alert, PROTOCOL_VERSION);
    })
    .await;
}
