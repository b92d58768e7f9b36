//! Judges what an authority answered, before anything is built on it. Pure: time is an argument.
//!
//! The rules are those of `wire.md` 1.2 and 5, and `chain.rs` finds out which certificate is what. A certificate that a
//! peer would refuse is refused here, where the reason can still be told to the one who runs the authority.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;

use super::PROVIDER;
use super::bad_answer::BadAnswer;
#[cfg(test)]
use super::bad_answer::MAX_CERTIFICATES;
use super::chain::{self, Sorted};
use super::svid::{Key, Svid};
use crate::model::SpiffeId;
use crate::pki;

impl Svid {
    /// Verifies the authority's answer to `key.request(id)`: the leaf, intermediates and roots in PEM, in the order of
    /// the Istio certificate service or another sane one.
    pub fn from_answer(
        id: &SpiffeId,
        key: &Key,
        answer: &[String],
        now: SystemTime,
    ) -> Result<Self, BadAnswer> {
        Self::judge(id, key, chain::sort(answer, &key.public_key())?, now)
    }

    /// Verifies a chain for `key` that came in a file of its own, as the roots did: no certificate of the chain is trusted.
    pub(super) fn from_files(
        id: &SpiffeId,
        key: &Key,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        now: SystemTime,
    ) -> Result<Self, BadAnswer> {
        let own = chain.into_iter().map(|cert| (0, cert));
        let all: Vec<_> = own.chain(roots.into_iter().map(|cert| (1, cert))).collect();
        let sorted = chain::arrange(&all, 2, &key.public_key())?;
        let is_brought = |root| all.iter().any(|(file, cert)| *file == 1 && cert == root);
        match sorted.roots.iter().all(is_brought) {
            true => Self::judge(id, key, sorted, now),
            false => Err(BadAnswer::NoAnchor),
        }
    }

    fn judge(id: &SpiffeId, key: &Key, sorted: Sorted, now: SystemTime) -> Result<Self, BadAnswer> {
        let facts = LeafFacts::read(&sorted.chain[0])?;
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
        let roots = Arc::new(store(&sorted.roots)?);
        let fail = |source| BadAnswer::Chain { source };
        check_chain(&sorted.chain, &roots, now).map_err(fail)?;
        let certified_key = CertifiedKey::new(sorted.chain, key.signer().map_err(fail)?);
        certified_key.keys_match().map_err(fail)?;
        Ok(Self {
            id: id.clone(),
            certified_key: Arc::new(certified_key),
            roots,
            anchors: sorted.roots,
            not_before: facts.not_before,
            not_after: facts.not_after,
            serial: facts.serial,
        })
    }
}

fn store(certs: &[CertificateDer<'static>]) -> Result<RootCertStore, BadAnswer> {
    let mut roots = RootCertStore::empty();
    for cert in certs {
        let added = roots.add(cert.clone());
        added.map_err(|error| BadAnswer::Root {
            subject: x509_parser::parse_x509_certificate(cert)
                .map(|(_, cert)| pki::subject(&cert))
                .unwrap_or_default(),
            reason: error.to_string(),
        })?;
    }
    Ok(roots)
}

/// A workload is server to some peers and client to others, so both purposes must be allowed.
fn check_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = PROVIDER.signature_verification_algorithms.all;
    let (leaf, intermediates) = chain.split_first().expect("a chain begins with the leaf");
    let parsed = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
    WebPkiClientVerifier::builder_with_provider(roots.clone(), PROVIDER.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_client_cert(leaf, intermediates, now)?;
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
        let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|error| leaf(error.to_string()))?;
        check_profile(&cert)?;
        let names = pki::uris(&cert).map_err(leaf)?;
        let time = |time| pki::time(time).map_err(leaf);
        Ok(Self {
            names: names.into_iter().map(str::to_owned).collect(),
            not_before: time(cert.validity().not_before)?,
            not_after: time(cert.validity().not_after)?,
            serial: cert.raw_serial_as_string(),
        })
    }
}

/// What a leaf may be used for. SPIFFE's X509-SVID 4.3 wants a key usage; some authorities leave it out, which by RFC 5280
/// 4.2.1.3 allows every use, and no peer that goes by WebPKI minds. What is there has to be right.
fn check_profile(cert: &X509Certificate<'_>) -> Result<(), BadAnswer> {
    let constraints = cert
        .basic_constraints()
        .map_err(|error| leaf(error.to_string()))?;
    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(leaf("it may sign certificates, so it is no leaf"));
    }
    let usage = cert.key_usage().map_err(|error| leaf(error.to_string()))?;
    let is_wrong = usage.is_some_and(|usage| {
        !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign()
    });
    if is_wrong {
        return Err(leaf(
            "its key usage must be to sign digitally, and not to sign certificates",
        ));
    }
    Ok(())
}

fn leaf(reason: impl Into<String>) -> BadAnswer {
    BadAnswer::Leaf {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
