//! What is in force for a pod of a node, kept while another proxy takes the pod over, and put back where that one ends before it
//! is done: the one before goes on then. A proxy that has installed its programs itself puts back its own, see `installed.rs`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sidecar_ebpf::abi::{MAX_SHARDS, Settings, map};

use super::super::map::Map;
use super::super::{Error, PodTarget, sys};
use super::node::Node;
use super::{close, links, pins};

pub struct InForce {
    pins: PathBuf,
    settings: Settings,
    /// Those of the pod, with all that stands in them.
    maps: Vec<(&'static str, Arc<OwnedFd>)>,
}

impl InForce {
    /// `None`: it is another version's, which this one cannot put back.
    pub fn of(pins: &Path) -> Option<Self> {
        let settings = pins::pinned_settings(pins)?;
        let open = |(name, _): (&'static str, _)| {
            let map = pins::is_usable(pins, name).then(|| sys::open_pin(&pins::map(pins, name)))?;
            Some((name, Arc::new(map.ok()?)))
        };
        Some(Self {
            pins: pins.into(),
            settings,
            maps: map::BY_POD.into_iter().map(open).collect::<Option<_>>()?,
        })
    }

    /// Which of the slots the proxy has that serves.
    pub fn generation(&self) -> usize {
        usize::from(self.settings.first_shard) / MAX_SHARDS
    }

    /// In the place of what the proxy of that epoch has changed, or has begun to. False: a third proxy has the pod meanwhile.
    pub fn put_back(&self, node: &Node, pod: &PodTarget, instead_of: u32) -> Result<bool, Error> {
        let now = pins::pinned_settings(&self.pins).map_or(self.settings.epoch, |settings| settings.epoch);
        if now != self.settings.epoch && now != instead_of {
            return Ok(false);
        }
        for (name, map) in &self.maps {
            if *name == map::SETTINGS {
                Map::<u32, Settings>::new(name, map.clone())?.set(&0, &self.settings)?;
            }
        }
        links::take_back(&self.pins, self.generation())?;
        for (name, map) in &self.maps {
            let pin = pins::map(&self.pins, name);
            pins::remove_file(&pin)?;
            sys::pin(map.as_fd(), &pin).map_err(Error::path("pin", &pin))?;
        }
        close::adopt(node, &self.pins, pod)
    }
}
