//! HBONE: TCP over HTTP/2 CONNECT over mutual TLS. The wire contract is that of Istio's ztunnel.

pub mod client;
mod flood;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod headers;
mod keepalive;
pub mod server;
mod socket;
mod stream;
mod traffic;

pub use flood::Flood;
pub use headers::{Forwarded, Refusal};
pub use stream::Stream;
use traffic::STREAM_WINDOW;

/// Streams that a peer may open at once on one tunnel (wire.md 1.3: at least 100; ztunnel's server has 200).
pub const MAX_STREAMS: u32 = 200;
/// Room for every stream's window: a blocked stream can never stop the others (ztunnel#1538).
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// ztunnel then writes DATA frames of up to 262,080 bytes.
const MAX_FRAME: u32 = 256 * 1024;
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// What a stream may queue in the HTTP/2 layer before the relay has to wait.
const SEND_BUFFER: usize = 256 * 1024;
/// Overhead of small DATA frames that may pile up in the HTTP/2 layer, which counts 256 bytes less the payload for each:
/// those of two turns. A relay takes them out of there in each turn, whether its application reads or not, so that only
/// a peer that sends before its CONNECT was answered can exceed it, and loses the tunnel.
const DATA_FRAME_BUDGET: usize = 2 * 256 * traffic::TURN as usize;
/// Streams that were reset before we looked at them, in one turn. Each takes two frames, so it is never reached: what
/// bounds resets is `flood.rs`, by rate and not by chance. HTTP/2's usual limit of 20 ends a tunnel, with everybody on
/// it, when one application gives up 20 connects at the same time.
const PENDING_RESETS: usize = traffic::TURN as usize;
/// Streams that we had to reset because of what the peer sent, in the life of a tunnel (CVE-2025-8671, "MadeYouReset").
/// One that exceeds the limit of streams counts too, which a peer may do in good faith when the limit was lowered.
const ERROR_RESETS: usize = 10_000;
