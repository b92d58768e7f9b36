//! Where the cgroup2 hierarchy is mounted, by `/proc/self/mountinfo`: on hybrid hosts it is beside those of version 1, in
//! containers maybe twice.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The cgroup that it shows. Relative to the reader's cgroup namespace, so that it may begin with `..`.
    root: PathBuf,
    pub(super) at: PathBuf,
}

pub(super) fn mounts() -> Result<Vec<Mount>, Error> {
    let path = "/proc/self/mountinfo";
    let lines = fs::read_to_string(path).map_err(Error::path("mounts", path))?;
    let mounts: Vec<_> = lines.lines().filter_map(Mount::of_line).collect();
    if mounts.is_empty() {
        return Err(Error::NoMount);
    }
    Ok(mounts)
}

impl Mount {
    /// Of a line of proc_pid_mountinfo(5): `36 35 0:30 /root /at rw - cgroup2 cgroup rw`.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        if !file_system.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        Some(Self {
            root: unescaped(fields.next()?),
            at: unescaped(fields.next()?),
        })
    }

    /// Whether what it shows is below a directory of the kubelet. Then nothing in it is a topmost one.
    pub(super) fn is_below_kubepods(&self) -> bool {
        self.root.to_string_lossy().contains("kubepods")
    }

    /// Where a cgroup of `/proc/PID/cgroup` is in the file system. `None`: this mount does not show it.
    pub(super) fn path_of(&self, cgroup: &str) -> Option<PathBuf> {
        let below = Path::new(cgroup).strip_prefix(&self.root).ok()?;
        let is_inside = below
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        is_inside.then(|| self.at.join(below))
    }
}

/// The kernel writes blanks, line ends and backslashes as `\` and three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}
