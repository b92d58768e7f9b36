//! The two kinds of sockets that are relayed: accepted ones, which inherit their options, and dialled ones. Moves no bytes.

use std::io;
use std::net;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::sys;
use crate::model::leg;

/// A socket that the runtime watches.
pub trait Watched: AsFd + Send + Sync {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Does what the socket is ready for. `WouldBlock` from `io` forgets the readiness, unless news came since.
    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// Completes when the socket has an error to tell.
    fn error(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The runtime has heard of an error.
    fn has_error(&self) -> bool {
        self.try_io(Interest::ERROR, || Ok(())).is_ok()
    }

    /// The kernel may have ended a read before an urgent byte, with room to spare and more behind it, and the read does not
    /// tell.
    fn is_urgent(&self) -> bool {
        false
    }

    /// More is read than once.
    fn reads_on(&self) {}

    /// More is written than a little, once.
    fn writes_on(&self) {}
}

/// An accepted socket, of a listener that is prepared by [`super::prepare`].
impl Watched for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, io)
    }

    fn error(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // Fails only when the runtime ends.
            let _ = self.ready(Interest::ERROR).await;
        })
    }

    fn reads_on(&self) {
        // The filter that holds SYNs, inherited from the listener, lets every other packet pass. Fails where there is none.
        let _ = sys::detach_filter(self.as_fd());
    }
}

/// A dialled socket, of which the runtime hears when an urgent byte has come.
impl Watched for AsyncFd<net::TcpStream> {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(cx).map_ok(drop)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_ready(cx).map_ok(drop)
    }

    fn try_io<R>(&self, interest: Interest, io: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, |_| io())
    }

    fn error(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // Fails only when the runtime ends.
            let _ = self.ready(Interest::ERROR).await;
        })
    }

    fn is_urgent(&self) -> bool {
        // Never forgotten: all reads of such a connection go on until nothing is left.
        self.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
    }

    fn writes_on(&self) {
        let options = SockRef::from(self);
        // They fail on a socket that is gone already, as the write will tell.
        let _ = options.set_tcp_nodelay(true);
        let _ = options.set_tcp_notsent_lowat(leg::NOTSENT_LOWAT);
    }
}
