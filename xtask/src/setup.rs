//! `cargo xtask setup`: installs what building, testing and the demo need, and nothing that is there already.
//!
//! The table of programs is here; `apt` installs packages and `bpf` pairs the BPF compiler with its linker.
//! It starts no service, now or at the next boot, and it does not touch rustup's toolchains:
//! rustup itself brings the one that `rust-toolchain.toml` names.

mod apt;
mod bpf;
mod tools;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{fmt, fs};

use anyhow::{Context, Result};

pub(crate) use self::apt::apt_get;
use crate::workspace::{self, announce, find_program};

#[derive(clap::Args)]
pub(crate) struct Opts {
    /// Only say what is missing; fail if anything is.
    #[arg(long)]
    check: bool,
}

/// A third-party program that tests or the demo run, unmodified.
struct Program {
    /// Its name, or a path where it must be that very one or is not on any `PATH`; a `*` stands for any version.
    name: &'static str,
    /// The Debian package that brings it.
    package: &'static str,
    why: &'static str,
    /// What the package would start at boot; nobody asked for that, so it is disabled once installed.
    service: Option<&'static str>,
}

const PROGRAMS: &[Program] = &[
    program("ip", "iproute2", "namespaces, links and addresses of test pods"),
    program("tcpdump", "tcpdump", "proof of what crosses the wire"),
    program("curl", "curl", "an HTTP client"),
    service("nginx", "nginx-light", "an HTTP server", "nginx"),
    service(
        "redis-server",
        "redis-server",
        "a server that is silent until asked",
        "redis-server",
    ),
    program("redis-cli", "redis-tools", "a Redis client"),
    program(
        "/usr/bin/python3",
        "python3",
        "scripted ends of a connection: resets, half-closes, crowds",
    ),
    program(
        "/usr/bin/aiosmtpd",
        "python3-aiosmtpd",
        "a server that speaks first",
    ),
    service(
        "/usr/lib/postgresql/*/bin/postgres",
        "postgresql",
        "a database server",
        "postgresql",
    ),
    program("psql", "postgresql-client", "a database client"),
    program("iperf3", "iperf3", "bulk transfers"),
    service(
        "vsftpd",
        "vsftpd",
        "a server that announces its own address",
        "vsftpd",
    ),
    program("lftp", "lftp", "an FTP client"),
    program("msmtp", "msmtp", "an SMTP client"),
    program(
        "/usr/lib/python3/dist-packages/grpc/__init__.py",
        "python3-grpcio",
        "gRPC, client and server",
    ),
    program("javac", "openjdk-17-jdk-headless", "network clients of a JVM"),
    program("go", "golang-go", "network clients and servers of Go"),
    program("openssl", "openssl", "a TLS client that shows certificates"),
    program(
        "systemd-analyze",
        "systemd",
        "what systemd thinks of the units, and the first process of a machine that runs them",
    ),
    service(
        "/usr/bin/prometheus",
        "prometheus",
        "what scrapes metrics, and promtool, which tests its rules",
        "prometheus",
    ),
    program("setpriv", "util-linux", "a program with fewer rights"),
    program("ps", "procps", "facts about running programs"),
    program(
        "qemu-system-x86_64",
        "qemu-system-x86",
        "an emulated machine, to test other kernels on",
    ),
    program("busybox", "busybox-static", "the first programs in that machine"),
];

const fn program(name: &'static str, package: &'static str, why: &'static str) -> Program {
    Program {
        name,
        package,
        why,
        service: None,
    }
}

const fn service(
    name: &'static str,
    package: &'static str,
    why: &'static str,
    unit: &'static str,
) -> Program {
    Program {
        name,
        package,
        why,
        service: Some(unit),
    }
}

impl Program {
    fn is_there(&self) -> bool {
        if let Some((dir, rest)) = self.name.split_once("/*/") {
            let mut versions = fs::read_dir(dir).into_iter().flatten().flatten();
            versions.any(|version| version.path().join(rest).exists())
        } else if self.name.starts_with('/') {
            Path::new(self.name).exists()
        } else {
            find_program(self.name).is_some()
        }
    }
}

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    let missing = Missing::find()?;
    if missing.is_empty() {
        println!("Everything is there; {}.", bpf::describe()?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("Missing on this machine:\n{missing}");
    if opts.check {
        return Ok(ExitCode::FAILURE);
    }
    missing.install()?;
    println!("Everything is there now; {}.", bpf::describe()?);
    Ok(ExitCode::SUCCESS)
}

/// Sets up what is missing, for chores that need it. Silent and quick when nothing is.
pub(crate) fn ensure() -> Result<()> {
    let missing = Missing::find()?;
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Missing on this machine:\n{missing}");
    missing.install()
}

/// Installs packages that one chore alone needs, unless they are there.
pub(crate) fn ensure_packages(packages: &[&str]) -> Result<()> {
    let is_there = |package: &&str| {
        let said = workspace::ask(Command::new("dpkg-query").args([
            "--show",
            "--showformat=${db:Status-Status}",
            package,
        ]));
        said.is_some_and(|status| status == "installed")
    };
    let missing: Vec<_> = packages
        .iter()
        .copied()
        .filter(|package| !is_there(package))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        apt::install(&missing)
    }
}

/// Builds `cargo deny` unless it is there. Only the gates need it, so `setup` leaves it out.
pub(crate) fn ensure_cargo_deny() -> Result<()> {
    let tool = tools::CARGO_DENY;
    if tool.is_there() { Ok(()) } else { tool.install() }
}

/// Builds `cargo fuzz` unless it is there. Only `cargo xtask fuzz` needs it.
pub(crate) fn ensure_cargo_fuzz() -> Result<()> {
    let tool = tools::CARGO_FUZZ;
    if tool.is_there() { Ok(()) } else { tool.install() }
}

struct Missing {
    programs: Vec<&'static Program>,
    /// No compiler builds for the BPF target.
    compiler: bool,
    linker: Option<tools::Tool>,
}

impl Missing {
    fn find() -> Result<Self> {
        let programs = PROGRAMS.iter().filter(|program| !program.is_there()).collect();
        // A linker is chosen by its compiler, so without one it is not known yet which is missing.
        let compiler = bpf::Compiler::find();
        let linker = compiler.as_ref().map(bpf::Compiler::linker).transpose()?;
        Ok(Self {
            programs,
            compiler: compiler.is_none(),
            linker: linker.filter(|linker| !linker.is_there()),
        })
    }

    fn is_empty(&self) -> bool {
        self.programs.is_empty() && !self.compiler && self.linker.is_none()
    }

    fn install(self) -> Result<()> {
        let begun = Instant::now();
        let packages: Vec<_> = self.packages().map(|(package, _)| package).collect();
        if !packages.is_empty() {
            apt::install(&packages)?;
            apt::disable_services(self.programs.iter().filter_map(|program| program.service))?;
        }
        let linker = bpf::Compiler::find().context(bpf::NO_COMPILER)?.linker()?;
        if !linker.is_there() {
            linker.install()?;
        }
        announce(&format!("set up in {:.0} s", begun.elapsed().as_secs_f32()));
        Ok(())
    }

    fn packages(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let compiler = bpf::PACKAGES.into_iter().filter(|_| self.compiler);
        self.programs
            .iter()
            .map(|program| (program.package, program.why))
            .chain(compiler)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (package, why) in self.packages() {
            writeln!(f, "  {package:<24} {why}")?;
        }
        match self.linker {
            Some(linker) => writeln!(f, "  {:<24} {}", linker.name, linker.why),
            None if self.compiler => {
                writeln!(f, "  {:<24} links what this compiler makes", "bpf-linker")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_program_is_listed_once() {
        let names: BTreeSet<_> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names.len(), PROGRAMS.len());
    }

    #[test]
    fn what_is_missing_is_listed_with_its_reason() {
        let missing = Missing {
            programs: vec![&PROGRAMS[1]],
            compiler: false,
            linker: None,
        };
        assert!(!missing.is_empty());
        assert_eq!(
            missing.to_string(),
            format!("  {:<24} proof of what crosses the wire\n", "tcpdump")
        );
    }

    #[test]
    fn without_a_compiler_its_linker_is_announced_too() {
        let missing = Missing {
            programs: Vec::new(),
            compiler: true,
            linker: None,
        };
        let text = missing.to_string();
        assert!(!missing.is_empty());
        assert!(
            text.contains("rustc-web") && text.contains("bpf-linker"),
            "{text}"
        );
    }

    #[test]
    fn a_path_names_that_very_program_in_any_version() {
        assert!(program("/bin/sh", "dash", "").is_there());
        assert!(!program("/nowhere/sh", "dash", "").is_there());
        assert!(program("/proc/*/stat", "", "").is_there());
        assert!(!program("/proc/*/no-such-program", "", "").is_there());
        assert!(!program("/nowhere/*/sh", "", "").is_there());
    }
}
