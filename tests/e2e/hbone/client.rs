//! A small HBONE client with any certificate, or none. Does not check who answers: the tests ask whom the server lets
//! in, not the other way round.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use harness::mesh::{Control, ports};
use harness::{Mesh, wait};
use http::Request;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::testing::authority::{Authority, Leaf};
use super::testing::frames::{Frames, SETTINGS};
use super::testing::stranger;

/// The mesh's own authority, with the key of its running control process.
pub(crate) fn authority_of(control: &Control) -> Result<Authority> {
    let key = KeyPair::from_pem(&fs::read_to_string(control.state().join("root-key.pem"))?)?;
    let pem = fs::read_to_string(control.root())?;
    Ok(Authority::with(
        Issuer::from_ca_cert_pem(&pem, key)?,
        pem,
        Vec::new(),
    ))
}

/// A certificate of the mesh, as good as any.
pub(crate) fn leaf_of(control: &Control, identity: &str) -> Result<Leaf> {
    Ok(authority_of(control)?.leaf(identity, |_| {}))
}

/// What the client proves and asks.
pub(crate) struct Client {
    tls: ClientConfig,
    method: &'static str,
    forwarded: Option<String>,
}

impl Client {
    pub(crate) fn with(leaf: &Leaf) -> Self {
        Self::new(stranger::client(Some(leaf), stranger::provider()))
    }

    pub(crate) fn anonymous() -> Self {
        Self::new(stranger::client(None, stranger::provider()))
    }

    fn new(tls: ClientConfig) -> Self {
        Self {
            tls,
            method: "CONNECT",
            forwarded: None,
        }
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Names the client on whose behalf it asks, truly or not.
    pub(crate) fn forwarded_for(mut self, client: &str) -> Self {
        self.forwarded = Some(format!("for=\"{client}\""));
        self
    }

    /// Names the service that it asked for, truly or not.
    pub(crate) fn forwarded_host(mut self, host: &str) -> Self {
        self.forwarded = Some(format!("host={host}"));
        self
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) proxy_status: String,
    /// What came back for what was sent.
    pub(crate) body: Vec<u8>,
    /// Where the tunnel comes from.
    pub(crate) source: SocketAddr,
}

/// One request from outside the mesh to a pod's tunnel port. With status 200 it sends `payload`, ends its side, and reads
/// to the end.
pub(crate) fn connect(
    mesh: &Mesh,
    client: Client,
    server: IpAddr,
    authority: &str,
    payload: &[u8],
) -> Result<Answer> {
    outside(mesh, async || ask(client, server, authority, payload).await)
}

/// The alert by which a pod's tunnel port refuses this client; to be let in, or to be kept waiting, is an error.
pub(crate) fn alert(mesh: &Mesh, client: Client, server: IpAddr) -> Result<AlertDescription> {
    let greeted = outside(mesh, async || {
        let greeted = async {
            let (session, _) = shake_hands(client.tls, server).await?;
            // TLS 1.3 lets a client be done before it is judged: the alert comes in the place of the first answer.
            Frames::client(session).await?.until(SETTINGS).await
        };
        Ok(greeted.await)
    });
    let Err(error) = greeted? else {
        bail!("it was let in");
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Ok(*alert),
        _ => Err(error).context("no alert"),
    }
}

/// A conversation by frames with a pod's tunnel port, from outside the mesh, through an open tunnel.
pub(crate) fn by_hand<T: Send>(
    mesh: &Mesh,
    client: Client,
    server: IpAddr,
    talk: impl AsyncFnOnce(Frames<TlsStream<TcpStream>>) -> Result<T> + Send,
) -> Result<T> {
    outside(mesh, async || {
        let (session, _) = shake_hands(client.tls, server).await?;
        talk(Frames::client(session).await?).await
    })
}

fn outside<T: Send>(mesh: &Mesh, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    mesh.outside.run_in(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let limit = wait::patiently(wait::SOON);
        runtime.block_on(async { tokio::time::timeout(limit, work()).await })?
    })?
}

/// The session, and where it comes from.
async fn shake_hands(
    tls: ClientConfig,
    server: IpAddr,
) -> std::io::Result<(TlsStream<TcpStream>, SocketAddr)> {
    let tcp = TcpStream::connect((server, ports::HBONE)).await?;
    let source = tcp.local_addr()?;
    let connector = TlsConnector::from(Arc::new(tls));
    Ok((connector.connect(ServerName::from(server), tcp).await?, source))
}

/// Opens a stream, calls `then` when it is there, and gives the code of the reset that ends it.
pub(crate) fn until_reset(
    mesh: &Mesh,
    client: Client,
    to: SocketAddr,
    then: impl FnOnce() -> Result<()> + Send,
) -> Result<Option<h2::Reason>> {
    outside(mesh, async || {
        let (_, response, _sender) = request(client, to.ip(), &to.to_string()).await?;
        let (head, mut body) = response.into_parts();
        anyhow::ensure!(head.status == 200, "{}", head.status);
        then()?;
        match body.data().await {
            Some(Err(error)) => Ok(error.reason()),
            other => bail!("{other:?} came instead of a reset"),
        }
    })
}

async fn ask(client: Client, server: IpAddr, authority: &str, payload: &[u8]) -> Result<Answer> {
    let (source, response, mut sender) = request(client, server, authority).await?;
    let (head, mut body) = response.into_parts();
    let proxy_status = head
        .headers
        .get("proxy-status")
        .map(|v| v.to_str())
        .transpose()?
        .unwrap_or_default();
    let mut answer = Answer {
        status: head.status.as_u16(),
        proxy_status: proxy_status.into(),
        body: Vec::new(),
        source,
    };
    if answer.status == 200 {
        sender.send_data(Bytes::copy_from_slice(payload), true)?;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.context("the tunnel broke")?;
            body.flow_control().release_capacity(chunk.len())?;
            answer.body.extend_from_slice(&chunk);
        }
    }
    Ok(answer)
}

/// Where the tunnel comes from, what is answered, and where to send.
async fn request(
    client: Client,
    server: IpAddr,
    authority: &str,
) -> Result<(SocketAddr, http::Response<h2::RecvStream>, h2::SendStream<Bytes>)> {
    let (tls, source) = shake_hands(client.tls, server).await?;
    let (mut requests, connection) = h2::client::handshake(tls).await?;
    // Dropped, and so closed, with the runtime.
    tokio::spawn(connection);
    let mut request = Request::builder().method(client.method).uri(authority);
    if let Some(forwarded) = client.forwarded {
        request = request.header("forwarded", forwarded);
    }
    let request = request.body(())?;
    let (response, sender) = requests.send_request(request, false)?;
    Ok((source, response.await?, sender))
}
