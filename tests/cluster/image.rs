//! `deploy/images/Containerfile`, by a builder of images that is not ours, and the image that pods of the cluster start from: they are
//! the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::chart;
use serde_json::Value;

use crate::common::cluster;

/// More would mean that something came in that nobody needs.
const LARGEST: u64 = 30_000_000;

/// A directory for one test, away with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-image-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("start {program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is in an archive of an OCI layout: its configuration, and its files as one list.
#[derive(Debug, PartialEq)]
struct Content {
    architecture: Value,
    os: Value,
    user: Value,
    entrypoint: Value,
    directory: Value,
    labels: Value,
    /// Path, mode, owner, digest.
    files: Vec<(PathBuf, u32, (u32, u32), String)>,
}

fn content(archive: &str, scratch: &Scratch, name: &str) -> Content {
    let layout = scratch.join(&format!("{name}.layout"));
    let root = scratch.join(&format!("{name}.root"));
    fs::create_dir_all(&layout).unwrap();
    fs::create_dir_all(&root).unwrap();
    run("tar", &["-xf", archive, "-C", &layout]);
    let json = |path: String| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |described: &Value| {
        let digest = described["digest"].as_str().unwrap();
        format!(
            "{layout}/blobs/sha256/{}",
            digest.strip_prefix("sha256:").unwrap()
        )
    };
    let index = json(format!("{layout}/index.json"));
    let manifest = json(blob(&index["manifests"][0]));
    let config = json(blob(&manifest["config"]));
    for layer in manifest["layers"].as_array().unwrap() {
        run("tar", &["--same-owner", "-xf", &blob(layer), "-C", &root]);
    }
    let mut files = Vec::new();
    list(Path::new(&root), Path::new(&root), &mut files);
    files.sort();
    let of = |field: &str| config["config"][field].clone();
    Content {
        architecture: config["architecture"].clone(),
        os: config["os"].clone(),
        user: of("User"),
        entrypoint: of("Entrypoint"),
        directory: of("WorkingDir"),
        labels: of("Labels"),
        files,
    }
}

fn list(root: &Path, dir: &Path, files: &mut Vec<(PathBuf, u32, (u32, u32), String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            list(root, &path, files);
            continue;
        }
        let digest = run("sha256sum", &[&path.display().to_string()]);
        let digest = digest.split(' ').next().unwrap().to_owned();
        let place = path.strip_prefix(root).unwrap().to_owned();
        files.push((place, meta.mode(), (meta.uid(), meta.gid()), digest));
    }
}

/// Someone tries out programs that are no release, which are larger.
fn is_of_another_build() -> bool {
    std::env::var_os("OUTRIGGER_BIN_DIR").is_some()
}

#[test]
fn the_containerfile_builds_the_image_that_pods_of_the_cluster_start_from() {
    let scratch = Scratch::new();
    let root = chart::root();
    let storage = [
        "--root",
        &scratch.join("storage"),
        "--runroot",
        &scratch.join("run"),
        "--storage-driver=vfs",
    ];
    let file = root.join("deploy/images/Containerfile").display().to_string();
    // Beside the cluster's programs, where `cargo xtask image` puts the files.
    let built = cluster().programs.ancestors().nth(2).unwrap();
    let context = built.join("image").display().to_string();
    let archive = scratch.join("built.tar");
    let of_pods = built.join("cluster/images/outrigger.tar").display().to_string();
    let ours = content(&of_pods, &scratch, "ours");
    let platform = format!("linux/{}", ours.architecture.as_str().unwrap());
    let build = [
        "build",
        "--isolation=chroot",
        "--tag=outrigger",
        // Otherwise buildah adds a label with its own version.
        "--identity-label=false",
        "--platform",
        &platform,
        "--file",
        &file,
        &context,
    ];
    run("buildah", &[&storage[..], &build].concat());
    let push = ["push", "outrigger", &format!("oci-archive:{archive}")];
    run("buildah", &[&storage[..], &push].concat());

    assert_eq!(content(&archive, &scratch, "built"), ours);
    assert_eq!(ours.user, "65532:65532");
    let version = &ours.labels["org.opencontainers.image.version"];
    assert_eq!(*version, env!("CARGO_PKG_VERSION"), "{}", ours.labels);
    let programs = ours.files.iter().filter(|(path, ..)| path.starts_with("usr/bin"));
    let programs: Vec<_> = programs.map(|(path, ..)| path.display().to_string()).collect();
    assert_eq!(programs, ["usr/bin/kubectl-outrigger", "usr/bin/outrigger"]);
    let size = fs::metadata(&of_pods).unwrap().len();
    assert!(
        size < LARGEST || is_of_another_build(),
        "{size} bytes in {:?}",
        ours.files
    );
}
