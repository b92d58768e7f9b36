//! A TCP listener whose connections speak TLS. The handshake is a part of the first read, so that whoever is slow in it holds up nobody
//! else and the limits of the door hold for it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::Error;
use super::http::{Arrived, Caller, Listen};

pub(super) struct TlsListener {
    listener: TcpListener,
    config: watch::Receiver<Option<Arc<ServerConfig>>>,
}

impl TlsListener {
    pub(super) fn new(
        listener: std::net::TcpListener,
        config: watch::Receiver<Option<Arc<ServerConfig>>>,
    ) -> Result<Self, Error> {
        let unusable = |source| Error::Listener {
            endpoint: "api",
            source,
        };
        listener.set_nonblocking(true).map_err(unusable)?;
        Ok(Self {
            listener: TcpListener::from_std(listener).map_err(unusable)?,
            config,
        })
    }
}

impl Listen for TlsListener {
    type Io = Handshaking;

    async fn accept(&self) -> io::Result<Arrived<Handshaking>> {
        loop {
            let (io, peer) = self.listener.accept().await?;
            // Without a certificate there is nothing to say: the connection is closed.
            let Some(config) = self.config.borrow().clone() else {
                continue;
            };
            let io = Handshaking::Waiting(Box::new(TlsAcceptor::from(config).accept(io)));
            let source: Option<IpAddr> = Some(peer.ip());
            return Ok(Arrived::new(io, source, Caller::Anyone));
        }
    }
}

/// One connection.
pub(super) enum Handshaking {
    Waiting(Box<Accept<TcpStream>>),
    Done(Box<TlsStream<TcpStream>>),
}

impl Handshaking {
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let Self::Waiting(accept) = self {
            *self = Self::Done(Box::new(ready!(Pin::new(accept).poll(cx))?));
        }
        match self {
            Self::Done(stream) => Poll::Ready(Ok(Pin::new(stream))),
            Self::Waiting(_) => unreachable!("the handshake is over"),
        }
    }
}

impl AsyncRead for Handshaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Handshaking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Waiting(_) => Poll::Ready(Ok(())),
            Self::Done(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Waiting(_) => Poll::Ready(Ok(())),
            Self::Done(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
