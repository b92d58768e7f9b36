//! What has to hold of an authority's answer, and of the files that the way to it is read from.

use std::path::Path;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;

use super::files::{bearer_of, roots_of};
use super::svid::{Key, Svid};
use crate::error_chain;
use crate::model::SpiffeId;

/// The key of the leaves in the corpus.
const KEY: &str = include_str!("../../../tests/fuzz/leaf-key.pem");

/// An answer that is taken names this workload, and nothing of the bundle is shown to peers.
pub(crate) fn answer(answer: &[String]) -> Result<String, String> {
    let id = SpiffeId::new("td.test", "demo", "client").expect("a valid identity");
    let key = Key::from_pem(KEY).expect("the kept key is a key");
    // Within the life of the certificates in the corpus, which ends in a hundred years.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let svid = Svid::from_answer(&id, &key, answer, now).map_err(|error| error_chain(&error))?;
    assert_eq!(svid.id(), &id);
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.certified_key().cert[0]).expect("it was taken");
    let san = leaf.subject_alternative_name().ok().flatten();
    let names = san.iter().flat_map(|san| &san.value.general_names);
    let uris: Vec<_> = names.filter(|name| matches!(name, GeneralName::URI(_))).collect();
    assert_eq!(uris, [&GeneralName::URI(id.as_str())]);
    assert!(!leaf.is_ca());
    assert!(svid.is_valid_at(now) && !svid.roots().is_empty());
    let chain = &svid.certified_key().cert;
    assert!(!chain.is_empty());
    for cert in chain {
        let (_, cert) = x509_parser::parse_x509_certificate(cert).expect("it was taken");
        assert_ne!(cert.subject(), cert.issuer(), "a root is not shown to peers");
    }
    Ok(svid.serial().to_owned())
}

/// A token that is taken is one header value of printable characters, and marked as a secret.
pub(crate) fn token(file: &[u8]) -> Result<String, String> {
    let value = bearer_of(Path::new("token"), file).map_err(|error| error_chain(&error))?;
    let token = value
        .as_encoded_bytes()
        .strip_prefix(b"Bearer ")
        .unwrap_or_default();
    assert!(
        !token.is_empty() && token.iter().all(u8::is_ascii_graphic),
        "{token:?}"
    );
    assert!(value.is_sensitive());
    Ok(String::new())
}

/// A bundle that is taken holds at least one root.
pub(crate) fn roots(file: &[u8]) -> Result<String, String> {
    let roots = roots_of(Path::new("roots.pem"), file).map_err(|error| error_chain(&error))?;
    assert!(!roots.is_empty());
    Ok(roots.len().to_string())
}
