//! Who this proxy is, and what its certificate is worth.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::identity::{self, Svid};
use crate::observe::{Caller, CertificateReport, IdentityReport, SourceReport, Validity};
use crate::pki;

pub(super) struct OwnIdentity {
    pub(super) config: identity::Config,
    pub(super) svid: watch::Receiver<Option<Arc<Svid>>>,
    pub(super) status: watch::Receiver<identity::Status>,
}

impl OwnIdentity {
    pub(super) fn report(&self, caller: Caller) -> IdentityReport {
        let (svid, status) = (self.svid.borrow().clone(), self.status.borrow().clone());
        report(&self.config, svid.as_deref(), &status, caller, SystemTime::now())
    }
}

/// Whoever is not the owner sees no name of a file and not the authority, as in `/config`; and errors name both.
fn report(
    config: &identity::Config,
    svid: Option<&Svid>,
    status: &identity::Status,
    caller: Caller,
    now: SystemTime,
) -> IdentityReport {
    let is_owner = caller == Caller::Owner;
    let chain: Vec<CertificateReport> =
        svid.map_or_else(Vec::new, |svid| certificates(&svid.certified_key().cert));
    let (kind, from) = match &config.source {
        identity::Source::Authority(ask) if ask.is_agents() => ("agent", None),
        identity::Source::Authority(ask) => ("authority", Some(ask.authority.clone())),
        identity::Source::Files(files) => ("files", Some(files.bundle.display().to_string())),
    };
    let source = SourceReport {
        kind: kind.into(),
        from: from.filter(|_| is_owner),
        signer: chain.first().map(|leaf| leaf.issuer.clone()),
    };
    // A certificate is published a moment after its status.
    let validity = status.obtained.map(|obtained| Validity {
        since: svid.map(Svid::not_before),
        obtained: obtained.at,
        not_after: svid.map_or(obtained.not_after, Svid::not_after),
    });
    IdentityReport {
        next_renewal: status
            .next_attempt
            .map(|next| humantime::format_rfc3339_seconds(next).to_string()),
        failures: status.failures,
        last_error: match (&status.last_error, is_owner) {
            (Some(_), false) => Some("the log and the admin socket say why".to_owned()),
            (error, _) => error.clone(),
        },
        chain,
        roots: svid.map_or_else(Vec::new, |svid| certificates(svid.anchors())),
        ..IdentityReport::new(&config.id, source, validity, now)
    }
}

/// What could not be read was never taken for a certificate of this proxy.
fn certificates(all: &[CertificateDer<'_>]) -> Vec<CertificateReport> {
    let described = all.iter().filter_map(|der| pki::describe(der).ok());
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let reports = described.map(|cert| CertificateReport {
        subject: cert.subject,
        names: cert.names,
        issuer: cert.issuer,
        serial: cert.serial,
        not_before: time(cert.not_before),
        not_after: time(cert.not_after),
        key: cert.key,
        sha256: cert.fingerprint,
    });
    reports.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::SpiffeId;

    fn config() -> identity::Config {
        identity::Config {
            id: SpiffeId::new("td.test", "demo", "web").unwrap(),
            source: identity::Source::Authority(identity::Ask {
                authority: "https://control.test:15012".into(),
                server_name: None,
                roots: "/etc/roots.pem".into(),
                token: "/run/token".into(),
                cluster: "c1".into(),
                ttl: Duration::from_secs(86_400),
                refresh: Duration::from_secs(3600),
            }),
        }
    }

    fn svid(id: &SpiffeId) -> Svid {
        use rcgen::{
            BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
            KeyPair,
        };
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "the root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let key = identity::Key::generate().unwrap();
        let request = key.request(id).unwrap();
        let mut request = CertificateSigningRequestParams::from_pem(&request).unwrap();
        request.params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = request.signed_by(&Issuer::new(root, root_key)).unwrap().pem();
        Svid::from_answer(id, &key, &[leaf, root_pem], SystemTime::now()).unwrap()
    }

    #[test]
    fn a_certificate_is_told_with_its_chain_and_roots_and_without_its_key() {
        let (config, now) = (config(), SystemTime::now());
        let svid = svid(&config.id);
        let status = identity::Status {
            next_attempt: Some(now + Duration::from_secs(60)),
            obtained: Some(identity::Obtained {
                at: now,
                not_after: svid.not_after(),
            }),
            ..identity::Status::default()
        };
        let told = report(&config, Some(&svid), &status, Caller::Owner, now);
        assert_eq!((&*told.state, told.failures), ("valid", 0));
        assert_eq!(told.chain.len(), 1);
        assert_eq!(told.chain[0].names, [config.id.as_str()]);
        assert_eq!(told.roots.len(), 1);
        assert!(told.roots[0].subject.contains("the root"), "{:?}", told.roots);
        assert_ne!(told.roots[0].sha256, told.chain[0].sha256);
        let signer = told.source.signer.as_deref().unwrap();
        assert!(signer.contains("the root"), "{signer}");
        let all = serde_json::to_string(&told).unwrap();
        let secret = svid.certified_key();
        assert!(!all.contains("PRIVATE") && secret.cert.len() == 1, "{all}");
    }

    #[test]
    fn why_there_is_none_is_told_to_the_owner_and_that_it_has_expired_to_everybody() {
        let (config, now) = (config(), SystemTime::now());
        let status = identity::Status {
            failures: 3,
            last_error: Some("https://control.test:15012 refused /run/token".into()),
            next_attempt: None,
            obtained: Some(identity::Obtained {
                at: now - Duration::from_secs(120),
                not_after: now - Duration::from_secs(60),
            }),
        };
        let [owner, other] =
            [Caller::Owner, Caller::Anyone].map(|caller| report(&config, None, &status, caller, now));
        assert_eq!((&*owner.state, &*other.state), ("expired", "expired"));
        assert_eq!(owner.remaining_seconds, Some(-60));
        assert!(owner.last_error.unwrap().contains("/run/token"));
        assert_eq!(owner.source.from.as_deref(), Some("https://control.test:15012"));
        let told = serde_json::to_string(&other).unwrap();
        assert!(
            !told.contains("/run/token") && !told.contains("control.test"),
            "{told}"
        );
        assert_eq!(other.failures, 3);
    }
}
