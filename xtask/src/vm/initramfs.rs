//! The guest's whole file system, as the archive that its kernel unpacks into memory: our programs, a few of the host's
//! with their libraries, the kernel's modules, and `init.sh`. What runs in there is decided in `suites.rs`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::kernel::Kernel;
use super::programs::Built;
use super::suites::Step;
use crate::workspace::{self, find_program};

const INIT: &str = include_str!("init.sh");

/// Mount points and other places that programs expect.
const DIRECTORIES: &[&str] = &[
    "/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/etc", "/applets",
];

/// What tests run of the host's: busybox has these too, but understands less.
const PROGRAMS: &[&str] = &["busybox", "ip", "nsenter", "setpriv", "sleep"];

/// In the order of loading: each after those it needs.
const MODULES: &[&str] = &[
    "net/llc/llc",
    "net/802/stp",
    "net/bridge/bridge",
    "drivers/net/veth",
    "net/ipv4/inet_diag",
    "net/ipv4/tcp_diag",
];

/// What the kernel opens for the first process.
const CONSOLE: (&str, (u32, u32)) = ("/dev/console", (5, 1));

/// Writes the archive to `path`.
pub(super) fn pack(path: &Path, kernel: &Kernel, built: &Built, script: &str) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    fill(&mut archive, kernel, built, script)
        .and_then(|()| Ok(archive.finish()?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

fn fill(archive: &mut Archive<BufWriter<File>>, kernel: &Kernel, built: &Built, script: &str) -> Result<()> {
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    archive.character_device(CONSOLE.0, CONSOLE.1)?;
    archive.file("/init", INIT.as_bytes())?;
    archive.file("/steps.sh", script.as_bytes())?;

    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let path = find_program(name).with_context(|| format!("the guest needs `{name}` of this machine"))?;
        archive.file(&format!("/bin/{name}"), &read(&path)?)?;
        libraries.extend(libraries_of(&path));
    }
    for program in &built.programs {
        archive.file(
            &format!("/outrigger/bin/{}", program.file_name()),
            &read(&program.path)?,
        )?;
        libraries.extend(libraries_of(&program.path));
    }
    for library in libraries {
        archive.file(&library.to_string_lossy(), &read(&library)?)?;
    }
    for (order, module) in MODULES.iter().enumerate() {
        let Some(file) = kernel.module(module)? else {
            continue;
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("/modules/{order}-{name}"), &read(&file)?)?;
    }
    Ok(())
}

/// What `init.sh` reads in the end: a line a step.
pub(super) fn script(steps: &[Step]) -> String {
    steps
        .iter()
        .map(|step| {
            let words = step.command.iter().map(|word| format!(" '{word}'"));
            format!(
                "step '{}' {}{}\n",
                step.name,
                step.seconds,
                words.collect::<String>()
            )
        })
        .collect()
}

/// Where the dynamic loader finds what a program needs; nothing for a static one.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let list = workspace::ask(Command::new("ldd").arg(program)).unwrap_or_default();
    loaded(&list)
}

/// `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, and what the kernel brings itself.
fn loaded(list: &str) -> Vec<PathBuf> {
    list.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_taken_from_where_the_loader_finds_them() {
        let list = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            loaded(list),
            [
                Path::new("/lib/x/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert_eq!(loaded("\tstatically linked\n"), [] as [PathBuf; 0]);
    }

    #[test]
    fn each_step_is_one_line_of_the_script() {
        let step = Step {
            name: "end to end",
            seconds: 60,
            command: vec![
                "e2e-tests".to_owned(),
                "--exact".to_owned(),
                "truth::a".to_owned(),
            ],
            tests: 1,
        };
        assert_eq!(
            script(&[step]),
            "step 'end to end' 60 'e2e-tests' '--exact' 'truth::a'\n"
        );
    }
}
