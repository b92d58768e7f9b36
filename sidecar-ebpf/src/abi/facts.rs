//! What the programs tell of connections that never come to the proxy: those that are left alone, those of them that the
//! other side refuses, and those that the programs refuse.

use bytemuck::{Pod, Zeroable};

use super::{Counter, Direction, Tuple};

/// In the storage of such a socket, from its beginning on. Nanoseconds of the clock that stands still while the machine sleeps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Watched {
    pub began: u64,
    /// 0: it is not.
    pub established: u64,
    pub direction: Direction,
    pub reserved: [u8; 7],
}

/// One that has begun or has ended. A record of a shard's ring, told from the others by its length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct LeftAlone {
    /// The source is the pod's end.
    pub tuple: Tuple,
    /// Nanoseconds.
    pub lasted: u64,
    /// Nanoseconds from connect() to the handshake's end; 0: it never ended.
    pub connect: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Eighths of a microsecond.
    pub srtt: u32,
    /// Microseconds.
    pub min_rtt: u32,
    pub segments_sent: u32,
    pub segments_received: u32,
    pub retransmitted: u32,
    pub congestion_window: u32,
    pub segment_size: u32,
    pub unacked: u32,
    /// Segments, and the microseconds in which they were delivered.
    pub delivered: u32,
    pub interval: u32,
    pub direction: Direction,
    /// The TCP state that it was closed from.
    pub state: u8,
    /// One more than the number of the counter that the programs have counted it by when they refused it; 0: they did not.
    pub refused: u8,
    /// 1: it has just been established, and there are no figures yet.
    pub open: u8,
    /// That its socket is bound to, or 0.
    pub device: u32,
}

impl LeftAlone {
    /// Why the programs have refused the connect(). There are no figures then, and may be no address and port of its own.
    pub fn refused(&self) -> Option<Counter> {
        let number = usize::from(self.refused).checked_sub(1)?;
        Counter::ALL.get(number).map(|(counter, _)| *counter)
    }
}
