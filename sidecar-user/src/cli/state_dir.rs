//! The flag by which every command on the CA's files names them.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct StateDir {
    /// The CA's state directory
    #[arg(long = "state-dir", value_name = "DIR")]
    pub dir: PathBuf,
}
