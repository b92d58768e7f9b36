//! Attaching before there is a proxy: what is redirected or steered finds no listener and is refused, until a proxy takes the
//! programs over. Does not touch those of a proxy that has attached already, alive or dead.

use std::path::Path;

use super::links::{self, Targets};
use super::{Config, Datapath, Error, Steered};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// From now on.
    Now,
    /// The programs were there: a proxy serves the pod, or did, or this was asked before.
    Before,
}

/// As [`Datapath::attach`], without a listener, and only where not all of the programs are attached.
pub fn close(config: &Config) -> Result<Closed, Error> {
    if is_closed(&config.cgroup, &config.pins)? {
        return Ok(Closed::Before);
    }
    Datapath::attach(config, Steered::default())?;
    Ok(Closed::Now)
}

fn is_closed(cgroup: &Path, pins: &Path) -> Result<bool, Error> {
    links::are_attached(pins, &Targets::open(cgroup)?)
}
