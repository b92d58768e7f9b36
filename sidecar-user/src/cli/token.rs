//! `token create`: asks the CA's state directory for a token and prints it.

use std::path::Path;

use crate::issuer;
use crate::model::SpiffeId;

/// The token alone on standard output, so that `> token` makes the file that a proxy wants.
pub(super) fn create(state_dir: &Path, identity: &SpiffeId) -> anyhow::Result<()> {
    println!("{}", issuer::token::create(state_dir, identity)?);
    Ok(())
}
