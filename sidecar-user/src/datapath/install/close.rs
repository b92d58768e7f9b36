//! Attaching before there is a proxy: what is redirected or steered finds no listener and is refused, until a proxy takes the
//! programs over. Does not touch those of a proxy that has attached already, alive or dead.

use super::super::{Config, Error, PodTarget};
use super::{Datapath, Lease, links};

/// As [`Datapath::attach`], with a lease of its own, which ends with the value. `None`: all of the programs are attached
/// already, because a proxy serves the pod, or did, or this was asked before.
pub fn close(config: &Config) -> Result<Option<Datapath>, Error> {
    let pod = PodTarget::of(config)?;
    if links::are_attached(&config.pins, &pod)? {
        return Ok(None);
    }
    Datapath::attach(config, pod, Lease::take(&config.pins)?).map(Some)
}
