//! THE CA: root, signing, and the Istio certificate service.
//!
//! It knows identities and who may have which; it does not know pods, Kubernetes or certificates of other
//! authorities. Read `sign.rs` first: it is the decision. `api.rs` is the wire, `listener.rs` the door in front of it,
//! `guard.rs` what stands before other services there, `judge.rs` whose token is good. `store.rs` and `state.rs` are the disk,
//! `held.rs` what takes its place in a cluster, `rotation.rs` how the root is replaced.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;

use crate::model::SpiffeId;

pub mod api;
pub mod ca;
mod certificate;
mod claims;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod held;
mod judge;
mod listener;
mod pod_certificate;
mod remembered;
mod root;
pub mod rotation;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod scratch;
mod service;
pub mod sign;
mod state;
mod stats;
pub mod store;
mod tenants;
#[cfg(test)]
mod tests;
pub mod token;
mod token_file;
mod visit;

pub use api::{DRAIN, serve};
pub use ca::Ca;
pub use claims::Claims;
pub use held::Material;
pub use judge::{Credentials, Doubt, Judge, Proved, Review};
pub use pod_certificate::{PodCertificate, PodKey, PodRefusal, PodRequest};
pub use remembered::Remembered;
pub use service::Service;
pub use sign::Refusal;
pub use state::write_secret;
pub use stats::{Counts, Refused};
pub use store::Store;
pub use token::Tokens;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Holds the root key, so only its owner may enter it. Empty where somebody else keeps the authority.
    pub state_dir: PathBuf,
    pub trust_domain: String,
    /// The longest life of a leaf, and its life when the request names none.
    pub leaf_ttl: Duration,
    /// DNS names and addresses in the service's own certificate.
    pub server_names: Vec<String>,
}

/// Why the CA cannot work. Why it will not sign one request is [`Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is open to others (mode {mode:04o}) and holds secrets; run: chmod {wanted:04o} {}", path.display(), path.display())]
    Exposed { path: PathBuf, mode: u32, wanted: u32 },
    #[error("{} belongs to user {owner}, but this process is user {us}; run as user {owner}, or: chown {us} {}", path.display(), path.display())]
    ForeignOwner { path: PathBuf, owner: u32, us: u32 },
    #[error("{} cannot be used: {reason}; restore it from a backup, or move the state directory away to begin a new mesh", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{} is the root of trust domain `{found}`, but `{wanted}` is asked for; write trustDomain: {found}, or choose another stateDir", path.display()
    )]
    TrustDomain {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error(
        "its {key} cannot be used: {reason}; restore it from a backup, or delete the Secret and restart `outrigger control` to begin a new mesh"
    )]
    Kept { key: String, reason: String },
    #[error("`{name}` is no trust domain: {reason}")]
    InvalidTrustDomain { name: String, reason: &'static str },
    #[error("serverNames: `{name}` is neither an address nor a DNS name")]
    ServerName {
        name: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("{} is not there, so nobody knows how long certificates live; start `outrigger control` on the directory once", path.display())]
    NeverOpened { path: PathBuf },
    #[error(
        "its rotation.json is not there, so nobody knows how long certificates live; run `outrigger control` of this version on it first"
    )]
    NeverNoted,
    #[error(
        "switch is too early: the control process has not published both roots yet; see with `ca status` when it has, and if it does not, \
         in its log why; or add --force and cut those off who have not heard of the younger root"
    )]
    Unpublished,
    #[error("{step} is too early: {reason}; wait until {from}, or add --force and cut those off")]
    TooEarly {
        step: &'static str,
        from: String,
        reason: &'static str,
    },
    #[error("{step} is not possible now: {phase}; possible is {possible}")]
    OutOfOrder {
        step: &'static str,
        phase: &'static str,
        possible: String,
    },
    #[error("label `{label}`: {reason}")]
    Label { label: String, reason: &'static str },
    #[error("no token has the label or id `{name}`; see: outrigger token list --state-dir {}", state_dir.display())]
    NoSuchToken { name: String, state_dir: PathBuf },
    #[error("{identity} is outside of the trust domain `{trust_domain}` of {}", path.display())]
    ForeignIdentity {
        identity: SpiffeId,
        trust_domain: String,
        path: PathBuf,
    },
    #[error("cannot make a certificate")]
    Certificate {
        #[source]
        source: rcgen::Error,
    },
    #[error("cannot set up TLS")]
    Tls {
        #[source]
        source: rustls::Error,
    },
    #[error("no random bytes from the operating system")]
    Random,
    #[error("cannot start the thread of TLS handshakes")]
    Handshakes {
        #[source]
        source: io::Error,
    },
    #[error("the certificate service stopped")]
    Serve {
        #[source]
        source: tonic::transport::Error,
    },
}

/// Unpredictable bytes for tokens and serial numbers.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    PROVIDER
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// Made once: each one is a set of lists.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| rustls::crypto::aws_lc_rs::default_provider().into());

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
