//! Where the host of a pod may ask whether its containers are well, as the kubelet does, past the proxy.

use bytemuck::{Pod, Zeroable};

use crate::addr::Port;

/// Of a node, with those of its bridges: what a probe comes from.
pub const HOST_ADDRESSES: usize = 256;
/// Of one pod. The loader makes room for as many pods as it serves, and what one leaves another may take.
pub const PROBE_PORTS: usize = 16;

/// A port of a pod, which is known by its network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ProbePort {
    pub netns: u64,
    pub port: Port,
    pub reserved: [u16; 3],
}

impl ProbePort {
    #[inline(always)]
    pub const fn new(netns: u64, port: Port) -> Self {
        Self {
            netns,
            port,
            reserved: [0; 3],
        }
    }
}
