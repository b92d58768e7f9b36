//! Attaching before there is a proxy: what is redirected or steered finds no listener and is refused, until a proxy takes the
//! programs over. Does not touch those of a proxy that has attached already, alive or dead.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use bytemuck::Zeroable;
use sidecar_ebpf::abi::{Owner, Settings, map};

use super::super::{Config, Error, PodTarget};
use super::node::Node;
use super::{Datapath, Former, Lease, links, pins};

/// As [`close`], with the programs that a node has loaded for all of its pods. Where programs are attached already these take
/// their place, without a gap, and the maps stay: whoever serves the pod goes on, also where they were [taken
/// off](super::take_off) in between. False: the maps are those of another version,
/// and so are the programs until the next sidecar of the pod comes.
pub fn close_on(node: &Node, config: &Config, pod: PodTarget) -> Result<bool, Error> {
    if links::are_attached(&config.pins, &pod)? {
        return adopt(node, &config.pins, &pod);
    }
    let lease = match Lease::take(&config.pins) {
        // Somebody has taken the programs off, and the proxy serves on: its session is by these maps.
        Err(owned @ Error::Owned { .. }) => {
            return match adopt(node, &config.pins, &pod)? {
                true => Ok(true),
                false => Err(owned),
            };
        }
        taken => taken?,
    };
    let datapath = Datapath::prepare_on(Some(node), config, pod, lease, Former::Gone)?;
    datapath.activate()?;
    Ok(true)
}

pub(super) fn adopt(node: &Node, pins: &Path, pod: &PodTarget) -> Result<bool, Error> {
    if !map::BY_POD.iter().all(|(name, _)| pins::is_usable(pins, name)) {
        return Ok(false);
    }
    let netns = pod.netns().cookie()?;
    let settings = pins::pinned_settings(pins).unwrap_or_else(Settings::zeroed);
    let programs = node.load_for(netns, (pins, &BTreeSet::new()), |pod| Owner {
        pod,
        first_shard: settings.first_shard.into(),
        shards: settings.shards.into(),
    })?;
    programs.numbers.admit(programs.number, netns, &programs.own)?;
    for (hook, program) in &programs.hooks {
        links::attach(program.as_fd(), *hook, pod, pins)?;
    }
    if pins::link(pins, links::CONTROL.program).exists() {
        links::attach(programs.control.as_fd(), links::CONTROL, pod, pins)?;
    }
    Ok(true)
}

/// As [`Datapath::attach`], with a lease of its own, which ends with the value. `None`: all of the programs are attached
/// already, because a proxy serves the pod, or did, or this was asked before.
pub fn close(config: &Config) -> Result<Option<Datapath>, Error> {
    let pod = PodTarget::of(config)?;
    if links::are_attached(&config.pins, &pod)? {
        return Ok(None);
    }
    Datapath::attach(config, pod, Lease::take(&config.pins)?).map(Some)
}
