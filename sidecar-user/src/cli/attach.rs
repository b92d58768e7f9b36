//! `attach`: closes a pod before anything of it starts.

use std::path::Path;

use crate::config::{self, Overrides};
use crate::datapath::{self, Closed};

pub(super) fn attach(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<()> {
    let kernel = config::load_kernel(file, overrides)?;
    let cgroup = kernel.cgroup.display();
    match datapath::close(&kernel)? {
        Closed::Now => println!("attached to {cgroup}: its connections are refused until a proxy takes over"),
        Closed::Before => println!("{cgroup}: already attached, nothing is changed"),
    }
    Ok(())
}
