//! The files that a user gives us: the roots by which the authority is judged, and the bootstrap token. Read anew for
//! each call, never more of them than they can sensibly hold.
//!
//! It asks nobody. The functions block as a disk does, so the caller runs them beside its runtime.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path};

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
pub(super) const MAX_ROOTS: u64 = 1 << 20;
const ROOTS_REMEDY: &str = "put the authority's root-cert.pem there";
const TOKEN_REMEDY: &str = "put a token there: outrigger token create --out";

/// A bootstrap token, ready to be sent.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) header: MetadataValue<Ascii>,
    /// The mode of a file that others than its owner can read.
    pub(super) exposed: Option<u32>,
}

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

pub(super) fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let (pem, _) = read("roots", path, MAX_ROOTS, ROOTS_REMEDY)?;
    roots_of(path, &pem)
}

pub(super) fn roots_of(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    let bad = |reason: String| Error::Content {
        field: "roots",
        path: path.to_owned(),
        reason,
        remedy: ROOTS_REMEDY,
    };
    let mut store = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        let cert = cert.map_err(|error| bad(format!("is no PEM: {error}")))?;
        store
            .add(cert)
            .map_err(|error| bad(format!("holds a certificate that is no root: {error}")))?;
    }
    if store.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(store)
}

pub(super) fn token(path: &Path) -> Result<Token, Error> {
    let (bytes, meta) = read("token", path, MAX_TOKEN, TOKEN_REMEDY)?;
    Ok(Token {
        header: bearer_of(path, &bytes)?,
        exposed: exposed(path, &meta),
    })
}

pub(super) fn bearer_of(path: &Path, bytes: &[u8]) -> Result<MetadataValue<Ascii>, Error> {
    let bad = |reason: &str| Error::Content {
        field: "token",
        path: path.to_owned(),
        reason: reason.to_owned(),
        remedy: TOKEN_REMEDY,
    };
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(bad("is empty"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(bad("is not one line of printable characters"));
    }
    let mut header = Zeroizing::new(b"Bearer ".to_vec());
    header.extend_from_slice(token);
    let mut value = MetadataValue::try_from(header.as_slice()).map_err(|_| bad("is no header value"))?;
    // Keeps it out of debug output and of HPACK's table.
    value.set_sensitive(true);
    Ok(value)
}

/// The kubelet decides about the mode of a projected token, and may have to open it to a group; its volume belongs to one
/// pod. It is known by the directory that the kubelet swaps in as a whole, `..2026_01_31_…`, behind the link `..data`.
fn exposed(path: &Path, meta: &Metadata) -> Option<u32> {
    let mode = meta.mode() & 0o7777;
    let is_projected = || {
        let real = path.canonicalize().unwrap_or_default();
        let swapped = |part: Component<'_>| matches!(part, Component::Normal(name) if name.as_encoded_bytes().starts_with(b".."));
        real.components().any(swapped)
    };
    (mode & 0o077 != 0 && !is_projected()).then_some(mode)
}

pub(super) fn read(
    field: &'static str,
    path: &Path,
    most: u64,
    remedy: &'static str,
) -> Result<(Zeroizing<Vec<u8>>, Metadata), Error> {
    let bad = |reason: String| Error::Content {
        field,
        path: path.to_owned(),
        reason,
        remedy,
    };
    let io = |source| Error::Read {
        field,
        path: path.to_owned(),
        remedy,
        source,
    };
    let (file, meta) = open(path).map_err(io)?;
    if !meta.is_file() {
        return Err(bad("is no regular file".to_owned()));
    }
    // Room for all of it at once: a growing buffer would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len().min(most) as usize + 1));
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(bad(format!("is longer than {most} bytes")));
    }
    Ok((bytes, meta))
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of one test, gone when the test is.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("outrigger-identity-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let dir = Temporary::new();
        let token = token(&dir.file("token", b"  ort_abc\n", 0o600)).unwrap();
        assert_eq!(token.header.to_str().unwrap(), "Bearer ort_abc");
        assert!(!format!("{token:?}").contains("ort_abc"));
    }

    #[test]
    fn a_token_that_others_can_read_is_noticed_but_not_a_projected_one() {
        let dir = Temporary::new();
        for (mode, exposed) in [
            (0o600, None),
            (0o400, None),
            (0o640, Some(0o640)),
            (0o644, Some(0o644)),
        ] {
            assert_eq!(
                token(&dir.file("token", b"x", mode)).unwrap().exposed,
                exposed,
                "{mode:o}"
            );
        }
        let swapped = dir.0.join("..2026_01_31_12_00_00.1");
        std::fs::create_dir(&swapped).unwrap();
        dir.file("..2026_01_31_12_00_00.1/projected", b"x", 0o644);
        symlink("..2026_01_31_12_00_00.1", dir.0.join("..data")).unwrap();
        symlink("..data/projected", dir.0.join("projected")).unwrap();
        assert_eq!(token(&dir.0.join("projected")).unwrap().exposed, None);
    }

    #[test]
    fn a_file_that_is_no_token_is_refused_without_showing_it() {
        let dir = Temporary::new();
        let large = vec![b'a'; MAX_TOKEN as usize + 1];
        for (name, content, reason) in [
            ("empty", &b" \n"[..], "is empty"),
            ("lines", b"one\ntwo", "one line"),
            ("binary", b"a\xffb", "one line"),
            ("large", &large, "longer than"),
        ] {
            let error = token(&dir.file(name, content, 0o600)).unwrap_err();
            assert!(error.is_local());
            let error = error.to_string();
            assert!(
                error.contains(reason) && error.contains("outrigger token create") && error.len() < 300,
                "{error}"
            );
        }
        let pipe = dir.0.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [&pipe, &dir.0] {
            let error = token(path).unwrap_err().to_string();
            assert!(error.contains("no regular file"), "{error}");
        }
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused_by_its_path() {
        let dir = Temporary::new();
        let error = roots(&dir.file("roots", b"nothing", 0o644))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("holds no certificate") && error.contains("root-cert.pem"),
            "{error}"
        );
    }
}
