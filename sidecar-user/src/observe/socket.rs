//! The admin endpoint's unix socket: private from its first moment, and gone with its owner.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Error, SocketPath};

/// Bound, listening, mode 0600. The file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only our own file is removed.
    file: (u64, u64),
    /// Another process has it too, and goes on with it.
    shared: Arc<AtomicBool>,
}

/// Says which process goes on with the socket: its file stays when the other one's is dropped.
#[derive(Clone, Debug)]
pub struct Shared(Arc<AtomicBool>);

impl Shared {
    pub fn goes_on_elsewhere(&self) {
        self.0.store(true, Relaxed);
    }

    pub fn goes_on_here(&self) {
        self.0.store(false, Relaxed);
    }
}

/// Connections waiting to be accepted.
const BACKLOG: i32 = 64;

impl AdminSocket {
    /// As configured: `Ok(None)` where it is not required and cannot be had, which the log says.
    pub fn open(config: &SocketPath) -> Result<Option<Self>, Error> {
        if config.is_required {
            return Self::bind(&config.path).map(Some);
        }
        if let Some(directory) = config.path.parent() {
            // What is wrong with it, binding says.
            let _ = fs::DirBuilder::new().mode(0o700).create(directory);
        }
        Self::bind(&config.path).map(Some).or_else(|error| {
            tracing::warn!(
                error = crate::error_chain(&error),
                "this proxy has no admin socket, so nobody can drain it or change its log level but by a signal; \
                 set listen.adminSocket to a path of its own, or to none"
            );
            Ok(None)
        })
    }

    /// One that listens already, together with its file. Both are another process's until [`Shared::goes_on_here`].
    pub fn taken_over(listener: UnixListener, path: &Path) -> Result<Self, Error> {
        let file = fs::symlink_metadata(path).map_err(|source| Error::AdminSocket {
            path: path.to_owned(),
            reason: "its file is gone",
            source: Some(source),
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
            shared: Arc::new(AtomicBool::new(true)),
        })
    }

    /// The same socket for another process, and how to tell that it has it.
    pub fn share(&self) -> io::Result<(UnixListener, Shared)> {
        Ok((self.listener.try_clone()?, Shared(self.shared.clone())))
    }

    /// A file that a dead process left behind is replaced; one that somebody listens on is not.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let fail = |reason| {
            move |source| Error::AdminSocket {
                path: path.to_owned(),
                reason,
                source: Some(source),
            }
        };
        clear_stale(path)?;
        let address =
            SockAddr::unix(path).map_err(fail("the path is longer than a socket's may be, 107 bytes"))?;
        let socket =
            Socket::new(Domain::UNIX, Type::STREAM, None).map_err(fail("the system gives no socket"))?;
        // Before bind: the file is made with the socket's own mode, so it is never open to others.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| fail("its mode cannot be set")(errno.into()))?;
        socket.bind(&address).map_err(fail(
            "the directory must exist, be writable and hold no such file",
        ))?;
        socket
            .listen(BACKLOG)
            .map_err(fail("the system refuses to listen"))?;
        let file = fs::symlink_metadata(path).map_err(fail("the file vanished at once"))?;
        Ok(Self {
            listener: socket.into(),
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
            shared: Arc::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn listener(&self) -> Result<tokio::net::UnixListener, Error> {
        self.listener.try_clone().map_err(unusable).and_then(watched)
    }
}

pub(super) fn watched(listener: UnixListener) -> Result<tokio::net::UnixListener, Error> {
    listener.set_nonblocking(true).map_err(unusable)?;
    tokio::net::UnixListener::from_std(listener).map_err(unusable)
}

fn unusable(source: io::Error) -> Error {
    Error::Listener {
        endpoint: "admin socket",
        source,
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if self.shared.load(Relaxed) {
            return;
        }
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|f| (f.dev(), f.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the admin socket's file stays behind");
        }
    }
}

fn clear_stale(path: &Path) -> Result<(), Error> {
    let Ok(file) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let refuse = |reason, source| {
        Err(Error::AdminSocket {
            path: path.to_owned(),
            reason,
            source,
        })
    };
    if !file.file_type().is_socket() {
        return refuse(
            "there is a file that is no socket; remove it or choose another adminSocket",
            None,
        );
    }
    match UnixStream::connect(path) {
        Ok(_) => refuse(
            "another process listens there; stop it or choose another adminSocket",
            None,
        ),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) => refuse("a dead process's file cannot be removed", Some(error)),
        },
        Err(error) => refuse("it cannot be told whether somebody listens there", Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outrigger-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let dir = Dir::new("private");
        let path = dir.0.join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_a_socket_that_two_processes_have_goes_with_the_one_that_goes_on() {
        let dir = Dir::new("shared");
        let path = dir.0.join("admin.sock");
        let owner = AdminSocket::bind(&path).unwrap();
        let handed = || AdminSocket::taken_over(owner.share().unwrap().0, &path).unwrap();
        drop(handed());
        assert!(
            path.exists(),
            "who ends before it has taken over leaves the owner's"
        );
        let next = handed();
        next.share().unwrap().1.goes_on_here();
        owner.share().unwrap().1.goes_on_elsewhere();
        drop(owner);
        assert!(path.exists());
        drop(next);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_that_was_asked_for_has_to_be_there() {
        let dir = Dir::new("optional");
        let at = |name: &str, is_required| SocketPath {
            path: dir.0.join(name),
            is_required,
        };
        let made = AdminSocket::open(&at("new/admin.sock", false)).unwrap().unwrap();
        assert_eq!(fs::metadata(dir.0.join("new")).unwrap().mode() & 0o777, 0o700);
        assert!(
            AdminSocket::open(&at("new/admin.sock", false)).unwrap().is_none(),
            "taken"
        );
        assert!(AdminSocket::open(&at("new/admin.sock", true)).is_err());
        assert!(
            AdminSocket::open(&at("no/directory/admin.sock", false))
                .unwrap()
                .is_none()
        );
        drop(made);
    }

    #[test]
    fn a_stale_file_is_replaced_and_a_living_one_is_not() {
        let dir = Dir::new("stale");
        let path = dir.0.join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind");
        let socket = AdminSocket::bind(&path).unwrap();
        let error = AdminSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains("another process listens"), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(socket);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = Dir::new("other");
        let path = dir.0.join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(
            AdminSocket::bind(&path)
                .unwrap_err()
                .to_string()
                .contains("no socket")
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
