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
}

impl Client {
    /// For the service account of this pod. Connects to nobody yet.
    pub fn in_cluster() -> Result<Self, Error> {
        let config = kube::Config::incluster_env().map_err(|source| Error::NotInPod { source })?;
        let client = kube::Client::try_from(config).map_err(|source| Error::Client { source })?;
        Ok(Self(client))
    }

    /// Of a test, which serves it without TLS.
    #[cfg(test)]
    pub(crate) fn at(url: &str) -> Self {
        let config = kube::Config::new(url.parse().expect("it is a URL"));
        Self(kube::Client::try_from(config).expect("nothing of it can fail"))
    }

    /// For the files of this room.
    pub(super) fn inner(&self) -> kube::Client {
        self.0.clone()
    }
}
