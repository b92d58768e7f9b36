//! The agent's end: gRPC over the streams that it has handed to sidecars. Who is at the other end of each is known by the door
//! that it came through, and every service finds it in the request's extensions.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::model::LocalPod;

/// Streams that were handed over and wait to be served, from all pods.
const WAITING: usize = 64;
/// Streams of one pod: two services, and two sidecars while one takes over from the other, twice.
const PER_POD: usize = 8;
/// Calls at a time over one stream.
const MAX_STREAMS: u32 = 16;
const MAX_HEADERS: u32 = 16 << 10;
const WINDOW: u32 = 64 << 10;
/// Until the first answer to a call. What is answered piece by piece may go on.
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// Where the agent's doors bring the streams of their pods. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Local(mpsc::Sender<Connection>);

/// Streams that wait to be served.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Connection>);

/// The streams that one pod may have.
#[derive(Clone, Debug)]
pub struct Share {
    waiting: mpsc::Sender<Connection>,
    pod: LocalPod,
    places: Arc<Semaphore>,
}

/// Why a stream is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("this pod has {PER_POD} streams to the control plane already")]
    TooMany,
    #[error("too many streams wait to be served by this agent")]
    Busy,
    #[error("a stream cannot be made")]
    Io(#[from] io::Error),
}

pub fn incoming() -> (Local, Incoming) {
    let (waiting, served) = mpsc::channel(WAITING);
    (Local(waiting), Incoming(served))
}

impl Local {
    pub fn share(&self, pod: LocalPod) -> Share {
        Share {
            waiting: self.0.clone(),
            pod,
            places: Arc::new(Semaphore::new(PER_POD)),
        }
    }
}

impl Share {
    /// The sidecar's end of a new stream. Within a tokio runtime.
    pub fn open(&self) -> Result<std::os::unix::net::UnixStream, Refused> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Refused::TooMany)?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let connection = Connection {
            stream: UnixStream::from_std(ours)?,
            pod: self.pod.clone(),
            _place: place,
        };
        self.waiting.try_send(connection).map_err(|_| Refused::Busy)?;
        Ok(theirs)
    }
}

/// Serves `routes` until the last [`Local`] and the last [`Share`] are gone.
pub async fn serve(routes: Routes, Incoming(mut streams): Incoming) -> Result<(), tonic::transport::Error> {
    let connections: Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>> =
        Box::pin(stream::poll_fn(move |cx| {
            streams.poll_recv(cx).map(|next| next.map(Ok))
        }));
    Server::builder()
        .timeout(REQUEST_TIME)
        .max_concurrent_streams(MAX_STREAMS)
        .concurrency_limit_per_connection(MAX_STREAMS as usize)
        .http2_max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .add_routes(routes)
        .serve_with_incoming(connections)
        .await
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    pod: LocalPod,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = LocalPod;

    fn connect_info(&self) -> LocalPod {
        self.pod.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
