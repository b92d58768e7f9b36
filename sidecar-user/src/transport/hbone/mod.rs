//! HBONE: TCP over HTTP/2 CONNECT over mutual TLS. The wire contract is that of Istio's ztunnel.

pub mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod headers;
mod keepalive;
pub mod server;
mod stream;

pub use headers::{Forwarded, Refusal};
pub use stream::Stream;

/// Per stream. Credit is returned only after the bytes were written to the application's socket, so this is also
/// what one stream can make us buffer.
const STREAM_WINDOW: u32 = 512 * 1024;
/// Streams that a peer may open at once on one tunnel (wire.md 1.3: at least 100; ztunnel's server has 200).
pub const MAX_STREAMS: u32 = 200;
/// Room for every stream's window: a blocked stream can never stop the others (ztunnel#1538).
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// ztunnel then writes DATA frames of up to 262,080 bytes.
const MAX_FRAME: u32 = 256 * 1024;
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// What a stream may queue in the HTTP/2 layer before the relay has to wait.
const SEND_BUFFER: usize = 256 * 1024;
/// Overhead of small DATA frames that may pile up behind a reader that does not read. h2's own default (half the
/// window) would end the whole tunnel, with all its streams, for one application that writes byte by byte.
const DATA_FRAME_BUDGET: usize = 128 << 20;
