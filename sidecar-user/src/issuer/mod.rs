//! THE CA: root, signing, and the Istio certificate service.
//!
//! It knows identities and who may have which; it does not know pods, Kubernetes or certificates of other
//! authorities. Read `sign.rs` first: it is the decision. `api.rs` is the wire, `state.rs` the disk.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::SpiffeId;

pub mod api;
pub mod ca;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod listener;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod scratch;
pub mod sign;
mod state;
#[cfg(test)]
mod tests;
pub mod token;

pub use api::serve;
pub use ca::Ca;
pub use sign::Refusal;
pub use token::Tokens;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    /// Holds the root key, so only its owner may enter it.
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
    #[error("`{name}` is no trust domain: {reason}")]
    InvalidTrustDomain { name: String, reason: &'static str },
    #[error("serverNames: `{name}` is neither an address nor a DNS name")]
    ServerName {
        name: String,
        #[source]
        source: rcgen::Error,
    },
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
    #[error("the certificate service stopped")]
    Serve {
        #[source]
        source: tonic::transport::Error,
    },
}

/// Unpredictable bytes for tokens and serial numbers.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Error::Random)?;
    Ok(bytes)
}
