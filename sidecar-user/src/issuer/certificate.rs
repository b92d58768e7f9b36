//! The certificate that the service itself shows: its TLS settings, and when that certificate is made anew.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rcgen::SanType;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::warn;

use super::{Ca, Error, PROVIDER, Store, ca};

pub(super) fn tls_config(store: Arc<Store>, names: &[String]) -> Result<ServerConfig, Error> {
    let certificate = ServerCertificate::new(store, ca::server_names(names)?)?;
    let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| Error::Tls { source })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The service's own certificate. It is looked at in each handshake and made anew when half of its life is over, or when
/// the roots have changed, so no timer is needed and an idle service does nothing.
struct ServerCertificate {
    store: Arc<Store>,
    names: Vec<SanType>,
    current: Mutex<Current>,
}

struct Current {
    /// Whose certificate it is.
    ca: Arc<Ca>,
    key: Arc<CertifiedKey>,
    renew_at: SystemTime,
}

impl ServerCertificate {
    fn new(store: Arc<Store>, names: Vec<SanType>) -> Result<Self, Error> {
        let current = Mutex::new(make(store.current(), &names, SystemTime::now())?);
        Ok(Self {
            store,
            names,
            current,
        })
    }

    fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let ca = self.store.current();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew_at || !Arc::ptr_eq(&current.ca, &ca) {
            match make(ca, &self.names, now) {
                Ok(new) => *current = new,
                Err(error) => warn!(%error, "the certificate service cannot renew its own certificate"),
            }
        }
        current.key.clone()
    }
}

fn make(ca: Arc<Ca>, names: &[SanType], now: SystemTime) -> Result<Current, Error> {
    let (key, end) = ca.server_certificate(names, now)?;
    Ok(Current {
        ca,
        key: Arc::new(key),
        renew_at: now + end.duration_since(now).unwrap_or_default() / 2,
    })
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(SystemTime::now()))
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::issuer::Config;
    use crate::issuer::rotation::{self, Step};
    use crate::issuer::scratch::Scratch;

    const HOUR: Duration = Duration::from_secs(3600);

    fn config(scratch: &Scratch) -> Config {
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: scratch.join("state"),
            trust_domain: "td.test".to_owned(),
            leaf_ttl: HOUR,
            server_names: vec![],
        }
    }

    fn certificate(config: &Config) -> ServerCertificate {
        let store = Arc::new(Store::open(config).unwrap());
        ServerCertificate::new(store, ca::server_names(&[]).unwrap()).unwrap()
    }

    #[test]
    fn the_services_own_certificate_is_renewed_at_half_life_and_not_before() {
        let scratch = Scratch::new();
        let now = SystemTime::now();
        let certificate = certificate(&config(&scratch));
        let first = certificate.at(now);
        assert!(Arc::ptr_eq(&first, &certificate.at(now + HOUR / 3)));
        let second = certificate.at(now + HOUR * 2 / 3);
        assert_ne!(first.cert, second.cert);
        assert!(Arc::ptr_eq(&second, &certificate.at(now + HOUR)));
    }

    #[test]
    fn during_a_rotation_the_service_is_vouched_for_by_the_root_that_every_client_has() {
        let scratch = Scratch::new();
        let config = config(&scratch);
        let certificate = certificate(&config);
        let key_id = |certificate: &ServerCertificate| {
            let key = certificate.at(SystemTime::now());
            let (_, cert) = x509_parser::parse_x509_certificate(&key.cert[0]).unwrap();
            let ids = cert
                .extensions()
                .iter()
                .find_map(|ext| match ext.parsed_extension() {
                    x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                        id.key_identifier.as_ref().map(|id| id.0.to_vec())
                    }
                    _ => None,
                });
            ids.unwrap()
        };
        let elder = key_id(&certificate);
        let take = |step| rotation::take(&config.state_dir, step, true, SystemTime::now()).unwrap();
        for step in [Step::Begin, Step::Switch] {
            take(step);
            assert_eq!(key_id(&certificate), elder, "{step:?}");
        }
        take(Step::Finish);
        assert_ne!(key_id(&certificate), elder);
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_refused() {
        let error = ca::server_names(&["ünicode".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("ünicode"), "{error}");
    }
}
