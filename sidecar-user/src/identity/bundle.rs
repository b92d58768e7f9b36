//! A credential bundle, as a kubelet writes it for a pod: a private key in PKCS#8, then the chain of its certificate, leaf first,
//! in one PEM file, which is read in one go, so that key and certificate belong together. Beside it the roots, in a file of theirs.
//!
//! It blocks as a disk does, and judges nothing: `answer.rs` does.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use super::bad_answer::{BadAnswer, MAX_CERTIFICATES};
use super::{Error, Files, Key, Svid, files};
use crate::credentials::MAX_ROOTS;
use crate::model::SpiffeId;

const BUNDLE_REMEDY: &str =
    "mount a volume there that projects a podCertificate, with this file as its credentialBundlePath";
const ROOTS_REMEDY: &str = "mount a volume there that projects the clusterTrustBundle of the mesh";
/// The API server lets a chain have 64 KiB; an RSA-4096 key adds four.
const MAX_BUNDLE: u64 = 128 << 10;

/// What the files hold.
struct Credentials {
    key: Key,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

/// The identity in the files, verified as an authority's answer is.
pub(super) fn read(id: &SpiffeId, files: &Files, now: SystemTime) -> Result<Svid, Error> {
    let Credentials { key, chain, roots } = Credentials::read(files)?;
    Svid::from_files(id, &key, chain, roots, now).map_err(|source| Error::Files {
        bundle: files.bundle.clone(),
        roots: files.roots.clone(),
        source,
    })
}

impl Credentials {
    fn read(files: &Files) -> Result<Self, Error> {
        let (bundle, _) = files::read("bundle", &files.bundle, MAX_BUNDLE, BUNDLE_REMEDY)?;
        let (key, chain) = parse(&bundle).map_err(|reason| Error::Content {
            field: "bundle",
            path: files.bundle.clone(),
            reason,
            remedy: BUNDLE_REMEDY,
        })?;
        let (roots, _) = files::read("roots", &files.roots, MAX_ROOTS, ROOTS_REMEDY)?;
        let roots = certificates(&files.roots, &roots)?;
        match chain.len() + roots.len() > MAX_CERTIFICATES {
            false => Ok(Self { key, chain, roots }),
            true => Err(Error::Files {
                bundle: files.bundle.clone(),
                roots: files.roots.clone(),
                source: BadAnswer::Long,
            }),
        }
    }
}

/// An error is words for a message, which holds nothing of the file.
fn parse(pem: &[u8]) -> Result<(Key, Vec<CertificateDer<'static>>), String> {
    let (mut key, mut chain) = (None, Vec::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        // The parser's words would quote the line that it stumbles over.
        let (kind, mut der) = section.map_err(|_| "is no PEM".to_owned())?;
        match kind {
            SectionKind::Certificate => chain.push(CertificateDer::from(der)),
            SectionKind::PrivateKey => {
                let der = Zeroizing::new(der);
                let read = Key::parse(&PrivatePkcs8KeyDer::from(der.as_slice()));
                let read = read.map_err(|_| "holds a key that cannot be read".to_owned())?;
                if key.replace(read).is_some() {
                    return Err("holds two keys".to_owned());
                }
            }
            SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                der.zeroize();
                return Err("holds a key that is not in PKCS#8, `BEGIN PRIVATE KEY`".to_owned());
            }
            _ => {}
        }
    }
    let key = key.ok_or("holds no key")?;
    match chain.first() {
        None => Err("holds no certificate".to_owned()),
        Some(leaf) if !is_for(leaf, &key) => {
            Err("has a first certificate that is for another key than the one beside it".to_owned())
        }
        Some(_) => Ok((key, chain)),
    }
}

fn is_for(leaf: &CertificateDer<'_>, key: &Key) -> bool {
    // What cannot be read is judged, with its reason, where all certificates are.
    x509_parser::parse_x509_certificate(leaf)
        .map_or(true, |(_, cert)| cert.public_key().raw == key.public_key())
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |reason: String| Error::Content {
        field: "roots",
        path: path.to_owned(),
        reason,
        remedy: ROOTS_REMEDY,
    };
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certs = certs.map_err(|error| bad(format!("is no PEM: {error}")))?;
    match certs.is_empty() {
        true => Err(bad("holds no certificate".to_owned())),
        false => Ok(certs),
    }
}

#[cfg(test)]
pub(super) mod tests;
