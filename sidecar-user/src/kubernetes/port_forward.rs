//! A stream to a port of a pod, through the API server and the kubelet of its node.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, Error};

/// A stream, and what the kubelet says where nobody listens at its other end.
pub struct Forwarded {
    pub stream: Box<dyn Duplex>,
    pub trouble: std::pin::Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// Whether somebody listens there is known only when the stream is used.
pub async fn port_forward(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<Forwarded, Error> {
    let api: Api<Pod> = Api::namespaced(client.inner(), namespace);
    let asked = api.portforward(pod, &[port]).await;
    let mut forwarder = asked.map_err(|source| Error::asked("forward a port of a pod", source))?;
    let (stream, trouble) = (forwarder.take_stream(port), forwarder.take_error(port));
    let (Some(stream), Some(trouble)) = (stream, trouble) else {
        unreachable!("the library has a stream and its errors for each port that it is given");
    };
    Ok(Forwarded {
        stream: Box::new(stream),
        trouble: Box::pin(trouble),
    })
}
