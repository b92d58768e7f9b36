//! What a connection's sockets may take of the kernel's memory while nobody reads, and how soon they ask a silent peer
//! whether it is still there. Numbers only: whoever has a socket sets them.

use std::time::Duration;

/// Keep-alive, the time before the first probe and between two (wire.md 1.10): a dead peer is noticed within 10 s and 9
/// probes, also on a connection that is silent.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// What may wait unsent. The kernel's own limit grows with the segment, which is 64 KiB on loopback, and a segment times the
/// initial window is megabytes for each connection.
pub const NOTSENT_LOWAT: u32 = 32 * 1024;

/// The segment between the proxy and an application of the pod. That of loopback is 64 KiB, and the kernel lets a sender queue
/// at least 20 of them, 2.6 MB. 1,400 bytes are the most that the kernel still rounds to 2 KiB with its own overhead
/// (`tcp_sndbuf_expand`); it moves them in packets of up to 64 KiB all the same.
pub const LOOPBACK_MSS: u32 = 1400;

/// What may wait unread between the two. The kernel doubles the number for its bookkeeping, and on loopback there is no delay
/// that a larger window would bridge.
pub const LOOPBACK_RECEIVE: usize = 32 * 1024;
