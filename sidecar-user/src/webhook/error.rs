//! Why the webhook cannot serve.

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the webhook's certificate cannot be made; look at serverNames")]
    Certificate {
        #[source]
        source: rcgen::Error,
    },
    #[error("the webhook's certificate cannot be used")]
    Tls {
        #[source]
        source: rustls::Error,
    },
}
