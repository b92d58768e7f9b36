//! `attach`: closes a pod before anything of it starts.

use std::path::Path;

use crate::config::{self, Overrides};
use crate::datapath;
use crate::existing::{self, Own};

pub(super) fn attach(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<()> {
    let (target, existing) = config::load_kernel(file, overrides)?;
    let cgroup = target.cgroup.display();
    let Some(kernel) = datapath::close(&target)? else {
        println!("{cgroup}: already attached, nothing is changed");
        return Ok(());
    };
    println!("attached to {cgroup}: its connections are refused until a proxy takes over");
    let settled = existing::settle(kernel.session(), kernel.is_first(), Own::Process, existing);
    settled.tell();
    let (kept, destroyed) = (settled.kept, settled.destroyed);
    if kept + destroyed > 0 {
        println!("connections from before: {kept} go on in plaintext, {destroyed} were ended");
    }
    Ok(())
}
