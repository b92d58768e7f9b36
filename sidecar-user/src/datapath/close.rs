//! Attaching before there is a proxy: what is redirected or steered finds no listener and is refused, until a proxy takes the
//! programs over. Does not touch those of a proxy that has attached already, alive or dead.

use std::path::Path;

use super::links::{self, Targets};
use super::{Config, Datapath, Error, Lease};

/// As [`Datapath::attach`], with a lease of its own, which ends with the value. `None`: all of the programs are attached already, because a proxy serves the
/// pod, or did, or this was asked before.
pub fn close(config: &Config) -> Result<Option<Datapath>, Error> {
    if is_closed(&config.cgroup, &config.pins)? {
        return Ok(None);
    }
    Datapath::attach(config, Lease::take(&config.pins)?).map(Some)
}

fn is_closed(cgroup: &Path, pins: &Path) -> Result<bool, Error> {
    links::are_attached(pins, &Targets::open(cgroup)?)
}
