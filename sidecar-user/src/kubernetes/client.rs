//! The connection to the API server, made of what a pod is given.

/// Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client(kube::Client);

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
    #[error("the API server cannot be asked for {what}")]
    Asked {
        what: &'static str,
        // Large.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Client {
    /// For the service account of this pod. Connects to nobody yet.
    pub fn in_cluster() -> Result<Self, Error> {
        let config = kube::Config::incluster_env().map_err(|source| Error::NotInPod { source })?;
        Self::of(config)
    }

    /// At an address that asks for no credentials, as `kubectl proxy` listens at. Connects to nobody yet.
    pub fn at(server: &str) -> Result<Self, Error> {
        let server = server.parse().map_err(|source| Error::Address {
            server: server.into(),
            source,
        })?;
        Self::of(kube::Config::new(server))
    }

    fn of(mut config: kube::Config) -> Result<Self, Error> {
        // Whoever asks has a backoff of its own, and hears why it has to wait: tries that nobody sees take most of a minute where the
        // server is away.
        config.default_retry = false;
        let client = kube::Client::try_from(config).map_err(|source| Error::Client { source })?;
        Ok(Self(client))
    }

    /// For the files of this room.
    pub(super) fn inner(&self) -> kube::Client {
        self.0.clone()
    }
}
