//! Debian's kernels for the guest: the newest package of a series, downloaded and unpacked, never installed. Boots
//! nothing.
//!
//! A package that is there already is used as it is; remove its directory below `target/vm` to get a newer one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;
use crate::workspace::{self, announce, find_program};

/// A series of kernels: packages that differ only in the number between prefix and suffix.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    prefix: &'static str,
    suffix: &'static str,
}

/// The cloud kernels of Debian 12: the stable one, and the newer one that Debian keeps beside it.
pub(super) const SERIES: [Series; 2] = [
    Series {
        name: "6.1",
        prefix: "linux-image-6.1.0-",
        suffix: "-cloud-amd64",
    },
    Series {
        name: "6.12",
        prefix: "linux-image-6.12.",
        suffix: "+deb12-cloud-amd64",
    },
];

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) image: PathBuf,
    modules: PathBuf,
}

/// Unpacks the newest kernel of the series below `dir`, unless one is there.
pub(super) fn provide(series: &Series, dir: &Path) -> Result<Kernel> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let there = fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    if let Some(package) = series.newest(there) {
        return Kernel::unpacked(&dir.join(package));
    }
    ensure!(
        find_program("apt-cache").is_some(),
        "the kernel {} is a package of Debian 12, and this is not a Debian system (no apt-cache)",
        series.name
    );
    let package = match series.known() {
        Some(package) if download(&package, dir).is_ok() => package,
        // The lists of packages are missing, or so old that the package is gone.
        _ => {
            announce("apt-get update");
            workspace::run(setup::apt_get().args(["-qq", "update"]))?;
            let package = series.known().with_context(|| {
                format!(
                    "no package {}*{} is known to apt: Debian 12 has it, with its security updates among the sources",
                    series.prefix, series.suffix
                )
            })?;
            download(&package, dir)?;
            package
        }
    };
    Kernel::unpacked(&dir.join(package))
}

impl Series {
    /// What apt knows.
    fn known(&self) -> Option<String> {
        let names = workspace::ask(Command::new("apt-cache").args(["pkgnames", self.prefix]))?;
        self.newest(names.lines().map(str::to_owned))
    }

    fn newest(&self, packages: impl Iterator<Item = String>) -> Option<String> {
        packages
            .filter_map(|package| Some((self.number(&package)?, package)))
            .max()
            .map(|(_, package)| package)
    }

    fn number(&self, package: &str) -> Option<u32> {
        let number = package.strip_prefix(self.prefix)?.strip_suffix(self.suffix)?;
        number.parse().ok()
    }
}

/// Downloads and unpacks; the directory appears only when it is complete.
fn download(package: &str, dir: &Path) -> Result<()> {
    announce(&format!("apt-get download {package}"));
    let partial = dir.join(format!("{package}.partial"));
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", partial.display()));
        }
        _ => {}
    }
    let tree = partial.join("tree");
    fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
    // apt's own user may not write here, and root need not either.
    workspace::run(setup::apt_get().current_dir(&partial).args([
        "-qq",
        "-o",
        "APT::Sandbox::User=root",
        "download",
        package,
    ]))?;
    let file = fs::read_dir(&partial)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get left no package in {}", partial.display()))?;
    workspace::run(Command::new("dpkg-deb").arg("--extract").args([&file, &tree]))?;
    fs::rename(&tree, dir.join(package)).with_context(|| format!("cannot name {package}"))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

impl Kernel {
    fn unpacked(dir: &Path) -> Result<Self> {
        const IMAGE: &str = "vmlinuz-";
        let boot = dir.join("boot");
        let release = fs::read_dir(&boot)
            .with_context(|| format!("{} is no unpacked kernel; remove it", dir.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .find_map(|name| Some(name.strip_prefix(IMAGE)?.to_owned()))
            .with_context(|| format!("no kernel image is in {}", boot.display()))?;
        Ok(Self {
            image: boot.join(format!("{IMAGE}{release}")),
            modules: dir.join("lib/modules").join(&release),
            release,
        })
    }

    /// The file of a module, compressed or not, and `None` when it is part of the kernel image.
    pub(super) fn module(&self, path: &str) -> Result<Option<PathBuf>> {
        let module = format!("kernel/{path}.ko");
        let plain = self.modules.join(&module);
        let compressed = self.modules.join(format!("{module}.xz"));
        if let Some(file) = [plain, compressed].into_iter().find(|file| file.exists()) {
            return Ok(Some(file));
        }
        let builtin = fs::read_to_string(self.modules.join("modules.builtin")).unwrap_or_default();
        if builtin.lines().any(|line| line == module) {
            return Ok(None);
        }
        bail!("{} has no module {module}", self.release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_chosen_by_number_and_not_by_name() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64.partial",
            "linux-image-6.1.0-99-cloud-amd64-dbg",
            "linux-image-6.1.0-99-rt-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ];
        let names = || names.iter().map(|name| (*name).to_owned());
        assert_eq!(
            SERIES[0].newest(names()).as_deref(),
            Some(names().nth(1).unwrap().as_str())
        );
        assert_eq!(
            SERIES[1].newest(names()).as_deref(),
            Some(names().nth(5).unwrap().as_str())
        );
        assert_eq!(SERIES[0].newest(std::iter::empty()), None);
    }
}
