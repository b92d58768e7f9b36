//! CERTIFICATES AS DATA: what a parsed X.509 certificate says, for every room that reads one.
//!
//! It judges nothing: no chain is built here and no name is compared. rustls-webpki does the judging, and does not show
//! names and times.

mod described;

use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

pub use described::{Described, describe};

/// The URIs among the subject alternative names. An error is words for a message.
pub fn uris<'a>(cert: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, String> {
    let san = cert
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = san.iter().flat_map(|san| &san.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect())
}

/// A distinguished name for a message. Whoever made the certificate chose it, and terminals obey control characters, so
/// these are escaped.
pub fn name(name: &X509Name<'_>) -> String {
    printable(&name.to_string())
}

/// Whose certificate it is, for a message. A workload's leaf has an empty subject, and is known by its first URI.
pub fn subject(cert: &X509Certificate<'_>) -> String {
    let subject = name(cert.subject());
    match uris(cert).ok().and_then(|uris| uris.first().copied()) {
        Some(uri) if subject.is_empty() => printable(uri),
        _ => subject,
    }
}

fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

/// Certificates from before 1970 are refused by whoever asks.
pub fn time(time: ASN1Time) -> Result<SystemTime, String> {
    let seconds = u64::try_from(time.timestamp()).map_err(|_| "it names a time before 1970".to_owned())?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `issuer` has signed `cert`, by its name and its key. Signature algorithms that cannot be checked here count by the
/// name alone: whoever builds a chain has it verified once more.
pub fn is_signed_by(cert: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    cert.issuer().as_raw() == issuer.subject().as_raw()
        && match cert.verify_signature(Some(issuer.public_key())) {
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
            Err(_) => false,
        }
}

/// When each certificate of a PEM bundle ends. An error is words for a message.
pub fn ends(pem: &[u8]) -> Result<Vec<SystemTime>, String> {
    let mut ends = Vec::new();
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|error| format!("it is no PEM: {error}"))?;
        let cert = block
            .parse_x509()
            .map_err(|error| format!("a certificate cannot be read: {error}"))?;
        ends.push(time(cert.validity().not_after)?);
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_ends_when_each_of_its_certificates_does() {
        let certificate = |year| {
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().pem()
        };
        let bundle = certificate(2030) + &certificate(2040);
        let found = ends(bundle.as_bytes()).unwrap();
        let seconds = |time: &SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(
            found.iter().map(seconds).collect::<Vec<_>>(),
            [1_893_456_000, 2_208_988_800]
        );
        assert!(ends(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").is_err());
        assert!(ends(b"").unwrap().is_empty());
    }
}
