//! The certificates that the API server trusts for the webhook: those of all replicas, none that has ended. Pure.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::pki;

/// Of those that are not ours. A replica that starts again and again adds one each time; the API server reads all of them in each
/// handshake.
const MOST_OTHERS: usize = 16;

/// What stands there, with our own: `None` where that is so already.
pub(super) fn with(standing: &str, own: &[String], now: SystemTime) -> Option<String> {
    let own: Vec<_> = own.iter().flat_map(|pem| certificates(pem)).collect();
    let all = certificates(standing);
    let mut others: Vec<_> = all
        .iter()
        .filter_map(|der| Some((ends(der)?, der)))
        .filter(|(ends, der)| *ends > now && !own.contains(der))
        .collect();
    // The youngest are of those who run.
    others.sort_by_key(|(ends, _)| std::cmp::Reverse(*ends));
    others.truncate(MOST_OTHERS);
    let mut wanted: Vec<_> = own.iter().chain(others.into_iter().map(|(_, der)| der)).collect();
    // In an order of its own, so that two replicas that agree write nothing.
    wanted.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    wanted.dedup();
    let mut standing: Vec<_> = all.iter().collect();
    standing.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    (standing != wanted).then(|| wanted.into_iter().map(|der| pem(der)).collect())
}

fn certificates(text: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .filter_map(Result::ok)
        .collect()
}

fn ends(der: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    pki::time(certificate.validity().not_after).ok()
}

fn pem(der: &CertificateDer<'_>) -> String {
    ::pem::encode_config(
        &::pem::Pem::new("CERTIFICATE", der.to_vec()),
        ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF),
    )
}

#[cfg(test)]
mod tests {
    use super::super::certificate::{AUTHORITY_LIFE, Keys};
    use super::*;
    use std::time::Duration;

    fn authority(now: SystemTime) -> String {
        Keys::new(vec!["a.test".into()], now)
            .unwrap()
            .authorities()
            .remove(0)
    }

    #[test]
    fn replicas_stand_beside_each_other_and_who_has_ended_goes() {
        let now = SystemTime::now();
        let (a, b) = (authority(now), authority(now + Duration::from_secs(60)));
        let first = with("", std::slice::from_ref(&a), now).unwrap();
        let both = with(&first, std::slice::from_ref(&b), now).unwrap();
        assert_eq!(certificates(&both).len(), 2);
        for own in [&a, &b] {
            assert_eq!(
                with(&both, std::slice::from_ref(own), now),
                None,
                "both are content"
            );
        }
        let later = now + AUTHORITY_LIFE + Duration::from_secs(30);
        let left = with(&both, std::slice::from_ref(&b), later).unwrap();
        assert_eq!(certificates(&left), certificates(&b));
    }

    #[test]
    fn a_bundle_that_is_no_bundle_is_replaced_and_one_that_is_too_long_cut() {
        let now = SystemTime::now();
        let own = authority(now);
        let cleaned = with("\nnonsense", std::slice::from_ref(&own), now).unwrap();
        assert_eq!(certificates(&cleaned), certificates(&own));
        let crowd: String = (0..MOST_OTHERS + 3)
            .map(|n| authority(now + Duration::from_secs(n as u64)))
            .collect();
        let cut = with(&crowd, std::slice::from_ref(&own), now).unwrap();
        assert_eq!(certificates(&cut).len(), MOST_OTHERS + 1);
    }
}
