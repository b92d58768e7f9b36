//! The state directory: who may read it, and how a file in it is replaced without ever being half written.
//!
//! It does not know what the files mean.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::Error;

/// No file of ours comes near it; a larger one is not ours.
const MAX_FILE: u64 = 16 << 20;

/// A directory that only its owner, who is us, can enter.
#[derive(Clone, Debug)]
pub(super) struct StateDir(PathBuf);

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    Owner,
    Everyone,
}

/// One version of a file. Every version that is written here is a new file, so the inode differs even when two are made
/// within one tick of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Held while files are read in order to be replaced; let go when dropped.
pub(super) struct Locked<'a> {
    dir: &'a StateDir,
    _lock: File,
}

impl StateDir {
    /// Creates the directory where there is none, and refuses one that others can enter.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("create", path))?;
        Self::existing(path)
    }

    /// Where it has to be there: a mistyped path must not become an empty directory.
    pub(super) fn existing(path: &Path) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(io("read", path))?;
        check_private(path, &meta, 0o700)?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits until no other process is changing the directory.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let path = self.path(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .map_err(io("open", &path))?;
        lock.lock().map_err(io("lock", &path))?;
        Ok(Locked {
            dir: self,
            _lock: lock,
        })
    }

    /// Tells versions of a file apart; `None` where there is none.
    pub(super) fn stamp(&self, name: &str) -> Result<Option<Stamp>, Error> {
        let path = self.path(name);
        match std::fs::symlink_metadata(&path) {
            Ok(meta) => Ok(Some(Stamp {
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// `None` where there is no such file. A secret that others can read is refused.
    pub(super) fn read(&self, name: &str, readers: Readers) -> Result<Option<Zeroizing<String>>, Error> {
        let path = self.path(name);
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("open", &path)(error)),
        };
        let meta = file.metadata().map_err(io("read", &path))?;
        if readers == Readers::Owner {
            check_private(&path, &meta, 0o600)?;
        }
        // Room for all of it at once: a growing buffer would leave copies of a secret behind.
        let mut text = Zeroizing::new(String::with_capacity(meta.len().min(MAX_FILE) as usize + 1));
        file.take(MAX_FILE)
            .read_to_string(&mut text)
            .map_err(io("read", &path))?;
        Ok(Some(text))
    }
}

impl Locked<'_> {
    /// Replaces a file as a whole: after a crash there is the old one or the new one.
    pub(super) fn write(&self, name: &str, readers: Readers, text: &str) -> Result<(), Error> {
        replace(&self.dir.path(name), readers, text)
    }

    /// No error where there is no such file.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.dir.path(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io("remove", &path)(error)),
            Ok(()) => sync_directory(&path),
        }
    }
}

/// Replaces a file as a whole, in any directory.
pub(super) fn replace(path: &Path, readers: Readers, text: &str) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let written = write_synced(&temporary, readers, text).map_err(io("write", &temporary));
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path).map_err(io("replace", path)));
    if let Err(error) = renamed {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    // The rename itself is durable only with its directory.
    sync_directory(path)
}

fn sync_directory(of: &Path) -> Result<(), Error> {
    let dir = match of.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io("sync", dir))
}

fn write_synced(path: &Path, readers: Readers, text: &str) -> io::Result<()> {
    // A crash may have left one; the lock says that it is nobody's now.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    if readers == Readers::Everyone {
        file.set_permissions(Permissions::from_mode(0o644))?;
    }
    file.sync_all()
}

fn check_private(path: &Path, meta: &std::fs::Metadata, wanted: u32) -> Result<(), Error> {
    let us = geteuid().as_raw();
    if meta.uid() != us {
        return Err(Error::ForeignOwner {
            path: path.to_owned(),
            owner: meta.uid(),
            us,
        });
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Writes a secret to a file that nobody else can read, in the place of one that is there.
pub fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, Readers::Owner, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::scratch::Scratch;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_directory_and_its_secrets_are_the_owners_alone() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.join("a/b")).unwrap();
        let locked = dir.lock().unwrap();
        locked.write("secret", Readers::Owner, "s").unwrap();
        locked.write("public", Readers::Everyone, "p").unwrap();
        assert_eq!(mode(&scratch.join("a/b")), 0o700);
        assert_eq!(mode(&dir.path("secret")), 0o600);
        assert_eq!(mode(&dir.path("public")), 0o644);
    }

    #[test]
    fn a_directory_open_to_others_is_refused_with_the_command_that_closes_it() {
        let scratch = Scratch::new();
        let path = scratch.join("wide");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        let error = StateDir::open(&path).unwrap_err().to_string();
        assert!(error.contains("mode 0750"), "{error}");
        assert!(
            error.contains(&format!("chmod 0700 {}", path.display())),
            "{error}"
        );
    }

    #[test]
    fn a_secret_open_to_others_is_refused_and_a_public_file_is_not() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.join("state")).unwrap();
        dir.lock().unwrap().write("file", Readers::Everyone, "x").unwrap();
        let error = dir.read("file", Readers::Owner).unwrap_err().to_string();
        assert!(error.contains("chmod 0600"), "{error}");
        assert_eq!(
            dir.read("file", Readers::Everyone).unwrap().unwrap().as_str(),
            "x"
        );
        assert!(dir.read("absent", Readers::Owner).unwrap().is_none());
    }

    #[test]
    fn a_symbolic_link_in_the_place_of_a_secret_is_not_followed() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.join("state")).unwrap();
        dir.lock().unwrap().write("real", Readers::Owner, "x").unwrap();
        std::os::unix::fs::symlink(dir.path("real"), dir.path("link")).unwrap();
        assert!(dir.read("link", Readers::Owner).is_err());
    }

    #[test]
    fn what_a_crash_left_behind_is_replaced() {
        let scratch = Scratch::new();
        let dir = StateDir::open(&scratch.join("state")).unwrap();
        std::fs::write(dir.path(".file.new"), "half").unwrap();
        dir.lock()
            .unwrap()
            .write("file", Readers::Owner, "whole")
            .unwrap();
        assert_eq!(
            dir.read("file", Readers::Owner).unwrap().unwrap().as_str(),
            "whole"
        );
        assert!(!dir.path(".file.new").exists());
    }
}
