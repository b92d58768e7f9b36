//! The connection to the API server, made of what a pod is given.

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
    #[error("the API server's address or certificate cannot be used")]
    Client {
        #[source]
        source: kube::Error,
    },
    #[error("the API server does not {what}")]
    Asked {
        what: &'static str,
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    pub(super) fn asked(what: &'static str, source: kube::Error) -> Self {
        let source = Box::new(source);
        Self::Asked { what, source }
    }

    /// The API server has answered, and will not: asking again is of no use before somebody changes its rules.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Asked { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 403))
    }
}

impl Client {
    /// For the service account of this pod. Connects to nobody yet.
    pub fn in_cluster() -> Result<Self, Error> {
        let mut config = kube::Config::incluster_env().map_err(|source| Error::NotInPod { source })?;
        config.default_retry = RETRY;
        let client = kube::Client::try_from(config).map_err(|source| Error::Client { source })?;
        Ok(Self(client))
    }

    /// Of a test, which serves it without TLS.
    #[cfg(test)]
    pub(crate) fn at(url: &str) -> Self {
        let mut config = kube::Config::new(url.parse().expect("it is a URL"));
        config.default_retry = RETRY;
        Self(kube::Client::try_from(config).expect("nothing of it can fail"))
    }

    /// For the files of this room.
    pub(super) fn inner(&self) -> kube::Client {
        self.0.clone()
    }
}
