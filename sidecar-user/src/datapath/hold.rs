//! One shard's door to the SYNs that wait at its listener: what has come, and who may pass.
//!
//! Does not send packets and knows no upstream; `intercept` and the outbound walk do.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use aya::maps::{Map, MapData, RingBuf};
use sidecar_ebpf::abi::{Event, Tuple};
use tokio::io::unix::AsyncFd;

use super::sys;

/// Made on any thread; [`Hold::events`] belongs to the shard's.
pub struct Hold {
    ring: RingBuf<MapData>,
    approvals: Approvals,
}

/// Lets held SYNs pass.
#[derive(Clone, Debug)]
pub struct Approvals {
    map: Arc<OwnedFd>,
}

/// What happens to the connections of one shard before they are accepted.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Hold {
    pub(super) fn new(ring: OwnedFd, approved: Arc<OwnedFd>) -> io::Result<Self> {
        let data = MapData::from_fd(ring).map_err(io::Error::other)?;
        Ok(Self {
            ring: RingBuf::try_from(Map::RingBuf(data)).map_err(io::Error::other)?,
            approvals: Approvals { map: approved },
        })
    }

    /// Registers the ring with the current tokio runtime.
    pub fn start(self) -> io::Result<(Events, Approvals)> {
        let ring = sys::watch(self.ring)?;
        Ok((Events { ring }, self.approvals))
    }
}

impl Approvals {
    /// The SYN with this sequence number may pass from now on.
    pub fn approve(&self, connection: &Tuple, sequence: u32) -> io::Result<()> {
        sys::map_set(self.map.as_fd(), &key(connection, sequence), &1_u32)
    }

    /// Takes back what nobody came for. The accept takes it back by itself.
    pub fn withdraw(&self, connection: &Tuple, sequence: u32) -> io::Result<()> {
        match sys::map_remove(self.map.as_fd(), &key(connection, sequence)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn key(connection: &Tuple, sequence: u32) -> Tuple {
    Tuple {
        sequence,
        ..*connection
    }
}

impl Events {
    /// Waits until something has happened, and hands it over in order. Cancelled, it loses nothing.
    pub async fn next(&mut self, mut each: impl FnMut(Event)) -> io::Result<()> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut some = false;
            while let Some(record) = ring.next() {
                if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&record) {
                    some = true;
                    each(event);
                }
            }
            ready.clear_ready();
            if some {
                return Ok(());
            }
        }
    }
}
