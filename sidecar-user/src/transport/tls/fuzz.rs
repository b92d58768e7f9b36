//! What has to hold of a peer's certificate, whatever its bytes are: whoever is believed has proved exactly one name, and
//! it is one that was asked for.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::PROVIDER;
use super::verify::{ExpectedServer, MeshClient, expiry, identities};
use crate::model::SpiffeId;

/// The root of the certificates in the corpus. Nobody has its key any more.
static ROOTS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let root = CertificateDer::from(&include_bytes!("../../../../tests/fuzz/root.der")[..]);
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("the kept root is a root");
    Arc::new(roots)
});

pub(crate) fn certificate(der: &[u8]) -> Result<String, String> {
    let leaf = CertificateDer::from(der);
    // Within the life of the certificates in the corpus, which ends in a hundred years.
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let asked = SpiffeId::new("td.test", "demo", "client").expect("a valid identity");
    let server = ExpectedServer::new(ROOTS.clone(), vec![asked.clone()], PROVIDER.clone());
    let client = MeshClient::new(ROOTS.clone(), "td.test", PROVIDER.clone()).expect("there is a root");

    let name = ServerName::IpAddress(std::net::IpAddr::from([10, 0, 0, 1]).into());
    let found = identities(&leaf);
    let as_server = server.verify_server_cert(&leaf, &[], &name, &[], now);
    if as_server.is_ok() {
        assert_eq!(found.as_deref().ok(), Some(&[asked][..]));
    }
    if client.verify_client_cert(&leaf, &[], now).is_ok() {
        let of_mesh = |ids: &[SpiffeId]| ids.len() == 1 && ids[0].trust_domain() == "td.test";
        assert!(found.as_deref().is_ok_and(of_mesh), "{found:?}");
    }
    let _ = expiry(&leaf);
    as_server.map_err(|error| error.to_string())?;
    Ok(format!("{found:?}"))
}
