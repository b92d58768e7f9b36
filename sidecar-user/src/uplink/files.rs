//! The caller's own files: the roots by which the control process is judged, and the caller's token. The kubelet replaces both while
//! it runs, so both are read anew: roots when they have changed, the token for each call. How they are read, `credentials/`
//! says.

use std::path::Path;

use rustls::RootCertStore;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::Error;
use crate::credentials::{self, MAX_ROOTS, MAX_TOKEN, Unreadable};

/// Blocks as a disk does.
pub(super) fn roots(field: &'static str, path: &Path) -> Result<RootCertStore, Error> {
    let pem = read(field, path, MAX_ROOTS)?;
    credentials::roots(&pem).map_err(|reason| content(field, path, reason))
}

/// `Bearer` and the token. Blocks as a disk does.
pub(super) fn bearer(field: &'static str, path: &Path) -> Result<MetadataValue<Ascii>, Error> {
    let token = read(field, path, MAX_TOKEN)?;
    credentials::bearer(&token).map_err(|reason| content(field, path, reason))
}

fn read(field: &'static str, path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
    match credentials::read(path, most) {
        Ok((bytes, _)) => Ok(bytes),
        Err(Unreadable::Content(reason)) => Err(content(field, path, reason)),
        Err(Unreadable::Io(source)) => Err(Error::Read {
            field,
            path: path.to_owned(),
            source,
        }),
    }
}

fn content(field: &'static str, path: &Path, reason: String) -> Error {
    Error::Content {
        field,
        path: path.to_owned(),
        reason,
    }
}
