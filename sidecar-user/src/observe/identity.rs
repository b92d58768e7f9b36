//! `/identity`: what a proxy says of the certificate by which it proves who it is. The contract; what the answer is, the role knows.
//! No key is ever in it.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::report::rfc3339;
use crate::model::SpiffeId;

/// Names of closed sets are strings here, so that an older reader understands a newer writer. A field that is not known
/// is `null`, never absent. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityReport {
    /// `namespace/name`, where a node's agent answers; `null` where the pod's own proxy does.
    pub pod: Option<String>,
    /// Who it is to be.
    pub identity: String,
    /// `valid`, `expired` or `none`.
    pub state: Cow<'static, str>,
    /// `state` in words.
    pub summary: String,
    pub source: SourceReport,
    /// When the certificate came to this process.
    pub obtained: Option<String>,
    pub not_after: Option<String>,
    /// From its first moment to its last.
    pub life_seconds: Option<u64>,
    /// Negative where it has expired.
    pub remaining_seconds: Option<i64>,
    /// When another one is asked for, or the files are read again, at the latest.
    pub next_renewal: Option<String>,
    /// Attempts that failed since the last one that did not.
    pub failures: u32,
    pub last_error: Option<String>,
    /// What is shown to peers: the leaf, and what leads from it to a root.
    pub chain: Vec<CertificateReport>,
    /// By which peers are judged.
    pub roots: Vec<CertificateReport>,
}

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceReport {
    /// `authority`, `agent` or `files`.
    pub kind: Cow<'static, str>,
    /// The authority's URL or the file; `null` for whoever is not to know it.
    pub from: Option<String>,
    /// Who has signed the leaf, as it says.
    pub signer: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateReport {
    pub subject: String,
    /// URIs, such as the SPIFFE ID, and DNS names.
    pub names: Vec<String>,
    pub issuer: String,
    pub serial: String,
    pub not_before: String,
    pub not_after: String,
    /// Its algorithm, such as `ECDSA P-256`.
    pub key: String,
    pub sha256: String,
}

/// What is known of the certificate that came last.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// It is in force, and began then.
    pub since: Option<SystemTime>,
    pub obtained: SystemTime,
    pub not_after: SystemTime,
}

impl IdentityReport {
    /// Of a proxy that is to be `id`, with what its certificate is worth at `now`. The rest is for the role to fill in.
    pub fn new(id: &SpiffeId, source: SourceReport, validity: Option<Validity>, now: SystemTime) -> Self {
        let end = validity.map(|validity| rfc3339(validity.not_after));
        let (state, summary) = match validity {
            Some(Validity { since: Some(_), .. }) => ("valid", "it has a valid certificate".to_owned()),
            Some(Validity { not_after, .. }) if not_after <= now => (
                "expired",
                format!(
                    "its certificate expired at {}, and no other has come: no mesh connection is made or accepted",
                    rfc3339(not_after)
                ),
            ),
            _ => (
                "none",
                "it has no certificate yet: no mesh connection is made or accepted".to_owned(),
            ),
        };
        Self {
            pod: None,
            identity: id.to_string(),
            state: state.into(),
            summary,
            source,
            obtained: validity.map(|validity| rfc3339(validity.obtained)),
            not_after: end,
            life_seconds: validity.and_then(|validity| {
                let life = validity.not_after.duration_since(validity.since?);
                Some(life.unwrap_or_default().as_secs())
            }),
            remaining_seconds: validity.map(|validity| seconds_between(now, validity.not_after)),
            next_renewal: None,
            failures: 0,
            last_error: None,
            chain: Vec::new(),
            roots: Vec::new(),
        }
    }
}

fn seconds_between(from: SystemTime, to: SystemTime) -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_is_valid_while_it_is_in_force_and_then_expired() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let source = SourceReport {
            kind: "agent".into(),
            from: None,
            signer: None,
        };
        let id = SpiffeId::new("td.test", "demo", "web").unwrap();
        let validity = |since| Validity {
            since,
            obtained: at(1000),
            not_after: at(4600),
        };
        let report = |validity, now| IdentityReport::new(&id, source.clone(), validity, at(now));
        let valid = report(Some(validity(Some(at(940)))), 1600);
        assert_eq!(
            (&*valid.state, valid.life_seconds, valid.remaining_seconds),
            ("valid", Some(3660), Some(3000))
        );
        let expired = report(Some(validity(None)), 4660);
        assert_eq!(
            (&*expired.state, expired.remaining_seconds),
            ("expired", Some(-60))
        );
        assert!(
            expired.summary.contains("1970-01-01T01:16:40"),
            "{}",
            expired.summary
        );
        assert_eq!(report(None, 0).state, "none");
    }
}
