//! The connection to the API server, made of what a pod is given, or a person.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::error_chain;

/// Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client(kube::Client);

/// Whether the library asks again by itself where the server is too busy: for minutes, and says nothing. Whoever asks here has a
/// backoff, and a limit, of its own.
const RETRY: bool = false;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the API server cannot be found: this is no pod, or its service account's token is not mounted; run in a pod with \
         automountServiceAccountToken"
    )]
    NotInPod {
        #[source]
        source: kube::config::InClusterError,
    },
    #[error("{} cannot be used as a kubeconfig", path.display())]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    #[error("the API server's address or certificate cannot be used")]
    Client {
        #[source]
        source: kube::Error,
    },
    #[error("`{server}` is no URL of an API server; write one such as http://127.0.0.1:8001")]
    Address {
        server: String,
        #[source]
        source: http::uri::InvalidUri,
    },
    #[error(
        "this kubeconfig acts as {user}, and nobody can prove to an agent that they may; use a context without `as`"
    )]
    Impersonation { user: String },
    #[error("the API server does not {what}")]
    Asked {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The library's own words for what the API server has answered hold all of the answer; its message says it.
    pub fn told(&self) -> String {
        match self {
            Self::Asked { source, what } => match &**source {
                kube::Error::Api(status) => format!("the API server does not {what}: {}", status.message),
                _ => error_chain(self),
            },
            _ => error_chain(self),
        }
    }

    pub(super) fn asked(what: &'static str, source: kube::Error) -> Self {
        let source = Box::new(source);
        Self::Asked { what, source }
    }

    /// The API server was reached, whatever it said.
    pub fn has_answer(&self) -> bool {
        matches!(self, Self::Asked { source, .. } if matches!(&**source, kube::Error::Api(_)))
    }

    /// It has answered that it does not know who asks.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Asked { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 401))
    }

    /// The API server has answered, and will not: asking again is of no use before somebody changes its rules.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Asked { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 403))
    }
}

impl Client {
    /// For the service account of this pod. Connects to nobody yet.
    pub fn in_cluster() -> Result<Self, Error> {
        let config = kube::Config::incluster_env().map_err(|source| Error::NotInPod { source })?;
        Self::of(config)
    }

    /// As the current context of a kubeconfig says. Connects to nobody yet.
    pub async fn by_kubeconfig(path: &Path) -> Result<Self, Error> {
        let bad = |source| Error::Kubeconfig {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let kubeconfig = Kubeconfig::read_from(path).map_err(bad)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Self::of(config.map_err(bad)?)
    }

    /// At an address that asks for no credentials, as `kubectl proxy` listens at. Connects to nobody yet.
    pub fn anonymous(server: &str) -> Result<Self, Error> {
        let server = server.parse().map_err(|source| Error::Address {
            server: server.into(),
            source,
        })?;
        Self::of(kube::Config::new(server))
    }

    pub(super) fn of(mut config: kube::Config) -> Result<Self, Error> {
        config.default_retry = RETRY;
        let client = kube::Client::try_from(config).map_err(|source| Error::Client { source })?;
        Ok(Self(client))
    }

    /// Of a test, which serves it without TLS.
    #[cfg(test)]
    pub(crate) fn at(url: &str) -> Self {
        Self::anonymous(url).expect("it is a URL")
    }

    /// For the files of this room.
    pub(super) fn inner(&self) -> kube::Client {
        self.0.clone()
    }
}
