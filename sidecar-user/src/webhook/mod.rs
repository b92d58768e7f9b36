//! WHO ASKS FOR A SIDECAR? The API server, over HTTPS, about each new pod. This room answers it, has a certificate for that, and has the
//! API server trust it. What a pod then looks like `inject` says.
//!
//! Whoever asks cannot be told from anybody else, so nobody learns or changes anything here but what he has sent himself.

mod bundle;
mod certificate;
mod counts;
mod error;
mod publish;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpListener;

use crate::inject::Profile;
use crate::kubernetes::{CONTROL, Client, WebhookConfiguration};
use certificate::Keys;
pub use counts::Counts;
pub use error::Error;

#[derive(Clone, Debug)]
pub struct Config {
    pub listen: std::net::SocketAddr,
    pub profile: Profile,
    /// The name of the MutatingWebhookConfiguration.
    pub configuration: String,
    /// What the DNS name of its Service ends in.
    pub cluster_domain: String,
    /// In its certificate, beside those of its Service.
    pub server_names: Vec<String>,
}

/// Made, and not asked yet.
pub struct Webhook {
    keys: Arc<Keys>,
    counts: Arc<Counts>,
    profile: Arc<Profile>,
    configuration: WebhookConfiguration,
}

impl Webhook {
    pub fn new(config: &Config, client: &Client) -> Result<Self, Error> {
        let service = format!("{CONTROL}.{}.svc", config.profile.system_namespace);
        let mut names = vec![format!("{service}.{}", config.cluster_domain), service];
        names.extend(config.server_names.iter().cloned());
        Ok(Self {
            keys: Arc::new(Keys::new(names, SystemTime::now())?),
            counts: Arc::default(),
            profile: Arc::new(config.profile.clone()),
            configuration: WebhookConfiguration::new(client, &config.configuration),
        })
    }

    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Serves until it is dropped. `trusted` hears it each time that the API server is seen to trust it.
    pub async fn serve(self, listener: TcpListener, trusted: impl Fn()) -> Result<(), Error> {
        let tls = certificate::tls(self.keys.clone())?;
        tokio::select! {
            () = publish::follow(&self.configuration, &self.keys, trusted) => {}
            () = server::serve(listener, tls, self.profile, self.counts) => {}
        }
        Ok(())
    }
}
