//! WHAT IS IN THE FILES BY WHICH A PROCESS PROVES ITSELF AND JUDGES OTHERS? Root certificates and bearer tokens, never more of
//! them than they can sensibly hold, and whether somebody has replaced them.
//!
//! It knows no setting, so whoever calls says which one is wrong. The functions that take a path block as a disk does.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// A Kubernetes token is about 1 KiB; more than this is some other file.
pub const MAX_TOKEN: u64 = 16 << 10;
/// A bundle of a hundred roots fits in several times.
pub const MAX_ROOTS: u64 = 1 << 20;

/// Why a file is of no use.
#[derive(Debug)]
pub enum Unreadable {
    Io(io::Error),
    /// What is wrong with what is there, in words that follow the path.
    Content(String),
}

/// Tells versions of a file apart. It follows links, so that a kubelet's swap of a directory shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// `None` where there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// All of a regular file of at most this many bytes.
pub fn read(path: &Path, most: u64) -> Result<(Zeroizing<Vec<u8>>, Metadata), Unreadable> {
    let (file, meta) = open(path).map_err(Unreadable::Io)?;
    if !meta.is_file() {
        return Err(Unreadable::Content("is no regular file".to_owned()));
    }
    // Room for all of it at once: a growing buffer would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len().min(most) as usize + 1));
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(Unreadable::Io)?;
    if bytes.len() as u64 > most {
        return Err(Unreadable::Content(format!("is longer than {most} bytes")));
    }
    Ok((bytes, meta))
}

/// At least one.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        let cert = cert.map_err(|error| format!("is no PEM: {error}"))?;
        store
            .add(cert)
            .map_err(|error| format!("holds a certificate that is no root: {error}"))?;
    }
    match store.is_empty() {
        true => Err("holds no certificate".to_owned()),
        false => Ok(store),
    }
}

/// `Bearer` and the token, with the space around it taken away.
pub fn bearer(bytes: &[u8]) -> Result<MetadataValue<Ascii>, String> {
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err("is empty".to_owned());
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err("is not one line of printable characters".to_owned());
    }
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token);
    let mut value =
        MetadataValue::try_from(header.as_slice()).map_err(|_| "is no header value".to_owned())?;
    // Keeps it out of debug output and of HPACK's table.
    value.set_sensitive(true);
    Ok(value)
}

/// Without waiting for whoever writes to it, should it be a pipe.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let meta = file.metadata()?;
    Ok((file, meta))
}
