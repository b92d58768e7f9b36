//! Workload identity: a SPIFFE ID of the form `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! Only names are here. Keys and certificates live in `identity/`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A workload identity. Cheap to clone, compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(Arc<str>);

/// SPIFFE-ID section 2.3: an identifier is at most this many bytes.
const MAX_ID: usize = 2048;
/// SPIFFE-ID section 2.1: a trust domain name is at most this many bytes.
const MAX_TRUST_DOMAIN: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{value}` is no workload identity: {reason}; write spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
)]
pub struct InvalidId {
    pub value: String,
    pub reason: &'static str,
}

impl SpiffeId {
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidId> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole of it but its scheme, as policies write it.
    pub fn principal(&self) -> &str {
        &self.0["spiffe://".len()..]
    }

    pub fn trust_domain(&self) -> &str {
        self.part(0)
    }

    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    pub fn service_account(&self) -> &str {
        self.part(4)
    }

    fn part(&self, n: usize) -> &str {
        self.0["spiffe://".len()..].split('/').nth(n).unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        let fail = |reason| InvalidId {
            // A stranger's words, for logs and terminals.
            value: value.escape_debug().take(128).collect(),
            reason,
        };
        if value.len() > MAX_ID {
            return Err(fail("longer than 2048 bytes"));
        }
        let rest = value
            .strip_prefix("spiffe://")
            .ok_or_else(|| fail("the scheme is not spiffe://"))?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", account] = parts[..] else {
            return Err(fail("the path is not /ns/<namespace>/sa/<service account>"));
        };
        check_trust_domain(trust_domain).map_err(fail)?;
        check_segment(namespace).map_err(fail)?;
        check_segment(account).map_err(fail)?;
        Ok(Self(value.into()))
    }
}

/// A trust domain is lower case `[a-z0-9.-_]`, not empty, at most 255 bytes.
pub fn check_trust_domain(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_TRUST_DOMAIN {
        return Err("the trust domain is empty or longer than 255 bytes");
    }
    if !name
        .bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
    {
        return Err("the trust domain may hold only a-z, 0-9, '.', '-' and '_'");
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    if segment.is_empty() || segment == "." || segment == ".." {
        return Err("a path segment is empty, '.' or '..'");
    }
    if !segment
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    {
        return Err("a path segment may hold only letters, digits, '.', '-' and '_'");
    }
    Ok(())
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidId;
    fn try_from(value: String) -> Result<Self, InvalidId> {
        value.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.0.to_string()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_istio_identity_is_taken_apart() {
        let id: SpiffeId = "spiffe://td.test/ns/demo/sa/client".parse().unwrap();
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("td.test", "demo", "client")
        );
    }

    #[test]
    fn anything_else_is_refused_with_its_reason() {
        for (value, reason) in [
            ("https://td/ns/a/sa/b", "scheme"),
            ("spiffe://td/ns/a", "path"),
            ("spiffe://td/ns/a/sa/b/", "path"),
            ("spiffe://td/ns/a/sa/b/c", "path"),
            ("spiffe://TD/ns/a/sa/b", "trust domain"),
            ("spiffe:///ns/a/sa/b", "trust domain"),
            ("spiffe://td:1/ns/a/sa/b", "trust domain"),
            ("spiffe://td/ns/../sa/b", "segment"),
            ("spiffe://td/ns//sa/b", "segment"),
            ("spiffe://td/ns/a%20/sa/b", "segment"),
        ] {
            let error = value.parse::<SpiffeId>().unwrap_err();
            assert!(error.reason.contains(reason), "{value}: {error}");
        }
    }
}
