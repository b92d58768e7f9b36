//! What has to hold of what the authority reads: requests for certificates, and its list of tokens.

use std::cell::OnceCell;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;

use super::scratch::Scratch;
use super::token::Worth;
use super::{Ca, Tokens};
use crate::error_chain;
use crate::model::SpiffeId;

pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(super) fn id() -> SpiffeId {
    SpiffeId::new("td.test", "demo", "client").expect("a valid identity")
}

/// Whatever a request says of itself, a leaf names whom the token stands for and nobody else.
pub(crate) fn sign(csr: &str) -> Result<String, String> {
    static CA: LazyLock<Ca> =
        LazyLock::new(|| Ca::ephemeral("td.test", DAY, now()).expect("a root can be made"));
    let leaf = CA
        .issue(csr, &id(), None, now())
        .map_err(|refusal| error_chain(&refusal))?;
    check_leaf(&CA, &leaf.pem);
    Ok(String::new())
}

pub(super) fn check_leaf(ca: &Ca, pem: &str) {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("what is signed is PEM");
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).expect("what is signed is a certificate");
    let san = leaf.subject_alternative_name().ok().flatten();
    let names = san.map(|san| san.value.general_names.clone()).unwrap_or_default();
    assert_eq!(names, [GeneralName::URI(id().as_str())]);
    assert!(!leaf.is_ca());
    let (_, root) = x509_parser::parse_x509_certificate(ca.root_der()).expect("the root is a certificate");
    assert_eq!(leaf.verify_signature(Some(root.public_key())), Ok(()));
    assert!(leaf.validity().not_after <= root.validity().not_after);
}

/// A list that can be read lets nobody in whose token is not in it.
pub(crate) fn tokens(list: &[u8]) -> Result<String, String> {
    thread_local! {
        static STATE: OnceCell<Scratch> = const { OnceCell::new() };
    }
    STATE.with(|state| {
        let dir = state.get_or_init(Scratch::new).join("state");
        let opened = Tokens::open(&dir);
        drop(opened);
        let file = dir.join("tokens.json");
        let mut options = OpenOptions::new();
        let written = options
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| std::io::Write::write_all(&mut file, list));
        written.expect("the directory is ours");
        let tokens =
            Tokens::open(&dir).map_err(|error| error_chain(&error).replace(&*dir.to_string_lossy(), ""))?;
        for guess in ["", "ort_", "ort_guess"] {
            let found = tokens.worth(guess, now()).map_err(|error| error_chain(&error))?;
            assert!(found == Worth::Unknown, "{found:?}");
        }
        Ok(String::new())
    })
}
