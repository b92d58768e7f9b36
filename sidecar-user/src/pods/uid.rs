//! The UID of a pod.

use std::fmt;
use std::str::FromStr;

/// As the API has it, with dashes. That of a static pod is a hash of its configuration, without.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodUid(String);

impl FromStr for PodUid {
    type Err = NotUid;

    /// Takes the underscores of systemd's names as well.
    fn from_str(text: &str) -> Result<Self, NotUid> {
        let uid = text.replace('_', "-");
        let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let groups: Vec<usize> = uid.split('-').map(str::len).collect();
        if matches!(groups[..], [8, 4, 4, 4, 12] | [32]) && uid.split('-').all(is_hex) {
            return Ok(Self(uid));
        }
        Err(NotUid(text.into()))
    }
}

impl PodUid {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no pod UID; name one as `kubectl get pod -o jsonpath={{.metadata.uid}}` prints it, or the configuration hash of \
     a static pod"
)]
pub struct NotUid(String);
