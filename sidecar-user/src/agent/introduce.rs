//! Brings a sidecar that wants to take a pod over to the one that serves it. Each is given, with its session, a socket that
//! listens at a path in a directory of the agent's own. Whoever connects there is the agent, as nobody else can reach it: no
//! program of a pod sees that path, and a name of the pod's network namespace could be taken by any of them.
//!
//! The path is one of the agent's host, so that it is found again by the agent that is started next; and it is one of the pod and
//! of the sidecar's part of the slots, so that a sidecar that never comes to serve takes nothing from the one that does.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::lifecycle::messages::{Listener, Messages};

/// The socket for a sidecar with that part of the slots.
pub(super) fn listen(directory: &Path, pins: &Path, generation: usize) -> io::Result<Listener> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    Listener::bind_path(&place(directory, pins, generation)?)
}

/// A conversation with the sidecar that has that part. `None`: nobody listens, because it has ended or has given the pod up.
pub(super) fn connect(directory: &Path, pins: &Path, generation: usize) -> io::Result<Option<Messages>> {
    match Messages::connect_path(&place(directory, pins, generation)?) {
        Ok(conversation) => Ok(Some(conversation)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Of a pod that is gone.
pub(super) fn forget(directory: &Path, pins: &Path) {
    let Ok(of_pod) = prefix(pins) else {
        return;
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&of_pod) {
            // It helps nobody, and does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn place(directory: &Path, pins: &Path, generation: usize) -> io::Result<PathBuf> {
    Ok(directory.join(format!("{}{generation}", prefix(pins)?)))
}

/// Short, as the path of a socket has 107 bytes: the number of the pod's directory below the pins.
fn prefix(pins: &Path) -> io::Result<String> {
    Ok(format!("{:x}-", fs::metadata(pins)?.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_who_listens_for_the_pod_and_the_slots_is_found_and_nobody_else_may_look() {
        let scratch = std::env::temp_dir().join(format!("outrigger-introduce-{}", std::process::id()));
        let [directory, pins, other] = ["handover", "pod", "other"].map(|name| scratch.join(name));
        fs::create_dir_all(&pins).unwrap();
        fs::create_dir_all(&other).unwrap();
        assert!(connect(&directory, &pins, 1).unwrap().is_none());
        let listener = listen(&directory, &pins, 1).unwrap();
        let mode = fs::metadata(&directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(connect(&directory, &pins, 1).unwrap().is_some());
        assert!(connect(&directory, &pins, 2).unwrap().is_none());
        assert!(connect(&directory, &other, 1).unwrap().is_none());
        listener.close().unwrap();
        assert!(connect(&directory, &pins, 1).unwrap().is_none(), "it is closed");
        let again = listen(&directory, &pins, 1).unwrap();
        drop(again);
        assert!(connect(&directory, &pins, 1).unwrap().is_none(), "it has ended");
        forget(&directory, &other);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        forget(&directory, &pins);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        fs::remove_dir_all(&scratch).unwrap();
    }
}
