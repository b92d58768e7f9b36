//! An agent's channel to the control process, or a sidecar's own: TLS over HTTP/2, one connection for all calls, which opens another one where it is
//! lost.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tower::service_fn;

use super::dial::{Addresses, Dialer, ServiceName, service};
use super::files;
use super::{Config, Error, Mark};
use crate::credentials::Stamp;

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// A replica whose node is gone is noticed so late.
const PING: Duration = Duration::from_secs(15);
const PONG: Duration = Duration::from_secs(10);

/// A checked configuration, and the connection that was made with it.
pub struct Control {
    config: Config,
    uri: Uri,
    server_name: String,
    dialer: Dialer,
    open: Mutex<Option<(Option<Stamp>, Channel)>>,
}

impl Control {
    pub fn new(config: Config, addresses: Addresses) -> Result<Self, Error> {
        Self::marked(config, addresses, Arc::new(|_| Ok(())))
    }

    /// Each of its sockets is given to `mark` before it connects.
    pub fn marked(config: Config, addresses: Addresses, mark: Mark) -> Result<Self, Error> {
        let (uri, host) = parse(&config)?;
        let server_name = config.server_name.clone().unwrap_or_else(|| host.clone());
        let dialer = Dialer::new(host, uri.port_u16().unwrap_or(443), addresses, mark);
        Ok(Self {
            config,
            uri,
            server_name,
            dialer,
            open: Mutex::default(),
        })
    }

    /// The Service and the port of it, where the URL names one of the cluster.
    pub fn service(config: &Config) -> Result<Option<(ServiceName, u16)>, Error> {
        let (uri, host) = parse(config)?;
        let port = uri.port_u16().unwrap_or(443);
        Ok(service(&host).map(|service| (service, port)))
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// To a replica that accepts. Calls share its connection; roots that have changed make another one.
    pub async fn channel(&self) -> Result<Channel, Error> {
        let path = self.config.roots.clone();
        let stamp = Stamp::of(&path);
        if let Some((seen, channel)) = &*self.lock()
            && *seen == stamp
        {
            return Ok(channel.clone());
        }
        let roots = beside(self.config.fields.roots, path, files::roots).await?;
        let channel = self.connect(roots)?;
        *self.lock() = Some((stamp, channel.clone()));
        Ok(channel)
    }

    /// The next call dials another replica, for one that was silent too long.
    pub fn leave(&self) {
        self.lock().take();
    }

    /// `Bearer` and the caller's own token.
    pub async fn token(&self) -> Result<MetadataValue<Ascii>, Error> {
        beside(self.config.fields.token, self.config.token.clone(), files::bearer).await
    }

    fn connect(&self, roots: RootCertStore) -> Result<Channel, Error> {
        let tls = ClientTlsConfig::new()
            .trust_anchors(roots.roots)
            .domain_name(&self.server_name);
        let endpoint = Endpoint::from(self.uri.clone())
            .connect_timeout(CONNECT_TIME)
            .http2_keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .tls_config(tls)
            .map_err(|source| Error::Tls {
                field: self.config.fields.roots,
                source,
            })?;
        let dialer = self.dialer.clone();
        Ok(endpoint.connect_with_connector_lazy(service_fn(move |_| {
            let stream = dialer.clone().dial();
            async move { stream.await.map(TokioIo::new) }
        })))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Option<Stamp>, Channel)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beside the runtime: a disk may take its time.
async fn beside<T: Send + 'static>(
    field: &'static str,
    path: std::path::PathBuf,
    read: fn(&'static str, &Path) -> Result<T, Error>,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(move || read(field, &path)).await {
        Ok(read) => read,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn parse(config: &Config) -> Result<(Uri, String), Error> {
    let fail = |reason| Error::Url {
        field: config.fields.url,
        value: config.url.clone(),
        reason,
    };
    let uri: Uri = config.url.parse().map_err(|_| fail("is no URL"))?;
    if uri.scheme_str() != Some("https") {
        return Err(fail("is not https, and a token must not travel in the clear"));
    }
    let host = uri.host().ok_or_else(|| fail("names no host"))?;
    // A URL writes an IPv6 address in brackets, a certificate does not.
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok((uri, host))
}
