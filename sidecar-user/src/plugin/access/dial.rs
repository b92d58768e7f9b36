//! A stream to an agent: a port-forward to its pod, and TLS in it.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsConnector;
use tokio_util::io::SyncIoBridge;

use super::session::Session;
use crate::kubernetes::{self, AGENT_LABELS, AGENT_PORT, Forwarded, SYSTEM_NAMESPACE, SeenPod};
use crate::plugin::error::Error;

/// The agent of one node.
#[derive(Clone)]
pub(in crate::plugin) struct AgentPod {
    session: Session,
    pod: SeenPod,
    pub(in crate::plugin) node: String,
}

/// For TLS with an agent.
const HANDSHAKE: Duration = Duration::from_secs(10);

pub(in crate::plugin) trait Duplex: Read + Write {}

impl<S: Read + Write> Duplex for S {}

impl AgentPod {
    /// Those that there are.
    pub(in crate::plugin) fn all(session: &Session) -> Result<Vec<Self>, Error> {
        let found = kubernetes::seen_pods(session.client(), Some(SYSTEM_NAMESPACE), Some(AGENT_LABELS));
        let pods = session.ask(found)?.into_iter().filter(|pod| !pod.is_ending);
        Ok(pods.filter_map(|pod| Self::new(session, pod)).collect())
    }

    /// `None`: it has no node yet.
    fn new(session: &Session, pod: SeenPod) -> Option<Self> {
        Some(Self {
            session: session.clone(),
            node: pod.node.clone()?,
            pod,
        })
    }

    pub(in crate::plugin) fn pod(&self) -> &SeenPod {
        &self.pod
    }

    /// What it is shown.
    pub(in crate::plugin) fn token(&self) -> Result<&str, Error> {
        Ok(&self.session.proof()?.token)
    }

    /// `patience`: how long it may be silent; for ever where there is none.
    pub(in crate::plugin) fn connect(
        &self,
        patience: Option<Duration>,
    ) -> Result<Box<dyn Duplex + Send>, Error> {
        let proof = self.session.proof()?;
        let forwarded = kubernetes::port_forward(
            self.session.client(),
            SYSTEM_NAMESPACE,
            &self.pod.name,
            AGENT_PORT,
        );
        let Forwarded { stream, trouble } = self.session.ask(forwarded)?;
        // Nobody looks at the name: an agent proves an identity.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let connector = TlsConnector::from(proof.tls.clone());
        let handshake = self
            .session
            .wait(async { timeout(HANDSHAKE, connector.connect(name, stream)).await });
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(self.unproven(source, trouble)),
            Err(_) => return Err(self.unproven(io::ErrorKind::TimedOut.into(), trouble)),
        };
        let handle = self.session.runtime().clone();
        // The timers of a time-out are made within their runtime.
        let entered = handle.enter();
        let mut stream = TimeoutStream::new(stream);
        stream.set_read_timeout(patience);
        drop(entered);
        Ok(Box::new(SyncIoBridge::new_with_handle(Box::pin(stream), handle)))
    }

    /// The kubelet's words are better than those of a stream that has ended.
    fn unproven(&self, source: io::Error, trouble: impl Future<Output = Option<String>>) -> Error {
        let said = self
            .session
            .wait(async { timeout(Duration::from_millis(500), trouble).await });
        let (node, pod) = (self.node.clone(), self.pod.name.clone());
        match said.ok().flatten() {
            // All but its last words are about the runtime's own names of things.
            Some(said) => Error::AgentAway {
                node,
                pod,
                said: said
                    .trim()
                    .rsplit(": ")
                    .take(2)
                    .collect::<Vec<_>>()
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>()
                    .join(": "),
            },
            None if source.kind() == io::ErrorKind::UnexpectedEof => Error::AgentUncertified { node, pod },
            None => Error::AgentUnproven { node, source },
        }
    }
}

impl fmt::Display for AgentPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the agent of node {}", self.node)
    }
}

impl fmt::Debug for AgentPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentPod").field(&self.node).finish()
    }
}
