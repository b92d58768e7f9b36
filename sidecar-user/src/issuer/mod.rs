//! THE CA: root, signing, and the Istio certificate service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
