//! One root of the mesh: its certificate, what it says, and its key where it is ours. Reads and writes no file.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use zeroize::{Zeroize, Zeroizing};

use super::{Error, hex, sign};
use crate::model::identity::check_trust_domain;

/// Ten years: a root is replaced by a plan (`rotation.rs`), not by a timer.
const ROOT_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A root is younger than the slowest clock that must accept it.
pub(super) const BACKDATE: Duration = Duration::from_secs(3600);

/// A root as workloads see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RootCert {
    pub(super) der: CertificateDer<'static>,
    pub(super) trust_domain: String,
    pub(super) ends: SystemTime,
    public_key: Vec<u8>,
}

/// A root with its key.
pub(super) struct SigningRoot {
    pub(super) cert: RootCert,
    pub(super) issuer: Issuer<'static, RootKey>,
}

impl RootCert {
    /// Every certificate of the text. A block that is none, or one that no workload should trust, spoils all of it:
    /// half a bundle would cut off those who depend on the other half.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let mut roots: Vec<Self> = Vec::new();
        for (n, section) in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()).enumerate() {
            let number = n + 1;
            let (kind, der) =
                section.map_err(|error| format!("block {number} cannot be read as PEM: {error}"))?;
            if kind != SectionKind::Certificate {
                return Err(format!("block {number} is no certificate"));
            }
            let root = Self::read(der.into()).map_err(|reason| format!("certificate {number}: {reason}"))?;
            if roots.contains(&root) {
                return Err(format!("certificate {number} stands there twice"));
            }
            if let Some(first) = roots.first()
                && first.trust_domain != root.trust_domain
            {
                return Err(format!(
                    "certificate {number} is for trust domain `{}`, the first one for `{}`",
                    root.trust_domain, first.trust_domain
                ));
            }
            roots.push(root);
        }
        match roots.is_empty() {
            true => Err("no certificate in PEM".to_owned()),
            false => Ok(roots),
        }
    }

    fn read(der: CertificateDer<'static>) -> Result<Self, String> {
        let (rest, cert) = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err("bytes follow it".to_owned());
        }
        if !cert.is_ca() {
            return Err("it is no CA certificate".to_owned());
        }
        cert.verify_signature(None)
            .map_err(|_| "it is not signed by its own key".to_owned())?;
        let san = cert
            .subject_alternative_name()
            .map_err(|error| error.to_string())?
            .map(|san| san.value.general_names.as_slice())
            .unwrap_or_default();
        let [GeneralName::URI(id)] = san else {
            return Err("it does not hold exactly one SPIFFE ID".to_owned());
        };
        let trust_domain = id
            .strip_prefix("spiffe://")
            .filter(|domain| check_trust_domain(domain).is_ok())
            .ok_or_else(|| format!("`{id}` is no ID of a trust domain"))?
            .to_owned();
        let ends = u64::try_from(cert.validity().not_after.timestamp())
            .map_err(|_| "it ended before 1970".to_owned())?;
        let public_key = cert.public_key().raw.to_vec();
        Ok(Self {
            trust_domain,
            ends: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
            public_key,
            der,
        })
    }

    pub(super) fn pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("CERTIFICATE", self.der.as_ref()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    /// The first 16 digits of its SHA-256, enough to tell roots apart: `openssl x509 -fingerprint -sha256` begins so.
    pub(super) fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.der)[..8])
    }

    pub(super) fn belongs_to(&self, key: &RootKey) -> bool {
        self.public_key == key.0.subject_public_key_info()
    }
}

impl SigningRoot {
    /// A new root. Its key is `key`.
    pub(super) fn generate(key: RootKey, trust_domain: &str, now: SystemTime) -> Result<Self, Error> {
        check_trust_domain(trust_domain).map_err(|reason| Error::InvalidTrustDomain {
            name: trust_domain.to_owned(),
            reason,
        })?;
        let fail = |source| Error::Certificate { source };
        let serial = sign::positive(super::random()?);
        let params = root_params(trust_domain, serial, now).map_err(fail)?;
        let der = CertificateDer::from(params.self_signed(&key).map_err(fail)?);
        let public_key = key.0.subject_public_key_info();
        Ok(Self {
            issuer: Issuer::new(params, key),
            cert: RootCert {
                der,
                trust_domain: trust_domain.to_owned(),
                ends: now + ROOT_LIFE,
                public_key,
            },
        })
    }

    pub(super) fn load(cert: RootCert, key: RootKey) -> Result<Self, String> {
        let issuer = Issuer::from_ca_cert_der(&cert.der, key).map_err(|error| error.to_string())?;
        Ok(Self { cert, issuer })
    }
}

/// A SPIFFE signing certificate: the trust domain's ID, which has no path, and the right to sign leaves, but no other
/// authorities. It has no name constraint: rustls-webpki, by which ztunnel and we judge a chain, refuses every URI below
/// a constraint on URIs, whatever the constraint says.
fn root_params(
    trust_domain: &str,
    serial: rcgen::SerialNumber,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, trust_domain);
    params
        .distinguished_name
        .push(DnType::CommonName, "Outrigger root");
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.serial_number = Some(serial);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + ROOT_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A key pair whose bytes are wiped when it is dropped.
pub(super) struct RootKey(KeyPair);

impl RootKey {
    pub(super) fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|source| Error::Certificate { source })
    }

    pub(super) fn parse(pem: &str) -> Result<Self, String> {
        let mut der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("no private key in PEM: {error}"))?;
        let key = KeyPair::try_from(&der).map_err(|error| error.to_string());
        der.zeroize();
        key.map(Self)
    }

    pub(super) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// As the TLS library takes it.
    pub(super) fn pkcs8(&self) -> PrivateKeyDer<'_> {
        PrivateKeyDer::Pkcs8(self.0.serialized_der().into())
    }
}

impl Drop for RootKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for RootKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for RootKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(trust_domain: &str) -> RootCert {
        let key = RootKey::generate().unwrap();
        SigningRoot::generate(key, trust_domain, SystemTime::now())
            .unwrap()
            .cert
    }

    #[test]
    fn a_bundle_is_read_whole_or_not_at_all() {
        let (a, b, other) = (root("td.test"), root("td.test"), root("other.test"));
        let all = format!(
            "some words\r\n{}\n{}trailing words",
            a.pem(),
            b.pem().replace('\n', "\r\n")
        );
        let read = RootCert::parse_all(&all).unwrap();
        assert_eq!(
            read.iter().map(|root| &root.der).collect::<Vec<_>>(),
            [&a.der, &b.der]
        );
        let key = RootKey::generate().unwrap();
        let leaf = {
            let root =
                SigningRoot::generate(RootKey::generate().unwrap(), "td.test", SystemTime::now()).unwrap();
            let leaf = CertificateParams::default()
                .signed_by(&key, &root.issuer)
                .unwrap();
            leaf.pem()
        };
        for (second, reason) in [
            (a.pem(), "certificate 2 stands there twice"),
            (other.pem(), "certificate 2 is for trust domain `other.test`"),
            (leaf, "certificate 2: it is no CA certificate"),
            (key.pem().to_string(), "block 2 is no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA".to_owned(),
                "block 2 cannot be read",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
                "certificate 2: ",
            ),
        ] {
            let error = RootCert::parse_all(&format!("{}{second}", a.pem())).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        assert!(RootCert::parse_all("").unwrap_err().contains("no certificate"));
    }
}
