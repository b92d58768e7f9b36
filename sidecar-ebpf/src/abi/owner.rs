//! Whom a program is loaded for that is not told where it runs.

use bytemuck::{Pod, Zeroable};

/// The pod, and the shards of its proxy.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Owner {
    pub pod: u32,
    /// Counted through all generations.
    pub first_shard: u32,
    pub shards: u32,
}

impl Owner {
    /// The first proxy of the first pod.
    pub const ALONE: Self = Self {
        pod: 0,
        first_shard: 0,
        shards: 1,
    };
}
