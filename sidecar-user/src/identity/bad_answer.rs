//! What is wrong with an authority's answer, for the one who runs the authority.

use crate::model::SpiffeId;

/// Far above any real chain and bundle; below it, checking costs nothing that matters.
pub(super) const MAX_CERTIFICATES: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("no certificate came")]
    Empty,
    #[error("more than {MAX_CERTIFICATES} certificates came")]
    Long,
    #[error("certificate string {index} of the answer: {reason}")]
    Pem { index: usize, reason: String },
    #[error("root `{subject}`: {reason}")]
    Root { subject: String, reason: String },
    #[error("there is no root: none of these has signed itself: {}", list(.subjects))]
    NoRoot { subjects: Vec<String> },
    #[error("there is no root: no certificate among the roots has signed itself or may sign others")]
    NoAnchor,
    #[error("`{subject}` was signed by `{issuer}`, which did not come and is none of the roots: {}", list(.roots))]
    NoPath {
        subject: String,
        issuer: String,
        roots: Vec<String>,
    },
    #[error("leaf: {reason}")]
    Leaf { reason: String },
    #[error("leaf: it names {found:?}, but this workload is {wanted}")]
    Name { found: Vec<String>, wanted: SpiffeId },
    #[error(
        "leaf: it is valid from {from} to {to}, which is not now; compare this machine's clock with the authority's"
    )]
    NotNow { from: String, to: String },
    #[error("no certificate is for the key in the request; these came: {}", list(.subjects))]
    OtherKey { subjects: Vec<String> },
    #[error("a peer would refuse the chain from the leaf to the roots")]
    Chain {
        #[source]
        source: rustls::Error,
    },
}

fn list(subjects: &[String]) -> String {
    let quoted: Vec<String> = subjects.iter().map(|subject| format!("`{subject}`")).collect();
    quoted.join(", ")
}
