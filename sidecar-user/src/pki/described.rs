//! A certificate as people are told of it. Holds no key, and trusts nothing that the certificate says: names are made printable.

use std::fmt::Write;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{name, printable, subject, time};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its subject, or its first URI where that is empty, as of a workload's leaf.
    pub subject: String,
    /// The URIs and DNS names among its subject alternative names.
    pub names: Vec<String>,
    pub issuer: String,
    /// In hexadecimal with colons.
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Such as `ECDSA P-256` or `RSA 2048`.
    pub key: String,
    /// SHA-256 of the whole certificate in DER, in hexadecimal.
    pub fingerprint: String,
}

/// An error is words for a message.
pub fn describe(der: &[u8]) -> Result<Described, String> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
    let san = cert
        .subject_alternative_name()
        .map_err(|error| error.to_string())?;
    let names = san.iter().flat_map(|san| &san.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) => Some(printable(name)),
        _ => None,
    });
    Ok(Described {
        subject: subject(&cert),
        names: names.collect(),
        issuer: name(cert.issuer()),
        serial: cert.raw_serial_as_string(),
        not_before: time(cert.validity().not_before)?,
        not_after: time(cert.validity().not_after)?,
        key: key(cert.public_key()),
        fingerprint: hex(&Sha256::digest(der)),
    })
}

/// By RFC 5480 2.1.1 the curve is a parameter of the algorithm.
fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = &info.algorithm;
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Ok(PublicKey::EC(point)) => {
            let curve = algorithm.parameters.as_ref();
            let curve = curve.and_then(|curve| curve.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA P-256".to_owned(),
                Some("1.3.132.0.34") => "ECDSA P-384".to_owned(),
                Some("1.3.132.0.35") => "ECDSA P-521".to_owned(),
                _ => format!("EC {}", point.key_size()),
            }
        }
        _ => match algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(of: &'static rcgen::SignatureAlgorithm, common_name: &str) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common_name.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common_name);
        }
        params.subject_alt_names = vec![
            SanType::URI("spiffe://td.test/ns/demo/sa/web".try_into().unwrap()),
            SanType::DnsName("web.test".try_into().unwrap()),
        ];
        let key = KeyPair::generate_for(of).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_its_names_key_and_fingerprint() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, "");
        let told = describe(&der).unwrap();
        assert_eq!(told.subject, "spiffe://td.test/ns/demo/sa/web");
        assert_eq!(told.names, ["spiffe://td.test/ns/demo/sa/web", "web.test"]);
        assert_eq!(told.key, "ECDSA P-256");
        assert!(told.not_before < told.not_after && told.serial.contains(':'));
        assert_eq!(told.fingerprint, hex(&Sha256::digest(&der)));
        let keys = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        let keys = keys.map(|of| describe(&certificate(of, "")).unwrap().key);
        assert_eq!(keys, ["ECDSA P-384", "Ed25519"]);
    }

    #[test]
    fn what_a_certificate_says_drives_no_terminal_and_what_is_none_is_refused() {
        let told = describe(&certificate(&rcgen::PKCS_ED25519, "a\u{1b}[31m")).unwrap();
        assert!(told.subject.contains("\\u{1b}[31m"), "{}", told.subject);
        assert!(describe(b"no certificate").is_err());
    }
}
