//! Filling a connection until nothing more fits, without guessing how long that takes.

use std::time::Duration;

use tokio::net::TcpStream;

/// In `/proc/net/tcp`, the timer of a socket that has something to send to a receiver whose window is closed.
const ZERO_WINDOW_PROBE: &str = "04";

/// Writes until every buffer on the way to whoever does not read is full, and gives how much that was.
///
/// The clock stands still meanwhile. A runtime whose clock stands still comes to a time-out only when none of its tasks
/// and sockets has anything to do; and then the kernel says whether the other end takes no more, or an acknowledgement is
/// merely late.
pub(crate) async fn fill(socket: &TcpStream) -> u64 {
    let block = vec![1; 64 * 1024];
    let begun = std::time::Instant::now();
    let mut written = 0_u64;
    tokio::time::pause();
    loop {
        let writable = tokio::time::timeout(Duration::from_millis(100), socket.writable()).await;
        if writable.is_ok() {
            written += socket.try_write(&block).unwrap_or(0) as u64;
        } else if takes_no_more(socket) {
            break;
        } else {
            std::thread::yield_now();
        }
        assert!(written < 64 << 20, "no back-pressure after {written} bytes");
        assert!(begun.elapsed() < Duration::from_secs(60), "neither full nor open");
    }
    tokio::time::resume();
    written
}

fn takes_no_more(socket: &TcpStream) -> bool {
    let port = format!(":{:04X}", socket.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1).unwrap_or_default();
        let timer = fields.nth(3).unwrap_or_default();
        local.ends_with(&port) && timer.split(':').next() == Some(ZERO_WINDOW_PROBE)
    })
}
