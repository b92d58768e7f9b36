//! What has to hold of a tunnel, whatever its client sends inside TLS: it ends when its bytes do, does not answer
//! with much more than it was sent, and leaves nothing in the budget.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::{FAREWELL, Session};
use crate::budget::Budget;
use crate::error_chain;
use crate::model::SpiffeId;
use crate::transport::tls::Peer;
use crate::transport::{Tally, Timeouts};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Our SETTINGS and a GOAWAY with its words.
const ANSWER: usize = 4096;
/// The shortest of requests is answered with a frame of a status and two headers.
const PER_BYTE: usize = 64;
const BUDGET: usize = 64 << 20;

/// Takes the bytes that follow the client's preface.
pub(crate) fn tunnel(bytes: &[u8]) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without a driver needs only memory");
    let budget = Budget::new(BUDGET);
    let served = LocalSet::new().block_on(&runtime, serve(Wire::of(bytes), &budget));
    assert_eq!(budget.used(), 0, "bytes are counted for a tunnel that has ended");
    served.map(|()| String::new())
}

async fn serve(wire: Wire, budget: &Budget) -> Result<(), String> {
    let begun = Instant::now();
    let client = ([10, 0, 0, 1], 40000).into();
    let id = SpiffeId::new("td.test", "demo", "client").expect("a valid identity");
    let proved = (Peer::for_tests(id), Duration::ZERO);
    let session = Session::over(wire, client, proved, Timeouts::default(), budget)
        .await
        .map_err(|error| error_chain(&error))?;
    let held = RefCell::new(Vec::new());
    let tally: Tally = Rc::new(|_| {});
    let mut requests = 0;
    let served = session.serve(pending(), &tally, |incoming| {
        requests += 1;
        let _ = incoming.forwarded();
        match incoming.authority() {
            // Some are held open, as a walk does, and others end at once.
            Ok(_) if requests % 2 == 1 => held.borrow_mut().extend(incoming.accept()),
            Ok(_) => drop(incoming.accept()),
            Err(refusal) => incoming.refuse(refusal),
        }
    });
    let served = served.await;
    assert!(
        begun.elapsed() <= FAREWELL,
        "the bytes have ended, and the tunnel waited for {:?}",
        begun.elapsed()
    );
    served.map_err(|error| error_chain(&error))
}

/// Reads what is given and then its end; takes everything that is written, and counts it.
struct Wire {
    unread: Vec<u8>,
    read: usize,
    written: usize,
}

impl Wire {
    fn of(bytes: &[u8]) -> Self {
        Self {
            unread: [PREFACE, bytes].concat(),
            read: 0,
            written: 0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.unread[self.read..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.read += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written += bytes.len();
        let most = ANSWER + PER_BYTE * self.unread.len();
        assert!(
            self.written <= most,
            "{} bytes answer {}",
            self.written,
            self.unread.len()
        );
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
