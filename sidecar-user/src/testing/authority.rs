//! A certificate authority that signs whatever a test asks for, right or wrong. Names nothing of the crate: the
//! end-to-end tests include this file.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// What leaves have to bring with them: nothing, or the certificates between the root and this authority.
    between: Vec<CertificateDer<'static>>,
}

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Leaf {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

impl Authority {
    /// A new root.
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = signer(name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self::with(Issuer::new(params, key), pem, Vec::new())
    }

    /// One that exists.
    pub(crate) fn with(
        issuer: Issuer<'static, KeyPair>,
        pem: String,
        between: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self { issuer, pem, between }
    }

    /// An intermediate, one step further from the root.
    pub(crate) fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = signer(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut between = vec![certificate.der().clone()];
        between.extend(self.between.iter().cloned());
        Self::with(Issuer::new(params, key), certificate.pem(), between)
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A leaf for this URI with a new key, changed before it is signed.
    pub(crate) fn leaf(&self, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.leaf_for(&KeyPair::generate().unwrap(), uri, change)
    }

    /// As `leaf`, for any key.
    pub(crate) fn leaf_for(
        &self,
        key: &KeyPair,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut params = profile(uri);
        change(&mut params);
        let mut chain = vec![params.signed_by(key, &self.issuer).unwrap().der().clone()];
        chain.extend(self.between.iter().cloned());
        Leaf {
            chain,
            key: key.serialize_der(),
        }
    }

    /// A leaf for the key of a certificate request, of which nothing else counts.
    pub(crate) fn sign(
        &self,
        request: &str,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Certificate {
        let request = CertificateSigningRequestParams::from_pem(request).unwrap();
        let mut params = profile(uri);
        change(&mut params);
        params.signed_by(&request.public_key, &self.issuer).unwrap()
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

/// A leaf as SPIFFE and both roles of a proxy want it, without an end that a test would live to see.
fn profile(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![self::uri(uri)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

pub(crate) fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}
