//! Real chains of every kind, in every order that authorities use, and those that are refused.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SignatureAlgorithm,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// An authority in memory; `leaf` may be spoilt before it is signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// The key in a request, as an authority sees it.
struct Requested(Vec<u8>);

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        // A P-256 point ends the structure: 65 bytes.
        &self.0[self.0.len() - 65..]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        Self::with(name, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn with(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = signer(name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = signer(name);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn leaf(&self, key: &Key, spoil: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id().as_str())];
        params.not_before = (now() - HOUR).into();
        params.not_after = (now() + HOUR).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        spoil(&mut params);
        let leaf = params.signed_by(&Requested(key.public_key()), &self.issuer);
        leaf.unwrap().pem()
    }
}

fn signer(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn id() -> SpiffeId {
    SpiffeId::new("td.test", "demo", "client").unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn judge(key: &Key, answer: &[&str]) -> Result<Svid, BadAnswer> {
    let answer: Vec<String> = answer.iter().map(|pem| (*pem).to_owned()).collect();
    Svid::from_answer(&id(), key, &answer, now())
}

fn refusal(key: &Key, answer: &[&str]) -> String {
    crate::error_chain(&judge(key, answer).unwrap_err())
}

#[test]
fn what_is_accepted_says_its_times_and_can_be_shown_to_peers() {
    let key = Key::generate().unwrap();
    let root = Authority::new("root");
    let leaf = root.leaf(&key, |_| {});
    let svid = judge(&key, &[&leaf, &root.pem]).unwrap();
    assert_eq!((svid.certified_key.cert.len(), svid.roots.len()), (1, 1));
    assert_eq!((svid.not_before, svid.not_after), (now() - HOUR, now() + HOUR));
    assert!(svid.is_valid_at(now()) && !svid.is_valid_at(now() + HOUR));
}

#[test]
fn any_sane_order_gives_the_same_chain_and_the_same_roots() {
    let key = Key::generate().unwrap();
    let root = Authority::new("root");
    let upper = root.below("upper");
    let lower = upper.below("lower");
    let leaf = lower.leaf(&key, |_| {});
    let (l, i, u, r) = (
        leaf.as_str(),
        lower.pem.as_str(),
        upper.pem.as_str(),
        root.pem.as_str(),
    );
    let (whole, bundle) = (format!("{l}{i}{u}"), format!("{u}{r}"));
    let (crlf, wordy) = (r.replace('\n', "\r\n"), format!("subject=CN=x\n{i}\n# the end"));
    let all = format!("{r}{i}{l}{u}");
    let wanted = judge(&key, &[l, i, u, r]).unwrap();
    assert_eq!((wanted.certified_key.cert.len(), wanted.roots.len()), (3, 1));
    for (what, answer) in [
        ("the root first", &[r, u, i, l][..]),
        ("the root in the middle", &[l, r, i, u]),
        ("intermediates upside down", &[l, u, i, r]),
        ("the chain in one string", &[&whole, r]),
        ("an intermediate in the bundle", &[l, i, &bundle]),
        ("all in one string", &[&all]),
        ("duplicates", &[l, i, i, u, r, l, r]),
        ("CRLF", &[l, i, u, &crlf]),
        ("text around the blocks", &[l, &wordy, u, r]),
        ("blank strings", &["", l, i, u, " \n", r]),
    ] {
        let svid = judge(&key, answer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(svid.certified_key.cert, wanted.certified_key.cert, "{what}");
        assert_eq!(svid.roots.roots, wanted.roots.roots, "{what}");
    }
}

#[test]
fn roots_of_the_usual_kinds_are_good() {
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA384,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = Key::generate().unwrap();
        let root = Authority::with("root", algorithm);
        let intermediate = root.below("intermediate");
        for leaf in [root.leaf(&key, |_| {}), intermediate.leaf(&key, |_| {})] {
            judge(&key, &[&leaf, &intermediate.pem, &root.pem])
                .unwrap_or_else(|error| panic!("{algorithm:?}: {}", crate::error_chain(&error)));
        }
    }
}

#[test]
fn a_bundle_may_hold_other_roots_also_of_the_same_name() {
    let key = Key::generate().unwrap();
    let (root, namesake, other) = (
        Authority::new("root"),
        Authority::new("root"),
        Authority::new("other"),
    );
    let leaf = root.leaf(&key, |_| {});
    let bundle = format!("{}{}{}", namesake.pem, other.pem, root.pem);
    let svid = judge(&key, &[&leaf, &bundle]).unwrap();
    assert_eq!((svid.certified_key.cert.len(), svid.roots.len()), (1, 3));
}

#[test]
fn a_root_outside_of_the_bundle_is_trusted_only_where_there_is_no_bundle() {
    let key = Key::generate().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let leaf = new.leaf(&key, |_| {});
    let svid = judge(&key, &[&leaf, &old.pem, &new.pem]).unwrap();
    assert_eq!(
        svid.roots.len(),
        1,
        "the authority has left the old one out of its bundle"
    );
    let leaf = old.leaf(&key, |_| {});
    let error = refusal(&key, &[&leaf, &old.pem, &new.pem]);
    assert!(
        error.contains("signed by `CN=old`") && error.contains("`CN=new`"),
        "{error}"
    );
}

#[test]
fn a_bundle_may_anchor_trust_in_an_intermediate_whose_root_is_elsewhere() {
    let key = Key::generate().unwrap();
    let anchor = Authority::new("elsewhere").below("anchor");
    let leaf = anchor.leaf(&key, |_| {});
    let svid = judge(&key, &[&leaf, &anchor.pem]).unwrap();
    assert_eq!((svid.certified_key.cert.len(), svid.roots.len()), (1, 1));
}

#[test]
fn a_leaf_without_key_usage_is_good() {
    let key = Key::generate().unwrap();
    let root = Authority::new("root");
    let leaf = root.leaf(&key, |leaf| leaf.key_usages.clear());
    assert!(judge(&key, &[&leaf, &root.pem]).is_ok());
}

#[test]
fn a_leaf_that_a_peer_would_refuse_is_refused_with_its_fault() {
    let key = Key::generate().unwrap();
    let root = Authority::new("root");
    type Spoil = fn(&mut CertificateParams);
    let spoilt: [(Spoil, &str); 8] = [
        (
            |leaf| leaf.subject_alt_names = vec![uri("spiffe://td.test/ns/demo/sa/x")],
            "it names",
        ),
        (
            |leaf| leaf.subject_alt_names.push(uri("spiffe://td.test/ns/demo/sa/x")),
            "it names",
        ),
        (|leaf| leaf.subject_alt_names.clear(), "it names []"),
        (
            |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "it may sign",
        ),
        (
            |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign),
            "key usage must",
        ),
        (
            |leaf| leaf.not_after = (now() - HOUR / 2).into(),
            "which is not now",
        ),
        (
            |leaf| leaf.not_before = (now() + HOUR / 2).into(),
            "which is not now",
        ),
        (
            |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            "a peer would refuse",
        ),
    ];
    for (spoil, fault) in spoilt {
        let error = refusal(&key, &[&root.leaf(&key, spoil), &root.pem]);
        assert!(error.contains(fault), "{fault}: {error}");
    }
}

#[test]
fn an_answer_that_leads_nowhere_says_what_is_missing() {
    let key = Key::generate().unwrap();
    let root = Authority::new("root");
    let intermediate = root.below("intermediate");
    let leaf = intermediate.leaf(&key, |_| {});
    let (l, i, r) = (leaf.as_str(), intermediate.pem.as_str(), root.pem.as_str());
    let (forged, many) = (Authority::new("root"), r.repeat(MAX_CERTIFICATES + 1));
    for (answer, fault) in [
        (&[][..], "no certificate came"),
        (&["", " "], "no certificate came"),
        (&[l], "there is no root"),
        (&[l, r], "was signed by `CN=intermediate`, which did not come"),
        (
            &[l, i, &forged.pem],
            "was signed by `CN=root`, which did not come",
        ),
        (&[r, r], "no certificate is for the key in the request"),
        (&[l, "no PEM", r], "string 1"),
        (&[l, i, &many], "more than"),
    ] {
        let error = refusal(&key, answer);
        assert!(error.contains(fault), "{fault}: {error}");
    }
    let other = Key::generate().unwrap();
    let error = refusal(&other, &[l, i, r]);
    assert!(
        error.contains(id().as_str()),
        "it names what came instead: {error}"
    );
}

#[test]
fn no_mutation_of_an_answer_panics_or_changes_whom_it_names() {
    let key = Key::generate().unwrap();
    let root = Authority::new("root");
    let good = [root.leaf(&key, |_| {}), root.pem.clone()];
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance as usize
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut answer = good.clone();
        for _ in 0..=next() % 3 {
            let which = next() % 2;
            let mut bytes = std::mem::take(&mut answer[which]).into_bytes();
            let at = next() % bytes.len().max(1);
            match next() % 4 {
                // Another letter of the alphabet, so that the damage reaches the DER inside.
                0 | 1 if at < bytes.len() => bytes[at] = b"ABCDMQgw0189+/az"[next() % 16],
                2 => bytes.truncate(at),
                _ => bytes.insert(at, next() as u8),
            }
            answer[which] = String::from_utf8_lossy(&bytes).into_owned();
        }
        match Svid::from_answer(&id(), &key, &answer, now()) {
            Ok(svid) => assert_eq!(svid.id, id()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 10_000, "the mutations reached nothing: {refused}");
}
