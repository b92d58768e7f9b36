//! The authority as it is at one moment: who signs, and whom workloads are to trust. Never changes: a rotation makes
//! another one.
//!
//! It neither decides who gets which identity (`token.rs`, `sign.rs`) nor reads files (`store.rs`) nor speaks to anyone
//! (`api.rs`).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::root::{self, RootCert, RootKey, SigningRoot};
use super::sign::{self, Life, Refusal};
use super::{Error, random};
use crate::model::SpiffeId;

/// Signs leaves of one trust domain.
pub struct Ca {
    signer: SigningRoot,
    /// Signs the service's own certificate in place of `signer`, during a rotation.
    elder: Option<SigningRoot>,
    bundle: String,
    roots: usize,
    leaf_ttl: Duration,
    /// Until when it is noted that leaves live; no leaf outlives it. `None`: whoever has them signed sees to that.
    noted: Option<SystemTime>,
}

/// A leaf, and what the log says about it.
#[derive(Clone, Debug)]
pub struct Issued {
    pub pem: String,
    /// In hexadecimal with colons, as a sidecar's log has it.
    pub serial: String,
    pub not_after: SystemTime,
}

impl Ca {
    /// A root that lives in memory only.
    pub fn ephemeral(trust_domain: &str, leaf_ttl: Duration, now: SystemTime) -> Result<Self, Error> {
        let root = SigningRoot::generate(RootKey::generate()?, trust_domain, now)?;
        Ok(Self::new(root, None, &[], leaf_ttl))
    }

    /// `others` are the roots to trust beside the signer's. While there are two, the service's own certificate is
    /// signed by the `elder`: every client has that one in its `identity.roots`, and the younger perhaps not yet.
    pub(super) fn new(
        signer: SigningRoot,
        elder: Option<SigningRoot>,
        others: &[RootCert],
        leaf_ttl: Duration,
    ) -> Self {
        let bundle = std::iter::once(&signer.cert).chain(others);
        Self {
            bundle: bundle.map(RootCert::pem).collect(),
            roots: 1 + others.len(),
            signer,
            elder,
            leaf_ttl,
            noted: None,
        }
    }

    /// Signs nothing that lives longer.
    pub(super) fn until(mut self, noted: SystemTime) -> Self {
        self.noted = Some(noted);
        self
    }

    /// The leaf for `identity`. `ttl` is what was asked for.
    pub fn issue(
        &self,
        csr: &str,
        identity: &SpiffeId,
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<Issued, Refusal> {
        if identity.trust_domain() != self.trust_domain() {
            return Err(Refusal::ForeignDomain {
                granted: identity.clone(),
                trust_domain: self.trust_domain().to_owned(),
            });
        }
        let key = sign::check_request(csr, identity)?;
        let not_after =
            sign::expiry(ttl, self.leaf_ttl, self.latest(), now).ok_or_else(|| self.too_late(now))?;
        let not_before = now - sign::BACKDATE;
        self.sign(
            &key,
            identity,
            Life {
                not_before,
                not_after,
            },
        )
    }

    /// Whoever calls it has decided.
    pub(super) fn sign(
        &self,
        key: &SubjectPublicKeyInfo,
        identity: &SpiffeId,
        life: Life,
    ) -> Result<Issued, Refusal> {
        let serial = sign::positive(random().map_err(Refusal::Failed)?);
        let text = serial.to_string();
        sign::leaf_params(identity, serial, life)
            .and_then(|params| params.signed_by(key, &self.signer.issuer))
            .map(|leaf| Issued {
                pem: leaf.pem(),
                serial: text,
                not_after: life.not_after,
            })
            .map_err(|source| Refusal::Failed(Error::Certificate { source }))
    }

    /// The longest life of a leaf.
    pub(super) fn leaf_ttl(&self) -> Duration {
        self.leaf_ttl
    }

    /// The roots that workloads are to trust, the signer's first.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// How many roots those are.
    pub fn roots(&self) -> usize {
        self.roots
    }

    /// The signer's root.
    pub fn root_der(&self) -> &CertificateDer<'static> {
        &self.signer.cert.der
    }

    pub fn trust_domain(&self) -> &str {
        &self.signer.cert.trust_domain
    }

    /// When the signer's root ends; no leaf outlives it.
    pub fn ends(&self) -> SystemTime {
        self.signer.cert.ends
    }

    /// The latest end that a leaf can have now.
    pub(super) fn latest(&self) -> SystemTime {
        self.noted.map_or(self.ends(), |noted| noted.min(self.ends()))
    }

    /// Why no leaf can be signed.
    pub(super) fn too_late(&self, now: SystemTime) -> Refusal {
        match self.ends() <= now {
            true => Refusal::RootExpired,
            false => Refusal::NotNoted,
        }
    }

    pub(super) fn fingerprint(&self) -> String {
        self.signer.cert.fingerprint()
    }

    /// A certificate for the service itself, with its end. It names hosts and no workload, so it is no
    /// identity in the mesh.
    pub(super) fn server_certificate(
        &self,
        names: &[SanType],
        now: SystemTime,
    ) -> Result<(CertifiedKey, SystemTime), Error> {
        let root = self.elder.as_ref().unwrap_or(&self.signer);
        let end = sign::expiry(None, self.leaf_ttl, root.cert.ends, now).unwrap_or(root.cert.ends);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(sign::positive(random()?));
        params.not_before = (now - root::BACKDATE).into();
        params.not_after = end.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let key = RootKey::generate()?;
        let leaf = params
            .signed_by(&key, &root.issuer)
            .map_err(|source| Error::Certificate { source })?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key.pkcs8())
            .map_err(|source| Error::Tls { source })?;
        Ok((CertifiedKey::new(vec![leaf.into()], signer), end))
    }
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
