//! What the CA signs and what it refuses, judged by parsers that are not the one that wrote it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;

use super::scratch::Scratch;
use super::{Ca, Config, Error, Refusal, Store};
use crate::model::SpiffeId;

const DAY: Duration = Duration::from_secs(86_400);

fn id() -> SpiffeId {
    SpiffeId::new("td.test", "demo", "client").unwrap()
}

fn ca(now: SystemTime) -> Ca {
    Ca::ephemeral("td.test", DAY, now).unwrap()
}

fn config(state_dir: &Path) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: state_dir.to_owned(),
        trust_domain: "td.test".to_owned(),
        leaf_ttl: DAY,
        server_names: vec!["control.test".to_owned(), "10.0.0.1".to_owned()],
    }
}

fn csr(key: &KeyPair, names: &[SanType]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

fn uris<'a>(cert: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let san = cert.subject_alternative_name().unwrap().unwrap();
    san.value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => *uri,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_leaf_has_the_profile_of_istiod() {
    let now = SystemTime::now();
    let ca = ca(now);
    let key = KeyPair::generate().unwrap();
    let pem = ca
        .issue(&csr(&key, &[uri(id().as_str())]), &id(), Some(DAY / 2), now)
        .unwrap()
        .pem;
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 1);
    let der = der(&pem);
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();

    assert_eq!(uris(&leaf), [id().as_str()]);
    assert_eq!(leaf.subject().iter().count(), 0);
    let san = leaf.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME).unwrap();
    assert!(san.unwrap().critical);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(
        usage.value.flags, 0b101,
        "digitalSignature and keyEncipherment only"
    );
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    assert_eq!(leaf.validity().not_before.timestamp(), seconds(now) - 120);
    assert_eq!(
        leaf.validity().not_after.timestamp(),
        seconds(now) + DAY.as_secs() as i64 / 2
    );
    assert!(
        leaf.extensions()
            .iter()
            .any(|ext| matches!(ext.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_)))
    );
    let (_, root) = x509_parser::parse_x509_certificate(ca.root_der()).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn the_root_is_a_spiffe_signing_certificate() {
    let now = SystemTime::now();
    let ca = ca(now);
    let (_, root) = x509_parser::parse_x509_certificate(ca.root_der()).unwrap();
    assert_eq!(uris(&root), ["spiffe://td.test"]);
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(
        constraints.value.path_len_constraint,
        Some(0),
        "it signs leaves only"
    );
    let usage = root.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && !usage.digital_signature());
    assert!(root.extended_key_usage().unwrap().is_none());
    assert_eq!(root.validity().not_after.timestamp(), seconds(ca.ends()));
    root.verify_signature(None).unwrap();
}

#[test]
fn two_leaves_of_one_key_have_different_serial_numbers() {
    let now = SystemTime::now();
    let ca = ca(now);
    let request = csr(&KeyPair::generate().unwrap(), &[]);
    let serial = || {
        let der = der(&ca.issue(&request, &id(), None, now).unwrap().pem);
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        leaf.raw_serial().to_vec()
    };
    let (first, second) = (serial(), serial());
    assert_ne!(first, second);
    assert!(first.len() == 16 && first[0] & 0x80 == 0, "{first:x?}");
}

#[test]
fn a_leaf_outlives_neither_the_limit_nor_the_root() {
    let now = SystemTime::now();
    let ca = ca(now);
    let request = csr(&KeyPair::generate().unwrap(), &[]);
    let end = |ttl, at| {
        let der = der(&ca.issue(&request, &id(), ttl, at).unwrap().pem);
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        leaf.validity().not_after.timestamp()
    };
    assert_eq!(end(Some(Duration::MAX), now), seconds(now + DAY));
    assert_eq!(end(None, now), seconds(now + DAY));
    assert_eq!(end(Some(Duration::ZERO), now), seconds(now + DAY));
    assert_eq!(
        end(Some(Duration::from_secs(10)), now),
        seconds(now + Duration::from_secs(10))
    );
    let late = ca.ends() - Duration::from_secs(60);
    assert_eq!(end(Some(DAY), late), seconds(ca.ends()));
    assert!(matches!(
        ca.issue(&request, &id(), None, ca.ends()),
        Err(Refusal::RootExpired)
    ));
}

#[test]
fn requests_of_the_usual_keys_are_signed() {
    let now = SystemTime::now();
    let ca = ca(now);
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA512,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = der(&ca.issue(&csr(&key, &[]), &id(), None, now).unwrap().pem);
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(
            leaf.public_key().subject_public_key.data.as_ref(),
            key.public_key_raw(),
            "{algorithm:?}"
        );
    }
}

#[test]
fn the_requests_subject_and_other_wishes_do_not_reach_the_leaf() {
    let now = SystemTime::now();
    let ca = ca(now);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let der = der(&ca.issue(&request, &id(), None, now).unwrap().pem);
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().iter().count(), 0);
    assert!(!leaf.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn a_request_for_any_other_name_is_refused() {
    let now = SystemTime::now();
    let ca = ca(now);
    let key = KeyPair::generate().unwrap();
    for names in [
        vec![uri("spiffe://td.test/ns/demo/sa/admin")],
        vec![uri(id().as_str()), uri("spiffe://td.test/ns/demo/sa/admin")],
        vec![SanType::DnsName("control.test".try_into().unwrap())],
        vec![uri(id().as_str()), SanType::IpAddress([10, 0, 0, 1].into())],
    ] {
        let refusal = ca.issue(&csr(&key, &names), &id(), None, now).unwrap_err();
        assert!(
            matches!(refusal, Refusal::OtherName { .. }),
            "{names:?}: {refusal}"
        );
    }
    let foreign = SpiffeId::new("other.test", "demo", "client").unwrap();
    assert!(matches!(
        ca.issue(&csr(&key, &[]), &foreign, None, now),
        Err(Refusal::ForeignDomain { .. })
    ));
}

#[test]
fn a_request_that_does_not_hold_the_private_key_is_refused() {
    let now = SystemTime::now();
    let ca = ca(now);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let mut der = params
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec();
    // The public key of another pair in the same request: same length, other point.
    let (mine, other) = (
        public_key_of(&der),
        KeyPair::generate().unwrap().public_key_raw().to_vec(),
    );
    let at = der.windows(mine.len()).position(|window| window == mine).unwrap();
    der[at..at + other.len()].copy_from_slice(&other);
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64_of(&der)
    );
    let refusal = ca.issue(&pem, &id(), None, now).unwrap_err().to_string();
    assert!(refusal.contains("signature"), "{refusal}");
}

#[test]
fn weak_and_odd_requests_are_refused_by_name() {
    let now = SystemTime::now();
    let ca = ca(now);
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (request, reason) in [
        (String::new(), "no PEM block"),
        ("x".repeat(20_000), "20000 bytes"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".to_owned(),
            "PKCS#10",
        ),
        (ca.bundle().to_owned(), "no PEM block"),
        (csr(&ed25519, &[]), "signature algorithm"),
    ] {
        let refusal = ca.issue(&request, &id(), None, now).unwrap_err();
        assert!(matches!(refusal, Refusal::BadRequest { .. }));
        assert!(refusal.to_string().contains(reason), "{refusal}");
    }
}

#[test]
fn openssl_agrees_with_root_leaf_and_its_own_requests() {
    let scratch = Scratch::new();
    let now = SystemTime::now();
    let ca = ca(now);
    std::fs::write(scratch.join("root.pem"), ca.bundle()).unwrap();
    for (name, options) in [
        ("rsa", &["rsa:2048"][..]),
        ("ec", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
    ] {
        let san = format!("subjectAltName=URI:{}", id());
        let mut args = vec!["req", "-new", "-nodes", "-subj", "/", "-addext", &san, "-newkey"];
        args.extend(options);
        args.extend(["-keyout", "key.pem", "-out", "csr.pem"]);
        openssl(scratch.path(), &args);
        let request = std::fs::read_to_string(scratch.join("csr.pem")).unwrap();
        let leaf = ca.issue(&request, &id(), None, now).unwrap().pem;
        std::fs::write(scratch.join("leaf.pem"), leaf).unwrap();
        for purpose in ["sslclient", "sslserver"] {
            let verdict = openssl(
                scratch.path(),
                &[
                    "verify",
                    "-x509_strict",
                    "-purpose",
                    purpose,
                    "-CAfile",
                    "root.pem",
                    "leaf.pem",
                ],
            );
            assert!(verdict.contains("leaf.pem: OK"), "{name}: {verdict}");
        }
        let text = openssl(scratch.path(), &["x509", "-in", "leaf.pem", "-noout", "-text"]);
        assert!(text.contains(&format!("URI:{}", id())), "{text}");
        assert!(
            text.contains("X509v3 Subject Alternative Name: critical"),
            "{text}"
        );
    }
}

#[test]
fn a_root_is_kept_across_restarts() {
    let scratch = Scratch::new();
    let config = config(&scratch.join("state"));
    let first = Store::open(&config).unwrap().current();
    let again = Store::open(&config).unwrap().current();
    assert_eq!(first.bundle(), again.bundle());
    assert_eq!(seconds(first.ends()), seconds(again.ends()));
    let now = SystemTime::now();
    let request = csr(&KeyPair::generate().unwrap(), &[]);
    let der = der(&again.issue(&request, &id(), None, now).unwrap().pem);
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
    let (_, root) = x509_parser::parse_x509_certificate(first.root_der()).unwrap();
    leaf.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(leaf.issuer(), root.subject());
}

#[test]
fn a_key_without_certificate_is_finished_and_a_certificate_without_key_is_an_error() {
    let scratch = Scratch::new();
    let config = config(&scratch.join("state"));
    Store::open(&config).unwrap();
    std::fs::remove_file(config.state_dir.join("root-cert.pem")).unwrap();
    Store::open(&config).unwrap();
    std::fs::remove_file(config.state_dir.join("root-key.pem")).unwrap();
    let error = Store::open(&config).err().unwrap().to_string();
    assert!(
        error.contains("root-key.pem") && error.contains("restore"),
        "{error}"
    );
}

#[test]
fn state_of_another_trust_domain_is_an_error() {
    let scratch = Scratch::new();
    let mut config = config(&scratch.join("state"));
    Store::open(&config).unwrap();
    config.trust_domain = "other.test".to_owned();
    let error = Store::open(&config).err().unwrap();
    assert!(matches!(error, Error::TrustDomain { .. }));
    assert!(error.to_string().contains("trustDomain: td.test"), "{error}");
    let foreign = SpiffeId::new("other.test", "demo", "a").unwrap();
    let request = super::token::Request {
        identity: foreign,
        label: None,
        life: None,
    };
    let error = super::token::create(&config.state_dir, &request, SystemTime::now())
        .err()
        .unwrap();
    assert!(matches!(error, Error::ForeignIdentity { .. }), "{error}");
}

#[test]
fn a_root_key_that_others_can_read_is_refused() {
    let scratch = Scratch::new();
    let config = config(&scratch.join("state"));
    Store::open(&config).unwrap();
    let key = config.state_dir.join("root-key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Store::open(&config).err().unwrap().to_string();
    assert!(
        error.contains(&format!("chmod 0600 {}", key.display())),
        "{error}"
    );
}

#[test]
fn a_damaged_or_foreign_root_is_refused() {
    let scratch = Scratch::new();
    let config = config(&scratch.join("state"));
    Store::open(&config).unwrap();
    let path = config.state_dir.join("root-cert.pem");
    for (text, reason) in [
        ("not PEM", "no certificate in PEM"),
        (ca(SystemTime::now()).bundle(), "does not belong to root-key.pem"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Store::open(&config).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

fn public_key_of(der: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::FromDer;
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(der).unwrap();
    let key = &request.certification_request_info.subject_pki.subject_public_key;
    key.data.to_vec()
}

/// RFC 4648, for wrapping damaged DER.
fn base64_of(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0u32, |word, (n, byte)| word | u32::from(*byte) << (16 - 8 * n));
        for digit in 0..4 {
            text.push(if digit <= chunk.len() {
                char::from(ALPHABET[(word >> (18 - 6 * digit) & 63) as usize])
            } else {
                '='
            });
        }
    }
    text
}

fn openssl(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .output()
        .expect("openssl is needed; run: apt-get install openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "openssl {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
