//! The files that a user gives us: the roots by which the authority is judged, and the bootstrap token. Read anew for
//! each call, by `credentials/`.
//!
//! It asks nobody. The functions block as a disk does, so the caller runs them beside its runtime.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use rustls::RootCertStore;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::Error;
use crate::credentials::{self, MAX_ROOTS, MAX_TOKEN, Unreadable};

const ROOTS_REMEDY: &str = "put the authority's root-cert.pem there";
const TOKEN_REMEDY: &str = "put a token there: outrigger token create --out";

/// A bootstrap token, ready to be sent.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) header: MetadataValue<Ascii>,
    /// The mode of a file that others than its owner can read.
    pub(super) exposed: Option<u32>,
}

pub(super) fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let (pem, _) = read("roots", path, MAX_ROOTS, ROOTS_REMEDY)?;
    roots_of(path, &pem)
}

pub(super) fn roots_of(path: &Path, pem: &[u8]) -> Result<RootCertStore, Error> {
    credentials::roots(pem).map_err(|reason| content("roots", path, reason, ROOTS_REMEDY))
}

pub(super) fn token(path: &Path) -> Result<Token, Error> {
    let (bytes, meta) = read("token", path, MAX_TOKEN, TOKEN_REMEDY)?;
    Ok(Token {
        header: bearer_of(path, &bytes)?,
        exposed: exposed(path, &meta),
    })
}

pub(super) fn bearer_of(path: &Path, bytes: &[u8]) -> Result<MetadataValue<Ascii>, Error> {
    credentials::bearer(bytes).map_err(|reason| content("token", path, reason, TOKEN_REMEDY))
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
    credentials::read(path, most).map_err(|why| match why {
        Unreadable::Content(reason) => content(field, path, reason, remedy),
        Unreadable::Io(source) => Error::Read {
            field,
            path: path.to_owned(),
            remedy,
            source,
        },
    })
}

fn content(field: &'static str, path: &Path, reason: String, remedy: &'static str) -> Error {
    Error::Content {
        field,
        path: path.to_owned(),
        reason,
        remedy,
    }
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
