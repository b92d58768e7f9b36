//! A part of the cgroup2 hierarchy for one test, and processes to put into it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::super::mounts::mounts;
use super::super::{Finder, Roots};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
pub(super) const OTHER: &str = "72f7f152-440c-66ac-9084-e0fc1d8a910c";
pub(super) const CID: &str = "9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961";

/// Removed, with what is in it, when the test has ended in whatever way.
pub(super) struct Subtree {
    pub(super) path: PathBuf,
}

impl Subtree {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("outrigger-agent-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
        let mount = mounts().expect("cgroup2 is mounted").remove(0);
        let path = mount.at.join(name);
        fs::create_dir(&path).expect("a cgroup: run as root");
        Self { path }
    }

    pub(super) fn make(&self, below: &str) -> PathBuf {
        let path = self.path.join(below);
        fs::create_dir_all(&path).expect("cgroups");
        path
    }

    /// With the directory `pods` for pods made by hand.
    pub(super) fn roots(&self) -> Roots {
        let plain = self.path.join("pods");
        Roots::below(vec![self.path.clone()], &[plain]).expect("below the mount")
    }

    pub(super) fn finder(&self) -> Finder {
        Finder::new(self.roots()).expect("namespaces of the host")
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let events = self.path.join("cgroup.events");
        let start = Instant::now();
        while fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1"))
            && start.elapsed() < PATIENCE
        {
            thread::yield_now();
        }
        remove(&self.path);
    }
}

/// A cgroup and those below.
pub(super) fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    if let Err(error) = fs::remove_dir(path) {
        eprintln!("{} is left behind: {error}", path.display());
    }
}

/// A process that does nothing, killed at the latest when the test ends.
pub(super) struct Process(Child);

impl Process {
    /// In the network namespace of the test.
    pub(super) fn of_host() -> Self {
        Self::run("sleep infinity")
    }

    /// In one of its own.
    pub(super) fn isolated() -> Self {
        let process = Self::run("unshare --net sleep infinity");
        eventually("a namespace of its own", || process.netns() != netns("self"));
        process
    }

    /// In the namespace of another.
    pub(super) fn beside(other: &Self) -> Self {
        let process = Self::run(&format!(
            "nsenter --net=/proc/{}/ns/net sleep infinity",
            other.pid()
        ));
        eventually("the other's namespace", || process.netns() == other.netns());
        process
    }

    /// Enters one of its own when it is told.
    pub(super) fn about_to_start() -> Self {
        Self::spawn(Command::new("sh").args(["-c", "read go; exec unshare --net sleep infinity"]))
    }

    pub(super) fn spawn(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("the command is installed"))
    }

    pub(super) fn run(command: &str) -> Self {
        let mut words = command.split(' ');
        Self::spawn(Command::new(words.next().expect("a command")).args(words))
    }

    /// This test once more, by way of a command, told so by an environment variable.
    pub(super) fn again(command: &str, key: &str, value: impl AsRef<OsStr>) -> Self {
        let name = thread::current().name().expect("of the test").to_owned();
        let mut words = command.split(' ');
        let mut command = Command::new(words.next().expect("a command"));
        command.args(words).arg(env::current_exe().expect("this binary"));
        command.args([&name, "--exact", "--nocapture"]).env(key, value);
        Self::spawn(&mut command)
    }

    pub(super) fn go(&mut self) {
        let stdin = self.0.stdin.as_mut().expect("piped");
        stdin.write_all(b"go\n").expect("it reads");
    }

    pub(super) fn says(&mut self, word: &str) {
        let out = BufReader::new(self.0.stdout.take().expect("piped"));
        let said = out.lines().map_while(Result::ok).any(|line| line.contains(word));
        assert!(said, "it has ended without {word}");
    }

    pub(super) fn enter(self, cgroup: &Path) -> Self {
        fs::write(cgroup.join("cgroup.procs"), self.pid().to_string()).expect("enter the cgroup");
        self
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn netns(&self) -> Option<u64> {
        netns(&self.pid().to_string())
    }

    pub(super) fn end(mut self) {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone after `end`.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn netns(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .ok()
        .map(|file| file.ino())
}

/// Waits for something that is bound to happen.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}
