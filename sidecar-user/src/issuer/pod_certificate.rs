//! Certificates for keys that a kubelet has made, as the API server brings its requests: which are signed, for how long, and when
//! they are to be renewed. Pure: time and chance are arguments. Whose pod it is, the API server has checked.
//!
//! The API server takes no certificate that lives shorter than an hour, counts from its `notBefore`, and wants ten minutes between
//! the renewal and each end.

use std::time::{Duration, SystemTime};

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::ca::{Ca, Issued};
use super::sign::{self, Life, Refusal};
use crate::model::SpiffeId;

/// Of a certificate, by the API server.
const SHORTEST: Duration = Duration::from_secs(3600);
/// Between the renewal and both ends of a life, by the API server.
const MARGIN: Duration = Duration::from_secs(600);
/// The part of a life after which a kubelet renews, which adds up to five minutes by chance. The rest is time for a signer that is
/// away.
const RENEWAL: f64 = 0.7;
/// Pods that were started together are not renewed together.
const RENEWAL_JITTER: f64 = 0.05;
/// What a kubelet makes; smaller ones are weak, larger ones cost every peer.
const RSA_BITS: std::ops::RangeInclusive<usize> = 3072..=4096;
const KEYS: &str = "use keyType: ECDSAP256, ECDSAP384, ED25519, RSA3072 or RSA4096";

/// What is asked for.
#[derive(Debug)]
pub struct PodRequest<'a> {
    pub namespace: &'a str,
    pub service_account: &'a str,
    pub key: PodKey<'a>,
    /// The longest life that the pod allows.
    pub longest: Duration,
    /// Names of what the pod's author says to the signer, of which none is known.
    pub annotations: &'a [String],
}

/// In DER.
#[derive(Debug)]
pub enum PodKey<'a> {
    /// A PKCS#10 request.
    Request(&'a [u8]),
    /// A SubjectPublicKeyInfo.
    Key(&'a [u8]),
}

#[derive(Debug)]
pub struct PodCertificate {
    pub identity: SpiffeId,
    pub issued: Issued,
    pub not_before: SystemTime,
    pub refresh_at: SystemTime,
}

/// Why there is none. The message is shown to whoever looks at the pod.
#[derive(Debug, thiserror::Error)]
pub enum PodRefusal {
    /// Never, whatever changes here.
    #[error("{message}")]
    Denied { reason: &'static str, message: String },
    /// Not by this configuration.
    #[error("{message}")]
    Failed { reason: &'static str, message: String },
    /// Not now: the request may wait.
    #[error("cannot sign")]
    NotNow(#[source] Refusal),
}

impl Ca {
    /// `now` is in whole seconds, as certificates are.
    pub(super) fn issue_for_pod(
        &self,
        request: &PodRequest<'_>,
        now: SystemTime,
        chance: f64,
    ) -> Result<PodCertificate, PodRefusal> {
        if let Some(unknown) = request.annotations.first() {
            let message = format!(
                "userAnnotations: `{}` is not known to this signer; remove it",
                unknown.escape_debug()
            );
            return Err(denied("UnknownAnnotation", message));
        }
        let identity = SpiffeId::new(self.trust_domain(), request.namespace, request.service_account)
            .map_err(|error| denied("InvalidName", error.to_string()))?;
        let key = read_key(&request.key, &identity)?;
        let life = self.life(request.longest, now)?;
        let issued = self.sign(&key, &identity, life).map_err(PodRefusal::NotNow)?;
        Ok(PodCertificate {
            identity,
            issued,
            not_before: life.not_before,
            refresh_at: refresh_at(life, now, chance),
        })
    }

    fn life(&self, longest: Duration, now: SystemTime) -> Result<Life, PodRefusal> {
        let not_before = now - sign::BACKDATE;
        let wanted = (not_before + longest).min(now + self.leaf_ttl()).min(self.ends());
        let not_after = wanted.min(self.latest());
        if not_after <= now {
            return Err(PodRefusal::NotNow(self.too_late(now)));
        }
        if not_after < wanted && not_after < not_before + SHORTEST {
            return Err(PodRefusal::NotNow(Refusal::NotNoted));
        }
        let life = not_after.duration_since(not_before).unwrap_or_default();
        if life < SHORTEST {
            let message = format!(
                "the certificate would live for {}, and the API server takes none below 1h; see leafTtl of `outrigger control` \
                 and the end of its root",
                humantime::format_duration(life)
            );
            return Err(PodRefusal::Failed {
                reason: "LifetimeTooShort",
                message,
            });
        }
        Ok(Life {
            not_before,
            not_after,
        })
    }
}

/// Late enough to be seldom, early enough for a signer that is away for long.
fn refresh_at(life: Life, now: SystemTime, chance: f64) -> SystemTime {
    let left = life.not_after.duration_since(now).unwrap_or_default();
    let wanted = now + left.mul_f64(RENEWAL - RENEWAL_JITTER * chance);
    wanted.clamp(life.not_before + MARGIN, life.not_after - MARGIN)
}

fn read_key(key: &PodKey<'_>, identity: &SpiffeId) -> Result<SubjectPublicKeyInfo, PodRefusal> {
    let bad = |reason: String| denied("InvalidRequest", reason);
    match key {
        PodKey::Key(der) => known_key(der),
        PodKey::Request(der) => {
            let der = CertificateSigningRequestDer::from(*der);
            let (rest, request) = X509CertificationRequest::from_der(&der)
                .map_err(|error| bad(format!("it holds no PKCS#10 request: {error}")))?;
            if !rest.is_empty() {
                return Err(bad("bytes follow the PKCS#10 request".to_owned()));
            }
            // Before the signature, whose algorithm may be as unknown as the key's.
            let key = known_key(request.certification_request_info.subject_pki.raw)?;
            request
                .verify_signature()
                .map_err(|_| bad("the signature of the PKCS#10 request does not fit its key".to_owned()))?;
            // A kubelet's is empty.
            let names = sign::names(&request).map_err(|refusal| bad(refusal.to_string()))?;
            match names.iter().all(|name| *name == Some(identity.as_str())) {
                true => Ok(key),
                false => Err(bad(format!("it asks for another name than {identity}"))),
            }
        }
    }
}

fn known_key(spki: &[u8]) -> Result<SubjectPublicKeyInfo, PodRefusal> {
    let unknown = |what: &str| denied("UnsupportedKeyType", format!("{what}; {KEYS}"));
    let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki)
        .map_err(|_| unknown("the public key cannot be read"))?;
    if let Ok(PublicKey::RSA(rsa)) = parsed.parsed()
        && !RSA_BITS.contains(&rsa.key_size())
    {
        return Err(unknown(&format!("an RSA key of {} bits", rsa.key_size())));
    }
    let key =
        SubjectPublicKeyInfo::from_der(spki).map_err(|_| unknown("a key of a kind that is not known"))?;
    let known = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    match known.contains(&rcgen::PublicKeyData::algorithm(&key)) {
        true => Ok(key),
        false => Err(unknown("a key that this signer takes none of")),
    }
}

fn denied(reason: &'static str, message: String) -> PodRefusal {
    PodRefusal::Denied { reason, message }
}

#[cfg(test)]
mod tests;
