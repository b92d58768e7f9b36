//! The sidecar's end: a channel whose connections are streams that the agent of the node hands over. Where the agent restarts,
//! the channel opens another one with the next call.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Opens a stream to the agent. It waits where nobody listens yet, so whoever calls it has to bound it.
pub type Open = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send>> + Send + Sync>;

/// How long a stream may take that somebody waits for.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// Opens nothing before the first call.
pub fn channel(open: Open) -> Channel {
    // The name goes into `:authority`, and nobody looks at it.
    Endpoint::from_static("http://agent")
        .connect_timeout(OPEN_TIME)
        .connect_with_connector_lazy(service_fn(move |_| {
            let stream = open();
            async move { stream.await.map(TokioIo::new) }
        }))
}
