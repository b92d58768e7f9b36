//! Requests as kubelets make them, and every one that is refused, with built objects.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SanType, SignatureAlgorithm};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn ca(leaf_ttl: Duration) -> Ca {
    Ca::ephemeral("td.test", leaf_ttl, now()).unwrap()
}

/// As a kubelet makes it: empty.
fn stub(key: &KeyPair) -> Vec<u8> {
    named(key, &[])
}

fn named(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::URI((*name).try_into().unwrap()))
        .collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn ask<'a>(key: PodKey<'a>, longest: Duration) -> PodRequest<'a> {
    PodRequest {
        namespace: "demo",
        service_account: "web.v1",
        key,
        longest,
        annotations: &[],
    }
}

/// Its kind, reason and message.
fn refusal(ca: &Ca, request: &PodRequest<'_>) -> (&'static str, &'static str, String) {
    match ca.issue_for_pod(request, now(), 0.0).unwrap_err() {
        PodRefusal::Denied { reason, message } => ("Denied", reason, message),
        PodRefusal::Failed { reason, message } => ("Failed", reason, message),
        PodRefusal::NotNow(refusal) => ("NotNow", "", refusal.to_string()),
    }
}

#[test]
fn a_key_of_each_kind_gets_a_leaf_of_the_meshs_profile_by_namespace_and_account() {
    let kinds: [&'static SignatureAlgorithm; 3] = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ];
    let mut keys: Vec<KeyPair> = kinds.map(|kind| KeyPair::generate_for(kind).unwrap()).into();
    keys.push(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072).unwrap());
    let ca = ca(DAY);
    for key in &keys {
        let (request, spki) = (stub(key), key.subject_public_key_info());
        for asked in [PodKey::Request(&request), PodKey::Key(&spki)] {
            let got = ca.issue_for_pod(&ask(asked, DAY), now(), 0.0).unwrap();
            assert_eq!(got.identity.as_str(), "spiffe://td.test/ns/demo/sa/web.v1");
            let (_, pem) = x509_parser::pem::parse_x509_pem(got.issued.pem.as_bytes()).unwrap();
            let cert = pem.parse_x509().unwrap();
            assert_eq!(cert.public_key().raw, spki);
            assert_eq!(crate::pki::uris(&cert).unwrap(), [got.identity.as_str()]);
            assert!(
                !cert.is_ca() && cert.subject().as_raw().len() == 2,
                "an empty subject"
            );
            let san = cert.subject_alternative_name().unwrap().unwrap();
            assert!(san.critical && san.value.general_names.len() == 1);
            let usage = cert.key_usage().unwrap().unwrap();
            assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
            let purposes = cert.extended_key_usage().unwrap().unwrap().value;
            assert!(purposes.server_auth && purposes.client_auth);
            let time = |time| crate::pki::time(time).unwrap();
            assert_eq!(time(cert.validity().not_before), got.not_before);
            assert_eq!(time(cert.validity().not_after), got.issued.not_after);
        }
    }
}

#[test]
fn a_life_is_the_shortest_of_what_pod_and_signer_allow_counted_from_its_beginning() {
    let key = KeyPair::generate().unwrap();
    let request = stub(&key);
    let life = |leaf_ttl, longest| {
        let got = ca(leaf_ttl)
            .issue_for_pod(&ask(PodKey::Request(&request), longest), now(), 0.0)
            .unwrap();
        got.issued.not_after.duration_since(got.not_before).unwrap()
    };
    assert_eq!(life(7 * DAY, DAY), DAY);
    assert_eq!(life(DAY, 7 * DAY), DAY + sign::BACKDATE);
    assert_eq!(life(DAY, HOUR), HOUR, "the least that the API server takes");
    assert_eq!(life(HOUR, DAY), HOUR + sign::BACKDATE);
}

#[test]
fn renewal_begins_at_about_seventy_hundredths_and_never_within_ten_minutes_of_an_end() {
    let key = KeyPair::generate().unwrap();
    let request = stub(&key);
    for (longest, chance, after) in [
        (10 * DAY, 0.0, (10 * DAY - sign::BACKDATE).mul_f64(0.7)),
        (10 * DAY, 1.0, (10 * DAY - sign::BACKDATE).mul_f64(0.65)),
        (HOUR, 0.0, (HOUR - sign::BACKDATE).mul_f64(0.7)),
    ] {
        let got = ca(90 * DAY)
            .issue_for_pod(&ask(PodKey::Request(&request), longest), now(), chance)
            .unwrap();
        let found = got.refresh_at.duration_since(now()).unwrap();
        assert_eq!(found.as_secs(), after.as_secs());
        let kubelets_chance = Duration::from_secs(300);
        assert!(got.refresh_at + kubelets_chance + Duration::from_secs(60) < got.issued.not_after);
    }
}

#[test]
fn what_no_signer_here_takes_is_denied_with_a_word_and_a_remedy() {
    let (ca, key) = (ca(DAY), KeyPair::generate().unwrap());
    let good = stub(&key);
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let weak = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let longer = [good.as_slice(), b"x"].concat();
    let other = named(&key, &["spiffe://td.test/ns/demo/sa/admin"]);
    let (p521, weak_stub) = (stub(&p521), stub(&weak));
    let weak_key = weak.subject_public_key_info();
    for (asked, reason, words) in [
        (PodKey::Request(&p521), "UnsupportedKeyType", "ECDSAP256"),
        (
            PodKey::Request(&weak_stub),
            "UnsupportedKeyType",
            "RSA key of 2048 bits",
        ),
        (
            PodKey::Key(&weak_key),
            "UnsupportedKeyType",
            "RSA key of 2048 bits",
        ),
        (PodKey::Key(b"junk"), "UnsupportedKeyType", "cannot be read"),
        (PodKey::Key(&[]), "UnsupportedKeyType", "cannot be read"),
        (PodKey::Request(b"junk"), "InvalidRequest", "no PKCS#10"),
        (PodKey::Request(&longer), "InvalidRequest", "bytes follow"),
        (PodKey::Request(&forged), "InvalidRequest", "does not fit its key"),
        (PodKey::Request(&other), "InvalidRequest", "another name"),
    ] {
        let (kind, found, message) = refusal(&ca, &ask(asked, DAY));
        assert_eq!((kind, found), ("Denied", reason), "{message}");
        assert!(message.contains(words), "{words}: {message}");
    }
    let annotations = ["outrigger.example/name".to_owned()];
    let annotated = PodRequest {
        annotations: &annotations,
        ..ask(PodKey::Request(&good), DAY)
    };
    let (kind, reason, message) = refusal(&ca, &annotated);
    assert_eq!((kind, reason), ("Denied", "UnknownAnnotation"));
    assert!(message.contains("outrigger.example/name"), "{message}");
    let nameless = PodRequest {
        service_account: "a/b",
        ..ask(PodKey::Request(&good), DAY)
    };
    assert_eq!(refusal(&ca, &nameless).1, "InvalidName");
}

#[test]
fn its_own_name_in_a_request_is_no_lie() {
    let key = KeyPair::generate().unwrap();
    let own = named(&key, &["spiffe://td.test/ns/demo/sa/web.v1"]);
    ca(DAY)
        .issue_for_pod(&ask(PodKey::Request(&own), DAY), now(), 0.0)
        .unwrap();
}

#[test]
fn a_signer_whose_certificates_are_too_short_fails_and_says_which_setting_and_one_without_a_root_waits() {
    let key = KeyPair::generate().unwrap();
    let request = stub(&key);
    let (kind, reason, message) = refusal(&ca(HOUR / 2), &ask(PodKey::Request(&request), DAY));
    assert_eq!((kind, reason), ("Failed", "LifetimeTooShort"));
    assert!(message.contains("leafTtl"), "{message}");
    let ended = ca(DAY);
    let late = ended.ends() + HOUR;
    let error = ended
        .issue_for_pod(&ask(PodKey::Request(&request), DAY), late, 0.0)
        .unwrap_err();
    assert!(
        matches!(error, PodRefusal::NotNow(Refusal::RootExpired)),
        "{error}"
    );
}
