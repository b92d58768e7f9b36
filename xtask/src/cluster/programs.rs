//! Builds the cluster's programs from their Go modules, once: `tests/cluster/modules` says which versions, by checksum.
//!
//! Each program is put in its place whole, with the digest of all that it was made from beside it; what is there and right is not
//! built again. Go's own cache lets an interrupted build go on where it stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::go::Go;

use crate::workspace::{self, announce};
use crate::{progress, setup};

/// What they need beside Go: C for runc's seccomp filters, and the plugins that connect containers. And a builder of images that is not
/// ours, for the test of our Containerfile.
const PACKAGES: [&str; 6] = [
    "buildah",
    "containernetworking-plugins",
    "gcc",
    "libc6-dev",
    "libseccomp-dev",
    "pkg-config",
];

pub(super) const KUBERNETES: &str = "v1.36.4";

/// Built one after the other by one `go build` each, which uses every core.
struct Program {
    name: &'static str,
    /// A directory of `tests/cluster/modules`.
    module: &'static str,
    package: &'static str,
    c: bool,
}

const fn program(name: &'static str, module: &'static str, package: &'static str) -> Program {
    Program {
        name,
        module,
        package,
        c: false,
    }
}

const PROGRAMS: [Program; 12] = [
    program(
        "kube-apiserver",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-apiserver",
    ),
    program(
        "kube-controller-manager",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
    ),
    program(
        "kube-scheduler",
        "kubernetes",
        "k8s.io/kubernetes/cmd/kube-scheduler",
    ),
    program("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    program(
        "containerd",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd",
    ),
    program(
        "containerd-shim-runc-v2",
        "containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    program("ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    Program {
        name: "runc",
        module: "runc",
        package: "github.com/opencontainers/runc",
        c: true,
    },
    program("coredns", "coredns", "github.com/coredns/coredns"),
    HELM,
];

/// No part of the cluster: it installs what is ours.
const HELM: Program = program("helm", "helm", "helm.sh/helm/v4/cmd/helm");

pub(super) struct Programs {
    pub(super) dir: PathBuf,
}

impl Programs {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Builds what is not there, and says so.
pub(super) fn build() -> Result<Programs> {
    setup::ensure()?;
    setup::ensure_packages(&PACKAGES)?;
    build_these(&PROGRAMS)
}

/// For who only renders the chart: the other programs take ten minutes.
pub(crate) fn build_helm() -> Result<PathBuf> {
    setup::ensure()?;
    Ok(build_these(&[HELM])?.path(HELM.name))
}

fn build_these(programs: &[Program]) -> Result<Programs> {
    let go = Go::find()?;
    let dir = workspace::target_dir().join(super::CACHE).join("bin");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mut missing = Vec::new();
    for program in programs {
        let key = program.key(&go)?;
        if fs::read_to_string(program.mark(&dir)).is_ok_and(|found| found == key)
            && dir.join(program.name).exists()
        {
            continue;
        }
        missing.push((program, key));
    }
    if !missing.is_empty() {
        announce(&format!(
            "build {} of {} Go programs with {} (all from nothing: about twelve minutes on two cores, 3 GB of modules and 5 GB \
             of Go's build cache)",
            missing.len(),
            programs.len(),
            go.version
        ));
    }
    let begun = Instant::now();
    for (program, key) in &missing {
        program.build(&go, &dir)?;
        fs::write(program.mark(&dir), key)?;
    }
    if !missing.is_empty() {
        announce(&format!("built in {} s", begun.elapsed().as_secs()));
    }
    Ok(Programs { dir })
}

impl Program {
    fn module(&self) -> PathBuf {
        workspace::root().join("tests/cluster/modules").join(self.module)
    }

    fn mark(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.made-from", self.name))
    }

    /// The digest of all that decides what is built.
    fn key(&self, go: &Go) -> Result<String> {
        let mut digest = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = self.module().join(file);
            digest.update(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
        }
        digest.update(&go.version);
        digest.update(self.arguments().join("\n"));
        Ok(format!("{:x}", digest.finalize()))
    }

    fn arguments(&self) -> Vec<String> {
        let mut flags = vec!["-s -w".to_owned()];
        if self.module == "kubernetes" {
            // Without these, `/version` answers with a placeholder that clients misread.
            let (major, minor) = ("1", "36");
            for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
                for (name, value) in [
                    ("gitVersion", KUBERNETES),
                    ("gitMajor", major),
                    ("gitMinor", minor),
                    ("gitTreeState", "clean"),
                ] {
                    flags.push(format!("-X {package}.{name}={value}"));
                }
            }
        }
        let mut arguments: Vec<String> = ["-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]
            .map(str::to_owned)
            .into();
        if self.c {
            arguments.push("-tags=seccomp".into());
        }
        arguments.extend(["-ldflags".into(), flags.join(" "), self.package.into()]);
        arguments
    }

    fn build(&self, go: &Go, dir: &Path) -> Result<()> {
        let begun = Instant::now();
        let new = dir.join(format!("{}.new", self.name));
        let mut command = go.command(&self.module());
        command
            .arg("build")
            .arg("-o")
            .arg(&new)
            .args(self.arguments())
            .env("CGO_ENABLED", if self.c { "1" } else { "0" });
        progress::run(self.name, command, |lines| {
            format!("{lines} packages downloaded or compiled")
        })?;
        let place = dir.join(self.name);
        fs::rename(&new, &place).with_context(|| format!("write {}", place.display()))?;
        let size = place.metadata()?.len() / 1_000_000;
        eprintln!("    {}: {size} MB in {} s", self.name, begun.elapsed().as_secs());
        Ok(())
    }
}

/// For a program that only has to run.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("start {line}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{line}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
