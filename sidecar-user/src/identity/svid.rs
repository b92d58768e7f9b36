//! The workload's key, and the certificate that proves its identity.
//!
//! How a certificate is judged before it becomes an [`Svid`] is in `answer.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SanType};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use zeroize::Zeroize;

use super::Error;
use crate::model::SpiffeId;

/// A verified SPIFFE X.509 identity with the bundle its peers are judged by. Never changes: a renewal makes
/// another one.
pub struct Svid {
    pub(super) id: SpiffeId,
    pub(super) certified_key: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    /// The certificates that `roots` was made of.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) serial: String,
}

impl Svid {
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf and intermediates, never the root, with the key that signs for them.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified_key
    }

    /// The bundle of the workload's own trust domain, ready for chain building.
    pub fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// The same, each as the certificate that it came as.
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Serial number of the leaf, in hexadecimal with colons.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    pub(super) fn left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// The same leaf by the same chain, with the same roots.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.certified_key.cert == other.certified_key.cert && self.roots.roots == other.roots.roots
    }

    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// The key of a certificate: an ECDSA P-256 key that was made in this process, or one of any kind that came in a file beside its
/// certificate. It never leaves the process, and each certificate has its own.
pub struct Key(KeyPair);

impl Key {
    pub fn generate() -> Result<Self, Error> {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|source| Error::Key { source })
    }

    /// Leaves `der` to be wiped by its owner.
    pub(super) fn parse(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, rcgen::Error> {
        KeyPair::try_from(der).map(Self)
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn from_pem(pem: &str) -> Result<Self, rcgen::Error> {
        KeyPair::from_pem(pem).map(Self)
    }

    /// A PKCS#10 request in PEM: one URI SAN, empty subject.
    pub fn request(&self, id: &SpiffeId) -> Result<String, Error> {
        let request = || {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
            params.serialize_request(&self.0)?.pem()
        };
        request().map_err(|source| Error::Key { source })
    }

    /// As it stands in the request and in the certificate: a SubjectPublicKeyInfo in DER.
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(super) fn signer(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        // Borrowed, so that there is one copy to wipe.
        let der = PrivateKeyDer::Pkcs8(self.0.serialized_der().into());
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}
