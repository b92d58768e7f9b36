//! Noticing that a tunnel's peer is gone. Speaks HTTP/2 PING only when the tunnel has been silent.

use std::future::poll_fn;
use std::time::Duration;

use h2::{Ping, PingPong};

use super::socket::Heard;

/// How often the keep-alive looks.
const TICK: Duration = Duration::from_secs(5);
/// A PING is sent when nothing arrived for this many ticks (wire.md 1.4: 10 s).
const SILENT_TICKS: u32 = 2;
/// And the peer is dead when nothing at all has arrived for this long after it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends when the peer is dead.
pub(super) async fn watch(mut ping: PingPong, heard: Heard) {
    let mut silent = 0;
    loop {
        tokio::time::sleep(TICK).await;
        silent = if heard.take_heard() { 0 } else { silent + 1 };
        if silent < SILENT_TICKS {
            continue;
        }
        if ping.send_ping(Ping::opaque()).is_err() {
            return;
        }
        heard.set_asked(true);
        // One PING at a time, however late its answer: h2 allows no second one, and anything heard meanwhile is a
        // sign of life, even when the answer itself is stuck behind it.
        loop {
            match tokio::time::timeout(PATIENCE, poll_fn(|cx| ping.poll_pong(cx))).await {
                Ok(Ok(_)) => break,
                Err(_) if heard.take_heard() => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        heard.set_asked(false);
        silent = 0;
    }
}

#[cfg(test)]
mod tests;
