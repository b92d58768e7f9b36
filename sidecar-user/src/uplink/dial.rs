//! Where the replicas of the control process are, and which of them is tried next.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Mark;

/// For one replica. A node that has lost its power answers nothing at all.
const ONE: Duration = Duration::from_secs(2);

/// How the host of the URL becomes addresses.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// By the resolver of this host.
    Resolved,
    /// Somebody follows them. They stay in force while that one hears nothing new.
    Followed(watch::Receiver<Vec<SocketAddr>>),
}

/// A Service of a cluster, as the host of a URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    pub name: String,
    pub namespace: String,
}

/// `NAME.NAMESPACE.svc`, with a cluster domain behind it or without.
pub fn service(host: &str) -> Option<ServiceName> {
    let mut labels = host.trim_end_matches('.').split('.');
    let (name, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc" && !name.is_empty() && !namespace.is_empty()).then(|| ServiceName {
        name: name.into(),
        namespace: namespace.into(),
    })
}

#[derive(Clone)]
pub(super) struct Dialer {
    host: String,
    port: u16,
    addresses: Addresses,
    mark: Mark,
    /// Each dial begins with another replica than the one before, so that one whose TLS fails is not tried for ever.
    turn: Arc<AtomicUsize>,
}

impl Dialer {
    pub(super) fn new(host: String, port: u16, addresses: Addresses, mark: Mark) -> Self {
        Self {
            host,
            port,
            addresses,
            mark,
            turn: Arc::default(),
        }
    }

    /// The first replica that accepts a connection.
    pub(super) async fn dial(self) -> io::Result<TcpStream> {
        let all = self.all().await?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut failed = io::Error::new(
            io::ErrorKind::NotFound,
            format!("no replica of {} is known to be ready", self.host),
        );
        for n in 0..all.len() {
            let address = all[(first + n) % all.len()];
            match timeout(ONE, self.connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = io::Error::new(error.kind(), format!("{address}: {error}")),
                Err(_) => {
                    failed = io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!("{address} does not answer within {ONE:?}"),
                    );
                }
            }
        }
        Err(failed)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        (self.mark)(socket.as_fd())?;
        socket.connect(address).await
    }

    async fn all(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(match &self.addresses {
            Addresses::Followed(known) => known.borrow().clone(),
            Addresses::Resolved => lookup_host((self.host.as_str(), self.port)).await?.collect(),
        })
    }
}
