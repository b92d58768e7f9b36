//! The decision: which requests are signed, and what a leaf looks like.
//!
//! The identity is an argument, settled by the token before this file is asked; the request's own words about
//! itself are only compared with it. Nothing here does input or output, and time is an argument.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::Error;
use crate::model::SpiffeId;

/// An RSA-4096 request with a long name is below 4 KiB.
const MAX_CSR: usize = 16 << 10;
/// Below it the key is weak; above it every peer pays for it in every handshake.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Clocks of a cluster differ; istiod allows the same.
pub(super) const BACKDATE: Duration = Duration::from_secs(120);
/// SHA-1 is missing on purpose.
const SIGNATURES: [Oid<'static>; 5] = [
    OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384,
    OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA,
    OID_PKCS1_SHA512WITHRSA,
];

/// From when on a leaf is valid, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("csr: {reason}")]
    BadRequest { reason: String },
    #[error("csr: it asks for the name `{asked}`, but the token stands for {granted}")]
    OtherName { asked: String, granted: SpiffeId },
    #[error("the token stands for {granted}, which is outside of this CA's trust domain `{trust_domain}`")]
    ForeignDomain { granted: SpiffeId, trust_domain: String },
    #[error("the root certificate has expired; make a new one")]
    RootExpired,
    #[error(
        "until when certificates live cannot be noted now, and a root would be replaced too early; the log of `outrigger control` says why"
    )]
    NotNoted,
    #[error("cannot make the certificate")]
    Failed(#[source] Error),
}

/// The public key of a request that proved to hold the private one and asks for no name but `granted`.
pub(super) fn check_request(csr: &str, granted: &SpiffeId) -> Result<SubjectPublicKeyInfo, Refusal> {
    if csr.len() > MAX_CSR {
        return Err(bad(format!("{} bytes, at most {MAX_CSR} are read", csr.len())));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes())
        .map_err(|error| bad(format!("no PEM block CERTIFICATE REQUEST: {error}")))?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|error| bad(format!("no PKCS#10 request: {error}")))?;
    if !rest.is_empty() {
        return Err(bad("bytes follow the request".to_owned()));
    }
    let key = check_key(&request)?;
    for asked in names(&request)? {
        if asked != Some(granted.as_str()) {
            return Err(Refusal::OtherName {
                asked: asked.unwrap_or("(not a URI)").to_owned(),
                granted: granted.clone(),
            });
        }
    }
    Ok(key)
}

/// The leaf profile of istiod, which is also a SPIFFE leaf: one critical URI SAN and an empty subject.
pub(super) fn leaf_params(
    identity: &SpiffeId,
    serial: SerialNumber,
    life: Life,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
    params.serial_number = Some(serial);
    params.not_before = life.not_before.into();
    params.not_after = life.not_after.into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// RFC 5280 4.1.2.2: positive, at most 20 octets. The first byte is neither negative nor a leading zero.
pub(super) fn positive(mut serial: [u8; 16]) -> SerialNumber {
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&serial)
}

/// A leaf outlives neither the longest life that is configured nor the certificate that signs it.
pub(super) fn expiry(
    asked: Option<Duration>,
    longest: Duration,
    signer_ends: SystemTime,
    now: SystemTime,
) -> Option<SystemTime> {
    let life = asked
        .filter(|life| !life.is_zero())
        .unwrap_or(longest)
        .min(longest);
    let end = now
        .checked_add(life)
        .map_or(signer_ends, |end| end.min(signer_ends));
    (end > now).then_some(end)
}

fn check_key(request: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, Refusal> {
    let algorithm = &request.signature_algorithm.algorithm;
    if !SIGNATURES.contains(algorithm) {
        return Err(bad(format!(
            "signature algorithm {algorithm}; use ECDSA or RSA with SHA-2"
        )));
    }
    request
        .verify_signature()
        .map_err(|_| bad("its signature does not fit its key".to_owned()))?;
    let spki = &request.certification_request_info.subject_pki;
    if let Ok(PublicKey::RSA(rsa)) = spki.parsed()
        && !RSA_BITS.contains(&rsa.key_size())
    {
        return Err(bad(format!(
            "an RSA key of {} bits; use 2048 to 4096",
            rsa.key_size()
        )));
    }
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|error| bad(format!("its key: {error}")))?;
    match key.algorithm() {
        known
            if known == &rcgen::PKCS_ECDSA_P256_SHA256
                || known == &rcgen::PKCS_ECDSA_P384_SHA384
                || known == &rcgen::PKCS_RSA_SHA256 =>
        {
            Ok(key)
        }
        other => Err(bad(format!("a key for {other:?}; use ECDSA P-256, P-384 or RSA"))),
    }
}

/// The names asked for; `None` stands for one that is no URI.
pub(super) fn names<'a>(request: &'a X509CertificationRequest<'_>) -> Result<Vec<Option<&'a str>>, Refusal> {
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(san) => {
                names.extend(san.general_names.iter().map(|name| match name {
                    GeneralName::URI(uri) => Some(*uri),
                    _ => None,
                }));
            }
            ParsedExtension::ParseError { error } => {
                return Err(bad(format!("an extension cannot be read: {error}")));
            }
            // istiod, too, signs its own profile whatever else is asked for.
            _ => {}
        }
    }
    Ok(names)
}

fn bad(reason: String) -> Refusal {
    Refusal::BadRequest { reason }
}
