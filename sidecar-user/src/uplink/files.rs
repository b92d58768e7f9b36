//! The agent's own files: the roots by which the control process is judged, and the agent's token. The kubelet replaces both while
//! the agent runs, so both are read anew: roots when they have changed, the token for each call.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::Error;

/// A Kubernetes token is about 1 KiB; more than this is some other file.
const MAX_TOKEN: u64 = 16 << 10;
/// A bundle of a hundred roots fits in several times.
const MAX_ROOTS: u64 = 1 << 20;

/// Tells versions of a file apart. It follows links, so that a kubelet's swap of a directory shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// `None` where there is no such file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// Blocks as a disk does.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let pem = read("roots", path, MAX_ROOTS)?;
    let bad = |reason: String| content("roots", path, reason);
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&pem) {
        let cert = cert.map_err(|error| bad(format!("is no PEM: {error}")))?;
        store
            .add(cert)
            .map_err(|error| bad(format!("holds a certificate that is no root: {error}")))?;
    }
    match store.is_empty() {
        true => Err(bad("holds no certificate".into())),
        false => Ok(store),
    }
}

/// `Bearer` and the token. Blocks as a disk does.
pub(super) fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, Error> {
    let bytes = read("token", path, MAX_TOKEN)?;
    let token = bytes.trim_ascii();
    let bad = |reason: &str| content("token", path, reason.into());
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(bad("is not one line of printable characters"));
    }
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token);
    let mut value =
        MetadataValue::try_from(header.as_slice()).map_err(|_| bad("cannot stand in a header"))?;
    // Keeps it out of debug output and of HPACK's table.
    value.set_sensitive(true);
    Ok(value)
}

fn read(field: &'static str, path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
    let io = |source| Error::Read {
        field,
        path: path.to_owned(),
        source,
    };
    let file = open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(content(field, path, "is no regular file".into()));
    }
    // Room for all of it at once: a growing buffer would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len().min(most) as usize + 1));
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    match bytes.len() as u64 > most {
        true => Err(content(field, path, format!("is longer than {most} bytes"))),
        false => Ok(bytes),
    }
}

/// Without waiting for whoever writes to it, should it be a pipe.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
}

fn content(field: &'static str, path: &Path, reason: String) -> Error {
    Error::Content {
        field,
        path: path.to_owned(),
        reason,
    }
}
