//! Images of unmodified third-party programs, unpacked from Debian's packages with all that those depend on. Runs none of their
//! maintainers' scripts: what a program needs beside its files its test brings along.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::layout::Image;
use crate::cluster::programs::quietly;
use crate::setup;
use crate::workspace::{self, announce};

/// An image `outrigger.example/test/<name>:local`.
struct Debian {
    name: &'static str,
    packages: &'static [&'static str],
}

const IMAGES: [Debian; 4] = [
    Debian {
        name: "outrigger.example/test/nginx:local",
        packages: &["nginx-light"],
    },
    Debian {
        name: "outrigger.example/test/redis:local",
        packages: &["redis-server"],
    },
    Debian {
        name: "outrigger.example/test/postgres:local",
        packages: &["postgresql-15"],
    },
    // All the clients.
    Debian {
        name: "outrigger.example/test/client:local",
        packages: &[
            "curl",
            "iperf3",
            "iproute2",
            "netcat-openbsd",
            "postgresql-client-15",
            "redis-tools",
        ],
    },
];

/// In each of them: no package says that it needs these, for Debian is never without.
const ALWAYS: [&str; 3] = ["coreutils", "dash", "libc-bin"];

/// Only people look at these.
const LEFT_OUT: [&str; 6] = [
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
];

/// Packages whose names begin so: what maintainers' scripts run, and the compiler of PostgreSQL's queries, which does without. They
/// are more than all the rest.
const UNNEEDED: [&str; 6] = ["debconf", "libllvm", "libperl", "libz3", "locales", "perl"];

const USERS: &str = "root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
redis:x:101:101:redis:/var/lib/redis:/usr/sbin/nologin
postgres:x:102:102:postgres:/var/lib/postgresql:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUPS: &str = "root:x:0:\nadm:x:4:\nwww-data:x:33:\nredis:x:101:\npostgres:x:102:\nnogroup:x:65534:\n";

pub(super) fn build(dir: &Path) -> Result<Vec<PathBuf>> {
    IMAGES.iter().map(|image| image.build(dir)).collect()
}

impl Debian {
    fn build(&self, dir: &Path) -> Result<PathBuf> {
        let image = Image {
            name: self.name,
            user: "0:0",
            entrypoint: &[],
            labels: &[],
        };
        let made_from = format!(
            "{:?}{ALWAYS:?}{UNNEEDED:?}{LEFT_OUT:?}{USERS}{GROUPS}",
            self.packages
        );
        image.build(dir, &made_from, |root| {
            announce(&format!(
                "{} from Debian's {}",
                self.name,
                self.packages.join(", ")
            ));
            // Merged as on any Debian of today, or a package's /bin would be another directory than /usr/bin.
            for name in ["bin", "sbin", "lib", "lib64"] {
                fs::create_dir_all(root.join("usr").join(name))?;
                symlink(Path::new("usr").join(name), root.join(name))?;
            }
            for archive in self.download(&dir.join("packages"))? {
                unpack(&archive, root)?;
            }
            for name in LEFT_OUT {
                let _ = fs::remove_dir_all(root.join(name));
            }
            fs::create_dir_all(root.join("etc"))?;
            fs::write(root.join("etc/passwd"), USERS)?;
            fs::write(root.join("etc/group"), GROUPS)?;
            for name in ["tmp", "run", "var/tmp"] {
                fs::create_dir_all(root.join(name))?;
                fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777))?;
            }
            Ok(())
        })
    }

    /// The packages and all that they need, as apt works it out for a system on which nothing is installed.
    fn download(&self, archives: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(archives.join("partial"))?;
        // What is downloaded already is not listed, so nothing is while it is asked for the list.
        let empty = archives.join("empty");
        fs::create_dir_all(empty.join("partial"))?;
        let nothing = archives.join("nothing-installed");
        fs::write(&nothing, "")?;
        let apt = |cache: &Path, action: &str| {
            let mut command = setup::apt_get();
            command
                .args(["-qq", "--yes", "--no-install-recommends"])
                .args(["-o", &format!("Dir::State::status={}", nothing.display())])
                .args(["-o", &format!("Dir::Cache::archives={}", cache.display())])
                .args(["-o", "APT::Sandbox::User=root"])
                .arg(action)
                .arg("install")
                .args(self.packages)
                .args(ALWAYS);
            command
        };
        let listed = |command: &mut Command| workspace::ask(command).filter(|text| !text.is_empty());
        let list = match listed(&mut apt(&empty, "--print-uris")) {
            Some(list) => list,
            None => {
                quietly(setup::apt_get().args(["-qq", "update"]))?;
                listed(&mut apt(&empty, "--print-uris"))
                    .with_context(|| format!("apt-get finds no {}", self.packages.join(" or ")))?
            }
        };
        quietly(&mut apt(archives, "--download-only"))?;
        // Lines of: 'uri' file size digest.
        let files = list.lines().filter_map(|line| line.split(' ').nth(1));
        let needed = files.filter(|file| !UNNEEDED.iter().any(|name| file.starts_with(name)));
        Ok(needed.map(|file| archives.join(file)).collect())
    }
}

/// `dpkg-deb --extract` would put a directory in the place of a symbolic link.
fn unpack(archive: &Path, root: &Path) -> Result<()> {
    let script = "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --keep-directory-symlink --directory \"$2\"";
    quietly(
        Command::new("sh")
            .args(["-c", script, "unpack"])
            .arg(archive)
            .arg(root),
    )
}
