//! The authority: its root key and certificate, made once and kept in the state directory.
//!
//! It neither decides who gets which identity (`token.rs`, `sign.rs`) nor speaks to anyone (`api.rs`).

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use zeroize::{Zeroize, Zeroizing};

use super::sign::{self, Refusal};
use super::state::{Readers, StateDir};
use super::{Config, Error, random};
use crate::model::SpiffeId;
use crate::model::identity::check_trust_domain;

const ROOT_KEY: &str = "root-key.pem";
const ROOT_CERT: &str = "root-cert.pem";
/// Ten years: a root is replaced by a plan, not by a timer.
const ROOT_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// A root is younger than the slowest clock that must accept it.
const ROOT_BACKDATE: Duration = Duration::from_secs(3600);

/// Signs leaves of one trust domain.
pub struct Ca {
    issuer: Issuer<'static, RootKey>,
    root: CertificateDer<'static>,
    root_pem: String,
    ends: SystemTime,
    trust_domain: String,
    leaf_ttl: Duration,
}

impl Ca {
    /// Loads the root from the state directory, or makes one where there is none.
    pub fn open(config: &Config) -> Result<Self, Error> {
        let dir = StateDir::open(&config.state_dir)?;
        let locked = dir.lock()?;
        let key = dir.read(ROOT_KEY, Readers::Owner)?;
        let cert = dir.read(ROOT_CERT, Readers::Everyone)?;
        match (key, cert) {
            (Some(key), Some(cert)) => Self::load(config, &dir, &key, &cert),
            (None, Some(_)) => Err(damaged(
                &dir.path(ROOT_KEY),
                "it is missing, but its certificate is there",
            )),
            (key, None) => {
                // The key is written first, so a crash between the two leaves a key that has signed nothing.
                let key = match key {
                    Some(pem) => {
                        RootKey::parse(&pem).map_err(|reason| damaged(&dir.path(ROOT_KEY), reason))?
                    }
                    None => {
                        let key = RootKey::generate()?;
                        let pem = Zeroizing::new(key.0.serialize_pem());
                        locked.write(ROOT_KEY, Readers::Owner, &pem)?;
                        key
                    }
                };
                let ca = Self::new(key, &config.trust_domain, config.leaf_ttl, SystemTime::now())?;
                locked.write(ROOT_CERT, Readers::Everyone, &ca.root_pem)?;
                Ok(ca)
            }
        }
    }

    /// A root that lives in memory only.
    pub fn ephemeral(trust_domain: &str, leaf_ttl: Duration, now: SystemTime) -> Result<Self, Error> {
        Self::new(RootKey::generate()?, trust_domain, leaf_ttl, now)
    }

    /// The leaf for `identity`, as PEM. `ttl` is what was asked for.
    pub fn sign(
        &self,
        csr: &str,
        identity: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        if identity.trust_domain() != self.trust_domain {
            return Err(Refusal::ForeignDomain {
                granted: identity.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        let key = sign::check_request(csr, identity)?;
        let end = sign::expiry(ttl, self.leaf_ttl, self.ends, now).ok_or(Refusal::RootExpired)?;
        let serial = random().map_err(Refusal::Failed)?;
        sign::leaf_params(identity, serial, now, end)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .map(|leaf| leaf.pem())
            .map_err(|source| Refusal::Failed(Error::Certificate { source }))
    }

    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub fn root_der(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// When the root ends; no leaf outlives it.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// A certificate for the service itself, with its end. It names hosts and no workload, so it is no
    /// identity in the mesh.
    pub(super) fn server_certificate(
        &self,
        names: &[SanType],
        now: SystemTime,
    ) -> Result<(CertifiedKey, SystemTime), Error> {
        let end = sign::expiry(None, self.leaf_ttl, self.ends, now).unwrap_or(self.ends);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(sign::positive(random()?));
        params.not_before = (now - ROOT_BACKDATE).into();
        params.not_after = end.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let key = RootKey::generate()?;
        let leaf = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| Error::Certificate { source })?;
        let der = PrivateKeyDer::Pkcs8(key.0.serialized_der().into());
        let signer =
            rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der).map_err(|source| Error::Tls { source })?;
        Ok((CertifiedKey::new(vec![leaf.into()], signer), end))
    }

    fn new(key: RootKey, trust_domain: &str, leaf_ttl: Duration, now: SystemTime) -> Result<Self, Error> {
        check_trust_domain(trust_domain).map_err(|reason| Error::InvalidTrustDomain {
            name: trust_domain.to_owned(),
            reason,
        })?;
        let params = root_params(trust_domain, sign::positive(random()?), now)
            .map_err(|source| Error::Certificate { source })?;
        let root = params
            .self_signed(&key)
            .map_err(|source| Error::Certificate { source })?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            root_pem: root.pem(),
            root: root.into(),
            ends: now + ROOT_LIFE,
            trust_domain: trust_domain.to_owned(),
            leaf_ttl,
        })
    }

    fn load(config: &Config, dir: &StateDir, key: &str, cert: &str) -> Result<Self, Error> {
        let (key_path, cert_path) = (dir.path(ROOT_KEY), dir.path(ROOT_CERT));
        let key = RootKey::parse(key).map_err(|reason| damaged(&key_path, reason))?;
        let root = CertificateDer::from_pem_slice(cert.as_bytes())
            .map_err(|error| damaged(&cert_path, format!("no certificate in PEM: {error}")))?;
        let facts = RootFacts::read(&root).map_err(|reason| damaged(&cert_path, reason))?;
        if facts.public_key != key.0.subject_public_key_info() {
            return Err(damaged(&cert_path, format!("it does not belong to {ROOT_KEY}")));
        }
        if facts.trust_domain != config.trust_domain {
            return Err(Error::TrustDomain {
                path: cert_path,
                found: facts.trust_domain,
                wanted: config.trust_domain.clone(),
            });
        }
        if facts.ends <= SystemTime::now() {
            return Err(damaged(&cert_path, "it has expired"));
        }
        let issuer =
            Issuer::from_ca_cert_der(&root, key).map_err(|error| damaged(&cert_path, error.to_string()))?;
        Ok(Self {
            issuer,
            root,
            root_pem: cert.to_owned(),
            ends: facts.ends,
            trust_domain: facts.trust_domain,
            leaf_ttl: config.leaf_ttl,
        })
    }
}

/// Refuses an identity of another trust domain than that of the root in `dir`, where there is one yet.
pub(super) fn check_domain(dir: &StateDir, identity: &SpiffeId) -> Result<(), Error> {
    let Some(pem) = dir.read(ROOT_CERT, Readers::Everyone)? else {
        return Ok(());
    };
    let path = dir.path(ROOT_CERT);
    let root = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| damaged(&path, format!("no certificate in PEM: {error}")))?;
    let trust_domain = RootFacts::read(&root)
        .map_err(|reason| damaged(&path, reason))?
        .trust_domain;
    if identity.trust_domain() != trust_domain {
        return Err(Error::ForeignIdentity {
            identity: identity.clone(),
            trust_domain,
            path,
        });
    }
    Ok(())
}

/// Addresses and DNS names of the service, and loopback, which a probe on the same host uses.
pub(super) fn server_names(configured: &[String]) -> Result<Vec<SanType>, Error> {
    let mut names = Vec::new();
    for name in configured
        .iter()
        .map(String::as_str)
        .chain(["localhost", "127.0.0.1", "::1"])
    {
        let san = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.try_into().map_err(|source| Error::ServerName {
                name: name.to_owned(),
                source,
            })?),
        };
        if !names.contains(&san) {
            names.push(san);
        }
    }
    Ok(names)
}

/// A SPIFFE signing certificate: the trust domain's ID, which has no path, and the right to sign.
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
    params.not_before = (now - ROOT_BACKDATE).into();
    params.not_after = (now + ROOT_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

struct RootFacts {
    trust_domain: String,
    ends: SystemTime,
    public_key: Vec<u8>,
}

impl RootFacts {
    fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
        if !cert.is_ca() {
            return Err("it is no CA certificate".to_owned());
        }
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
            .ok_or_else(|| format!("`{id}` is no ID of a trust domain"))?;
        let ends = u64::try_from(cert.validity().not_after.timestamp())
            .map_err(|_| "it ended before 1970".to_owned())?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            ends: SystemTime::UNIX_EPOCH + Duration::from_secs(ends),
            public_key: cert.public_key().raw.to_vec(),
        })
    }
}

/// A key pair whose bytes are wiped when it is dropped.
struct RootKey(KeyPair);

impl RootKey {
    fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|source| Error::Certificate { source })
    }

    fn parse(pem: &str) -> Result<Self, String> {
        let mut der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("no private key in PEM: {error}"))?;
        let key = KeyPair::try_from(&der).map_err(|error| error.to_string());
        der.zeroize();
        key.map(Self)
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

fn damaged(path: &Path, reason: impl Into<String>) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        reason: reason.into(),
    }
}
