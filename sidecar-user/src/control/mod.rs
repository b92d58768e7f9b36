//! ROLE: the control process. Today it is the embedded CA.

use crate::issuer;

#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: issuer::Config,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    anyhow::bail!(
        "the certificate service on {} is not built yet",
        config.issuer.listen
    )
}
