//! Judges what an authority answered, before anything is built on it. Pure: time is an argument.
//!
//! The rules are those of `wire.md` 1.2 and 5. A certificate that a peer would refuse is refused here, where the
//! reason can still be told to the one who runs the authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use super::svid::{Key, Svid};
use crate::model::SpiffeId;

/// Far above any real chain and bundle; below it, checking costs nothing that matters.
const MAX_CERTIFICATES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("{count} certificate strings came; at least the leaf and the root bundle are needed")]
    Short { count: usize },
    #[error("more than {MAX_CERTIFICATES} certificates came")]
    Long,
    #[error("certificate string {index} of the answer: {reason}")]
    Pem { index: usize, reason: String },
    #[error("root bundle: {reason}")]
    Bundle { reason: String },
    #[error("leaf: {reason}")]
    Leaf { reason: String },
    #[error("leaf: it names {found:?}, but this workload is {wanted}")]
    Name { found: Vec<String>, wanted: SpiffeId },
    #[error(
        "leaf: it is valid from {from} to {to}, which is not now; compare this machine's clock with the authority's"
    )]
    NotNow { from: String, to: String },
    #[error("leaf: it is for another key than the one in the request")]
    OtherKey,
    #[error("the leaf does not chain to the root bundle")]
    Chain {
        #[source]
        source: rustls::Error,
    },
}

pub(super) fn verify(
    id: &SpiffeId,
    key: &Key,
    answer: &[String],
    now: SystemTime,
) -> Result<Svid, BadAnswer> {
    let [presented @ .., bundle] = answer else {
        return Err(BadAnswer::Short { count: 0 });
    };
    if presented.is_empty() {
        return Err(BadAnswer::Short { count: 1 });
    }
    let root_certs = certificates(presented.len(), bundle)?;
    let mut chain = Vec::new();
    for (index, pem) in presented.iter().enumerate() {
        chain.extend(certificates(index, pem)?);
        if chain.len() + root_certs.len() > MAX_CERTIFICATES {
            return Err(BadAnswer::Long);
        }
    }
    // Peers hold the roots already; ztunnel never sends one.
    chain.retain(|cert| !root_certs.contains(cert));
    let leaf = chain.first().ok_or_else(|| leaf("it is a root itself"))?;

    let facts = LeafFacts::read(leaf)?;
    if facts.names != [id.as_str()] {
        return Err(BadAnswer::Name {
            found: facts.names,
            wanted: id.clone(),
        });
    }
    if now < facts.not_before || facts.not_after <= now {
        return Err(BadAnswer::NotNow {
            from: humantime::format_rfc3339_seconds(facts.not_before).to_string(),
            to: humantime::format_rfc3339_seconds(facts.not_after).to_string(),
        });
    }
    let mut roots = RootCertStore::empty();
    for cert in &root_certs {
        roots.add(cert.clone()).map_err(|error| BadAnswer::Bundle {
            reason: error.to_string(),
        })?;
    }
    let roots = Arc::new(roots);
    check_chain(&chain, &roots, now)?;

    let signer = key.signer().map_err(|source| BadAnswer::Chain { source })?;
    let certified_key = CertifiedKey::new(chain, signer);
    certified_key.keys_match().map_err(|_| BadAnswer::OtherKey)?;
    Ok(Svid {
        id: id.clone(),
        certified_key: Arc::new(certified_key),
        roots,
        root_certs,
        not_before: facts.not_before,
        not_after: facts.not_after,
        serial: facts.serial,
    })
}

/// One certificate per string is the rule; several are accepted, as other clients do.
fn certificates(index: usize, pem: &str) -> Result<Vec<CertificateDer<'static>>, BadAnswer> {
    let fail = |reason: String| BadAnswer::Pem { index, reason };
    let mut found = Vec::new();
    for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        if found.len() == MAX_CERTIFICATES {
            return Err(BadAnswer::Long);
        }
        found.push(cert.map_err(|error| fail(error.to_string()))?);
    }
    if found.is_empty() {
        return Err(fail("it holds no certificate in PEM".to_owned()));
    }
    Ok(found)
}

/// A workload is server to some peers and client to others, so both purposes must be allowed.
fn check_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    now: SystemTime,
) -> Result<(), BadAnswer> {
    let fail = |source| BadAnswer::Chain { source };
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let (leaf, intermediates) = chain
        .split_first()
        .expect("the caller looked at the first certificate");
    let parsed = ParsedCertificate::try_from(leaf).map_err(fail)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
        .map_err(fail)?;
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
        .build()
        .map_err(|error| BadAnswer::Bundle {
            reason: error.to_string(),
        })?
        .verify_client_cert(leaf, intermediates, now)
        .map_err(fail)?;
    Ok(())
}

struct LeafFacts {
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: String,
}

impl LeafFacts {
    fn read(der: &CertificateDer<'_>) -> Result<Self, BadAnswer> {
        let (rest, cert) =
            x509_parser::parse_x509_certificate(der).map_err(|error| leaf(error.to_string()))?;
        if !rest.is_empty() {
            return Err(leaf("bytes follow the certificate"));
        }
        check_profile(&cert)?;
        let san = cert
            .subject_alternative_name()
            .map_err(|error| leaf(error.to_string()))?;
        let names = san.iter().flat_map(|san| &san.value.general_names);
        Ok(Self {
            names: names
                .filter_map(|name| match name {
                    GeneralName::URI(uri) => Some((*uri).to_owned()),
                    _ => None,
                })
                .collect(),
            not_before: time(cert.validity().not_before)?,
            not_after: time(cert.validity().not_after)?,
            serial: cert.raw_serial_as_string(),
        })
    }
}

/// SPIFFE X509-SVID section 4: what a leaf may be used for.
fn check_profile(cert: &X509Certificate<'_>) -> Result<(), BadAnswer> {
    let constraints = cert
        .basic_constraints()
        .map_err(|error| leaf(error.to_string()))?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(leaf("it may sign certificates, so it is no leaf"));
    }
    let usage = cert
        .key_usage()
        .map_err(|error| leaf(error.to_string()))?
        .ok_or_else(|| leaf("it has no key usage"))?;
    if !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(leaf(
            "its key usage must be to sign digitally, and not to sign certificates",
        ));
    }
    Ok(())
}

fn time(time: ASN1Time) -> Result<SystemTime, BadAnswer> {
    let seconds =
        u64::try_from(time.timestamp()).map_err(|_| leaf("its validity names a time before 1970"))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn leaf(reason: impl Into<String>) -> BadAnswer {
    BadAnswer::Leaf {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
        Issuer, KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
    };
    use rustls::pki_types::CertificateSigningRequestDer;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer;

    const HOUR: Duration = Duration::from_secs(3600);

    /// An authority in memory; `leaf` may be spoilt before it is signed.
    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
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
            let request =
                CertificateSigningRequestDer::from_pem_slice(key.request(&id()).unwrap().as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&request).unwrap();
            let spki = request.certification_request_info.subject_pki.raw;
            let key = SubjectPublicKeyInfo::from_der(spki).unwrap();
            params.signed_by(&key, &self.issuer).unwrap().pem()
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
        verify(&id(), key, &answer, now())
    }

    #[test]
    fn a_chain_with_an_intermediate_and_several_roots_is_accepted() {
        let key = Key::generate().unwrap();
        let (root, other) = (Authority::new("root"), Authority::new("other"));
        let intermediate = root.below("intermediate");
        let leaf = intermediate.leaf(&key, |_| {});
        let bundle = format!("{}{}", other.pem, root.pem);
        let svid = judge(&key, &[&leaf, &intermediate.pem, &bundle]).unwrap();
        assert_eq!((svid.certified_key.cert.len(), svid.roots.len()), (2, 2));
        assert_eq!((svid.not_before, svid.not_after), (now() - HOUR, now() + HOUR));
        assert!(svid.is_valid_at(now()) && !svid.is_valid_at(now() + HOUR));
    }

    #[test]
    fn a_root_among_the_intermediates_is_not_presented_to_peers() {
        let key = Key::generate().unwrap();
        let root = Authority::new("root");
        let leaf = root.leaf(&key, |_| {});
        let svid = judge(&key, &[&leaf, &root.pem, &root.pem]).unwrap();
        assert_eq!(svid.certified_key.cert.len(), 1);
    }

    #[test]
    fn a_leaf_that_a_peer_would_refuse_is_refused_with_its_fault() {
        let key = Key::generate().unwrap();
        let root = Authority::new("root");
        type Spoil = fn(&mut CertificateParams);
        let spoilt: [(Spoil, &str); 9] = [
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
            (|leaf| leaf.key_usages.clear(), "no key usage"),
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
                "does not chain",
            ),
        ];
        for (spoil, fault) in spoilt {
            let error = judge(&key, &[&root.leaf(&key, spoil), &root.pem])
                .unwrap_err()
                .to_string();
            assert!(error.contains(fault), "{fault}: {error}");
        }
    }

    #[test]
    fn a_leaf_of_another_root_is_refused() {
        let key = Key::generate().unwrap();
        let leaf = Authority::new("root").leaf(&key, |_| {});
        let error = judge(&key, &[&leaf, &Authority::new("root").pem]).unwrap_err();
        assert!(matches!(error, BadAnswer::Chain { .. }), "{error}");
    }

    #[test]
    fn a_leaf_for_another_key_is_refused() {
        let root = Authority::new("root");
        let leaf = root.leaf(&Key::generate().unwrap(), |_| {});
        let error = judge(&Key::generate().unwrap(), &[&leaf, &root.pem]).unwrap_err();
        assert!(matches!(error, BadAnswer::OtherKey), "{error}");
    }

    #[test]
    fn an_answer_of_the_wrong_shape_is_refused() {
        let key = Key::generate().unwrap();
        let root = Authority::new("root");
        let leaf = root.leaf(&key, |_| {});
        let many = root.pem.repeat(MAX_CERTIFICATES + 1);
        for (answer, fault) in [
            (&[][..], "0 certificate strings"),
            (&[leaf.as_str()], "1 certificate strings"),
            (&[leaf.as_str(), ""], "string 1"),
            (&["", root.pem.as_str()], "string 0"),
            (&[root.pem.as_str(), root.pem.as_str()], "a root itself"),
            (&[leaf.as_str(), many.as_str()], "more than"),
        ] {
            let error = judge(&key, answer).unwrap_err().to_string();
            assert!(error.contains(fault), "{fault}: {error}");
        }
    }
}
