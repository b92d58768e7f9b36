//! The webhook's authority and certificate, in memory alone: made anew with each process, which has the API server trust it. Publishes
//! nothing itself.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::error::Error;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Far longer than a process that cannot publish another one is left alone.
pub(super) const AUTHORITY_LIFE: Duration = DAY.saturating_mul(7);
const LEAF_LIFE: Duration = DAY;
/// A clock of the control plane may be behind ours.
const BACKDATE: Duration = Duration::from_secs(3600);

/// In their names, so that people know them in a configuration.
const AUTHORITY_NAME: &str = "outrigger webhook";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    ends: SystemTime,
}

/// The authority in use, its successor where there is one, and the certificate that is shown.
pub(super) struct Keys {
    names: Vec<SanType>,
    state: Mutex<State>,
}

struct State {
    authority: Authority,
    next: Option<Next>,
    shown: Arc<CertifiedKey>,
    shown_ends: SystemTime,
}

struct Next {
    authority: Authority,
    is_published: bool,
}

impl Keys {
    pub(super) fn new(names: Vec<String>, now: SystemTime) -> Result<Self, Error> {
        let names = names.into_iter().map(name).collect::<Result<Vec<_>, _>>()?;
        let authority = Authority::make(now)?;
        let (shown, shown_ends) = authority.certify(&names, now)?;
        let state = Mutex::new(State {
            authority,
            next: None,
            shown,
            shown_ends,
        });
        Ok(Self { names, state })
    }

    /// What the API server has to trust from now on.
    pub(super) fn authorities(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.next.iter().map(|next| next.authority.pem.clone());
        std::iter::once(state.authority.pem.clone()).chain(next).collect()
    }

    /// It does trust them. What it has trusted since the last call may be used: its copy of the configuration is as new by now.
    pub(super) fn published(&self, now: SystemTime) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.next.take() {
            Some(next) if next.is_published => {
                (state.shown, state.shown_ends) = next.authority.certify(&self.names, now)?;
                state.authority = next.authority;
            }
            Some(next) => {
                state.next = Some(Next {
                    is_published: true,
                    ..next
                })
            }
            None => {}
        }
        Ok(())
    }

    /// Makes what has half of its life behind it anew: the certificate at once, the authority to be published first.
    pub(super) fn renew(&self, now: SystemTime) -> Result<(), Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |ends: SystemTime| ends.duration_since(now).unwrap_or_default();
        if state.next.is_none() && left(state.authority.ends) < AUTHORITY_LIFE / 2 {
            state.next = Some(Next {
                authority: Authority::make(now)?,
                is_published: false,
            });
        }
        if left(state.shown_ends) < LEAF_LIFE / 2 {
            (state.shown, state.shown_ends) = state.authority.certify(&self.names, now)?;
        }
        Ok(())
    }
}

impl Authority {
    fn make(now: SystemTime) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(certificate)?;
        let ends = now + AUTHORITY_LIFE;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
        params.not_before = (now - BACKDATE).into();
        params.not_after = ends.into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).map_err(certificate)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem, ends })
    }

    fn certify(&self, names: &[SanType], now: SystemTime) -> Result<(Arc<CertifiedKey>, SystemTime), Error> {
        let key = KeyPair::generate().map_err(certificate)?;
        let ends = self.ends.min(now + LEAF_LIFE);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names.to_vec();
        params.not_before = (now - BACKDATE).into();
        params.not_after = ends.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).map_err(certificate)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key.into())
            .map_err(|source| Error::Tls { source })?;
        Ok((Arc::new(CertifiedKey::new(vec![leaf.into()], signer)), ends))
    }
}

pub(super) fn tls(keys: Arc<Keys>) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|source| Error::Tls { source })?
        .with_no_client_auth()
        .with_cert_resolver(keys);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Some(state.shown.clone())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn name(name: String) -> Result<SanType, Error> {
    Ok(match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().map_err(certificate)?),
    })
}

fn certificate(source: rcgen::Error) -> Error {
    Error::Certificate { source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keys: &Keys) -> Arc<CertifiedKey> {
        keys.state.lock().unwrap().shown.clone()
    }

    #[test]
    fn an_authority_signs_only_once_it_has_been_published_twice() {
        let now = SystemTime::now();
        let keys = Keys::new(vec!["control.test".into(), "10.0.0.1".into()], now).unwrap();
        let first = keys.authorities();
        keys.renew(now + AUTHORITY_LIFE / 3).unwrap();
        assert_eq!(keys.authorities(), first, "it is young");

        let later = now + AUTHORITY_LIFE * 2 / 3;
        keys.renew(later).unwrap();
        let both = keys.authorities();
        assert_eq!((both.len(), &both[0]), (2, &first[0]));
        let before = shown(&keys);
        keys.published(later).unwrap();
        assert!(
            Arc::ptr_eq(&shown(&keys), &before),
            "the API server may not know it yet"
        );
        keys.published(later).unwrap();
        assert!(!Arc::ptr_eq(&shown(&keys), &before));
        assert_eq!(keys.authorities(), both[1..]);
    }

    #[test]
    fn a_certificate_is_made_anew_at_half_of_its_life() {
        let now = SystemTime::now();
        let keys = Keys::new(vec!["control.test".into()], now).unwrap();
        let first = shown(&keys);
        keys.renew(now + LEAF_LIFE / 3).unwrap();
        assert!(Arc::ptr_eq(&shown(&keys), &first));
        keys.renew(now + LEAF_LIFE * 2 / 3).unwrap();
        assert!(!Arc::ptr_eq(&shown(&keys), &first));
    }
}
