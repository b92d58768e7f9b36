//! What has to hold of a tunnel, whatever its client sends inside TLS: it ends when its bytes do, hands over no more
//! streams than it allows, and does not answer with much more than it was sent.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::MAX_STREAMS;
use super::{Incoming, Occupancy, Place, builder};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Our SETTINGS, a GOAWAY, and a few bytes for the smallest of requests, which an answer of a status and two headers
/// exceeds.
const ANSWER: usize = 4096;
const PER_BYTE: usize = 64;

/// Takes the bytes that follow the client's preface.
pub(crate) fn tunnel(bytes: &[u8]) -> Result<String, String> {
    let wire = Wire {
        unread: [PREFACE, bytes].concat(),
        read: 0,
        written: 0,
    };
    let served = drive(serve(wire));
    served.map_err(|error| error.to_string())?;
    Ok(String::new())
}

async fn serve(wire: Wire) -> Result<(), h2::Error> {
    let mut connection = builder().handshake::<_, bytes::Bytes>(wire).await?;
    let occupancy = Rc::<Occupancy>::default();
    let mut held = Vec::new();
    let mut requests = 0;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        requests += 1;
        let incoming = Incoming {
            request,
            respond,
            place: Place::take(&occupancy),
        };
        let _ = incoming.forwarded();
        match incoming.authority() {
            // Some are held open, as a walk does, and others end at once.
            Ok(_) if requests % 2 == 1 => held.extend(incoming.accept()),
            Ok(_) => drop(incoming.accept()),
            Err(refusal) => incoming.refuse(refusal),
        }
        assert!(
            held.len() <= MAX_STREAMS as usize,
            "{} streams are open",
            held.len()
        );
    }
    Ok(())
}

/// Runs a future that waits for nothing but itself.
fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    while woken.0.swap(false, Ordering::Relaxed) {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
    }
    panic!("the client's bytes have ended, and the tunnel waits");
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads what is given and then its end; takes everything that is written, and counts it.
struct Wire {
    unread: Vec<u8>,
    read: usize,
    written: usize,
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
