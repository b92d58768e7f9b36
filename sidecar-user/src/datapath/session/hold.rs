//! One shard's door to the SYNs that wait at its listener: what has come, and who may pass.
//!
//! Does not send packets and knows no upstream; `intercept` and the outbound walk do.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use sidecar_ebpf::abi::{self, Stage, StageChange, Tuple};
use sidecar_ebpf::addr::{Ip, Port};
use tokio::io::unix::AsyncFd;

use super::super::ip::{kernel_ip, user_ip};
use super::super::sys;
use super::facts::{self, LeftAloneEvent};
use super::ring::Ring;
use super::stages::Stages;
use crate::model::{HeldEvent, HeldSyn, OriginalDst, Pair};

/// Records read in one turn.
const AT_ONCE: usize = 128;

/// Made on any thread; started on the shard's.
pub struct Hold {
    ring: Ring,
    approvals: Approvals,
}

/// Lets held SYNs of one shard pass.
#[derive(Clone, Debug)]
pub struct Approvals {
    pub(super) stages: Stages,
    pub(super) netns: u64,
    /// Counted through all generations.
    pub(super) shard: u32,
}

/// What happens to the connections of one shard before they are accepted.
pub struct HeldEvents {
    ring: AsyncFd<Ring>,
    left_alone: Box<dyn FnMut(LeftAloneEvent)>,
}

impl Hold {
    pub(super) fn new(ring: OwnedFd, approvals: Approvals) -> io::Result<Self> {
        let ring = Ring::new(ring)?;
        Ok(Self { ring, approvals })
    }

    /// Registers the ring with the current tokio runtime.
    pub fn start(self) -> io::Result<(HeldEvents, Approvals)> {
        let ring = sys::watch(self.ring)?;
        let left_alone = Box::new(|_| {});
        Ok((HeldEvents { ring, left_alone }, self.approvals))
    }
}

impl Approvals {
    /// The SYN with this sequence number may pass from now on, until its connection is accepted or has ended. False: the
    /// kernel does not hold it for this shard, or not any more.
    pub fn approve(&self, pair: Pair, sequence: u32) -> io::Result<bool> {
        let (held, approved) = self.stages(sequence);
        self.change(pair, held, approved)
    }

    /// Takes that back, as long as nobody has come for it.
    pub fn withdraw(&self, pair: Pair, sequence: u32) -> io::Result<bool> {
        let (held, approved) = self.stages(sequence);
        self.change(pair, approved, held)
    }

    /// Whether the kernel still holds that SYN. News of its end can be lost, when the ring is full.
    pub fn is_held(&self, pair: Pair, sequence: u32) -> io::Result<bool> {
        self.stages.is_held(self.key(pair), sequence)
    }

    fn stages(&self, sequence: u32) -> (Stage, Stage) {
        (
            Stage::held(sequence, self.shard),
            Stage::approved(sequence, self.shard),
        )
    }

    fn change(&self, pair: Pair, from: Stage, to: Stage) -> io::Result<bool> {
        let tuple = self.key(pair);
        self.stages.change(StageChange { tuple, from, to })
    }

    fn key(&self, pair: Pair) -> Tuple {
        Tuple {
            netns: self.netns,
            source: kernel_ip(pair.client.ip()),
            destination: kernel_ip(pair.listener.ip()),
            source_port: Port::new(pair.client.port()),
            destination_port: Port::new(pair.listener.port()),
            reserved: 0,
        }
    }
}

impl HeldEvents {
    /// To be told of connections that never come here.
    pub fn tell_of_left_alone(&mut self, each: impl FnMut(LeftAloneEvent) + 'static) {
        self.left_alone = Box::new(each);
    }

    /// Waits until something has happened, and hands it over in order, so much at most that others of the shard get
    /// their turn. Cancelled, it loses nothing.
    pub async fn next(&mut self, mut each: impl FnMut(HeldEvent)) -> io::Result<()> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let ring = ready.get_inner_mut();
            let mut seen = 0;
            while seen < AT_ONCE
                && let Some(record) = ring.next()
            {
                seen += 1;
                if let Some(event) = held_event(record) {
                    each(event);
                } else if let Some(event) = facts::left_alone(record, SystemTime::now()) {
                    (self.left_alone)(event);
                }
            }
            // The kernel wakes for a ring that was read to its end, and for no other.
            if seen < AT_ONCE {
                ready.clear_ready();
            }
            if seen > 0 {
                return Ok(());
            }
        }
    }
}

/// A record of the ring. `None`: it is none of ours.
pub(super) fn held_event(record: &[u8]) -> Option<HeldEvent> {
    let event: abi::Event = bytemuck::try_pod_read_unaligned(record).ok()?;
    let pair = Pair {
        client: address(event.tuple.source, event.tuple.source_port),
        listener: address(event.tuple.destination, event.tuple.destination_port),
    };
    let syn = || {
        let origin = event.origin;
        Some(HeldSyn {
            pair,
            sequence: event.sequence,
            original_dst: OriginalDst::new(address(origin.ip, origin.port)),
            source: (!origin.source.is_zero()).then(|| user_ip(origin.source)),
            device: (origin.device != 0).then_some(origin.device),
            traffic_class: event.traffic_class,
            header: tcp_header(event.tcp.get(..usize::from(event.tcp_len))?)?,
        })
    };
    match event.kind {
        abi::Event::HELD => syn().map(HeldEvent::Held),
        abi::Event::AGAIN => syn().map(HeldEvent::Again),
        abi::Event::STRAY => Some(HeldEvent::Stray {
            pair,
            sequence: event.sequence,
        }),
        abi::Event::GONE => Some(HeldEvent::Gone {
            pair,
            sequence: event.sequence,
        }),
        _ => None,
    }
}

/// RFC 9293 3.1: at least 20 bytes, and as many as its data offset says. The answers to a SYN are made of it.
fn tcp_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let words = usize::from(bytes.get(12)? >> 4);
    (words >= 5 && words * 4 == bytes.len()).then(|| bytes.to_vec())
}

fn address(from: Ip, port: Port) -> SocketAddr {
    SocketAddr::new(user_ip(from), port.get())
}
