//! The nine attachments: where each program goes, and how a link that is already pinned gets the new program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::{Program, ProgramError, loaded_programs};
use nix::libc;
use sidecar_ebpf::abi::{GENERATIONS, program};

use super::super::sys::{self, Scope, Target};
use super::super::{Error, PodTarget, capabilities};
use super::pins;

/// A program and the kernel's number of its hook.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Hook {
    pub(in super::super) program: &'static str,
    /// The kernel checks only the program's type when it updates a link, so this is compared here.
    pub(in super::super) attach_type: u32,
}

/// In the order of attaching: what serves redirected connections comes before what redirects, and what finds a listener
/// before what publishes a connection, so that beside the programs of an earlier proxy one connection has one proxy.
pub(in super::super) const HOOKS: [Hook; 9] = [
    hook(program::GETPEERNAME4, 29),
    hook(program::GETPEERNAME6, 30),
    hook(program::GETSOCKNAME4, 31),
    hook(program::GETSOCKNAME6, 32),
    hook(program::GETSOCKOPT, 21),
    hook(program::SK_LOOKUP, SK_LOOKUP),
    hook(program::SOCKOPS, 3),
    hook(program::CONNECT4, 10),
    hook(program::CONNECT6, 11),
];
/// Attached beside them where the proxy of the pod may not call bpf(2).
pub(in super::super) const CONTROL: Hook = hook(program::SETSOCKOPT, 22);
pub(in super::super) const SK_LOOKUP: u32 = 36;
/// Between the name of a hook and a generation: the one of an earlier proxy, which serves on.
const FORMER: &str = "_former";

const fn hook(program: &'static str, attach_type: u32) -> Hook {
    Hook { program, attach_type }
}

/// What the hooks of a pod are attached to.
impl PodTarget {
    fn expected(&self, hook: Hook) -> Target {
        if hook.attach_type == SK_LOOKUP {
            self.expected_netns()
        } else {
            Target::Cgroup(self.cgroup_id())
        }
    }

    fn expected_netns(&self) -> Target {
        Target::Netns(u32::try_from(self.netns().inode()).expect("namespace inodes have 32 bits"))
    }

    pub(super) fn fd(&self, hook: Hook) -> BorrowedFd<'_> {
        if hook.attach_type == SK_LOOKUP {
            self.netns().as_fd()
        } else {
            self.cgroup()
        }
    }

    pub(super) fn path(&self, hook: Hook) -> &Path {
        if hook.attach_type == SK_LOOKUP {
            self.netns().path()
        } else {
            self.cgroup_path()
        }
    }
}

/// Refuses pins that hold on to another pod which is still there: replacing them would set it free.
pub(super) fn check_pins(pins: &Path, target: &PodTarget) -> Result<(), Error> {
    for pin in pins::links(pins)? {
        let Some((_, found)) = open(&pin)? else { continue };
        let held = found.target();
        let hook = HOOKS
            .into_iter()
            .chain([CONTROL])
            .find(|hook| pin.ends_with(hook.program));
        let expected = match (hook, held) {
            (Some(hook), _) => target.expected(hook),
            // A hook of another version, to be removed: what is left to compare is the pod.
            (None, Target::Cgroup(_)) => Target::Cgroup(target.cgroup_id()),
            (None, Target::Netns(_)) => target.expected_netns(),
            (None, Target::Other(_)) => continue,
        };
        let is_same = held == expected && hook.is_none_or(|hook| hook.attach_type == found.attach_type());
        if !is_severed(held) && !is_same {
            return Err(Error::OtherTarget {
                pin,
                pins: pins.into(),
                expected: describe(expected),
                found: describe(held),
            });
        }
    }
    Ok(())
}

/// Detaches and removes the links of hooks that this version does not have, because it calls them otherwise or has given
/// them up. Once its own are attached: until then the others may be all that keeps the pod from being open.
///
/// What is set aside stays: see [`put_away`].
pub(super) fn remove_others(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    let aside: Vec<PathBuf> = all_formers(pins).collect();
    let hooks = || HOOKS.iter().chain([&CONTROL]);
    let is_ours = |pin: &PathBuf| aside.contains(pin) || hooks().any(|hook| pin.ends_with(hook.program));
    let others = pins::links(pins)?.into_iter().filter(|pin| !is_ours(pin));
    let removed = others.map(|pin| remove(&pin));
    removed.filter_map(Result::transpose).collect()
}

/// Detaches and removes every link, of whatever version.
pub(super) fn remove_all(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = remove_hooks(pins)?;
    removed.extend(remove(&pins::link(pins, CONTROL.program))?);
    Ok(removed)
}

/// As [`remove_all`], without the control path, which does nothing for anybody but the proxy.
pub(super) fn remove_hooks(pins: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut removed = remove_others(pins)?;
    for former in all_formers(pins) {
        removed.extend(remove(&former)?);
    }
    // What redirects goes first, so that no connection is sent to a proxy that cannot tell where it belongs.
    for hook in HOOKS.iter().rev() {
        removed.extend(remove(&pins::link(pins, hook.program))?);
    }
    Ok(removed)
}

/// The path, if there was a link to remove.
fn remove(pin: &Path) -> Result<Option<PathBuf>, Error> {
    if let Ok(link) = sys::open_pin(pin) {
        match sys::link_detach(link.as_fd()) {
            // A link of a kind that cannot be detached by force, or no link at all, ends with its pin.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                return Err(Error::path("pinned link", pin)(error));
            }
            _ => {}
        }
    }
    pins::remove_file(pin)
}

/// Whether every program is attached to its target already, by pinned links.
pub(super) fn are_attached(pins: &Path, target: &PodTarget) -> Result<bool, Error> {
    for hook in HOOKS {
        match open(&pins::link(pins, hook.program))? {
            Some((_, found)) if found.target() == target.expected(hook) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Attaches the program, or puts it in the place of the one that a pinned link holds.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    hook: Hook,
    target: &PodTarget,
    pins: &Path,
) -> Result<(), Error> {
    let pin = pins::link(pins, hook.program);
    if let Some((link, info)) = open(&pin)? {
        if !is_severed(info.target()) {
            match sys::link_update(link.as_fd(), program) {
                Ok(()) => return Ok(()),
                // Its target went away between the look and the update.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                Err(source) => return Err(Error::Update { pin, source }),
            }
        }
        pins::remove_file(&pin)?;
    }
    let link =
        sys::link_create(program, target.fd(hook), hook.attach_type).map_err(|source| Error::Attach {
            program: hook.program,
            target: target.path(hook).into(),
            offender: offender(&source, hook, target.cgroup_path()),
            source,
        })?;
    sys::pin(link.as_fd(), &pin).map_err(Error::path("pin", &pin))
}

/// Lets the programs of an earlier proxy stay attached beside those to come, under other names. The ones that redirect stay
/// where they are, to be replaced at once: a connection goes to one proxy.
///
/// Where several programs look for a listener, one that finds it wins over one that refuses, and of two that find one the
/// one that was attached last, as it replaces what it is shown (BPF_SK_LOOKUP_F_REPLACE).
pub(super) fn set_aside(pins: &Path, generation: usize) -> Result<(), Error> {
    put_away(pins, generation)?;
    for (pin, former) in formers(pins, generation) {
        match fs::rename(&pin, &former) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(Error::path("pin", &pin))?,
        }
    }
    Ok(())
}

/// Puts what was set aside back, in the place of what has been attached since.
pub(super) fn take_back(pins: &Path, generation: usize) -> Result<(), Error> {
    for (pin, former) in formers(pins, generation).filter(|(_, former)| former.exists()) {
        remove(&pin)?;
        fs::rename(&former, &pin).map_err(Error::path("pin", &former))?;
    }
    Ok(())
}

/// Detaches what was set aside.
pub(super) fn put_away(pins: &Path, generation: usize) -> Result<(), Error> {
    formers(pins, generation).try_for_each(|(_, former)| remove(&former).map(drop))
}

/// Whether anything is set aside.
pub(in super::super) fn is_aside(pins: &Path, generation: usize) -> bool {
    formers(pins, generation).any(|(_, former)| former.exists())
}

/// The pins of the links that are set aside, and where to.
fn formers(pins: &Path, generation: usize) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let stay = [program::CONNECT4, program::CONNECT6];
    let aside = HOOKS
        .into_iter()
        .filter(move |hook| !stay.contains(&hook.program));
    aside.map(move |hook| {
        let former = format!("{}{FORMER}{generation}", hook.program);
        (pins::link(pins, hook.program), pins::link(pins, &former))
    })
}

fn all_formers(pins: &Path) -> impl Iterator<Item = PathBuf> {
    (0..GENERATIONS).flat_map(|generation| formers(pins, generation).map(|(_, former)| former))
}

/// A descriptor of a loaded program, which outlives the loader.
pub(super) fn program(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, Error> {
    let fail = |cause| Error::Load { program: name, cause };
    let fd = program_mut(ebpf, name)?.fd().map_err(fail)?;
    fd.as_fd().try_clone_to_owned().map_err(|source| Error::Host {
        what: "the descriptor of a program",
        source,
    })
}

/// Loads one program into the kernel.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let loaded = match program_mut(ebpf, name)? {
        Program::CgroupSockAddr(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::CgroupSockopt(p) => p.load(),
        Program::SkLookup(p) => p.load(),
        Program::SocketFilter(p) => p.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    loaded.map_err(|cause| Error::Load { program: name, cause })
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, Error> {
    ebpf.program_mut(name).ok_or(Error::Missing {
        kind: "program",
        name,
    })
}

fn open(pin: &Path) -> Result<Option<(OwnedFd, sys::LinkInfo)>, Error> {
    let fail = Error::path("pinned link", pin);
    match sys::open_pin(pin) {
        Ok(link) => {
            let info = sys::link_info(link.as_fd()).map_err(fail)?;
            Ok(Some((link, info)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

fn is_severed(target: Target) -> bool {
    matches!(target, Target::Cgroup(0) | Target::Netns(0))
}

fn describe(target: Target) -> String {
    match target {
        Target::Cgroup(id) => format!("the cgroup with inode {id}"),
        Target::Netns(inode) => format!("the network namespace with inode {inode}"),
        Target::Other(kind) => format!("a link of kind {kind}"),
    }
}

/// EPERM has one common reason besides capabilities: a program that was attached, here or above, with flags 0,
/// which lets nothing join.
fn offender(error: &io::Error, hook: Hook, cgroup: &Path) -> Option<String> {
    if error.raw_os_error() != Some(libc::EPERM) || hook.attach_type == SK_LOOKUP {
        return None;
    }
    for directory in cgroup.ancestors() {
        // Above the mount point there are no cgroups to ask.
        let Ok(attached) = File::open(directory)
            .and_then(|cgroup| sys::attached(cgroup.as_fd(), hook.attach_type, Scope::Target))
        else {
            break;
        };
        if attached.flags == 0
            && let Some(id) = attached.programs.first()
        {
            let name = loaded_programs()
                .filter_map(Result::ok)
                .find(|info| info.id() == *id)
                .and_then(|info| info.name_as_str().map(str::to_owned))
                .unwrap_or_default();
            return Some(format!(
                "program {id} `{name}` is attached exclusively to {}; detach it there (bpftool cgroup detach), or have \
                 its owner attach it with the flag `multi`",
                directory.display()
            ));
        }
    }
    Some(capabilities::hint().trim_start_matches("; ").into())
}

/// Everything but attaching.
pub(super) fn load_all(ebpf: &mut Ebpf) -> Result<(), Error> {
    program::ALL.iter().try_for_each(|name| load(ebpf, name))
}

/// As [`load_all`], to the end: all that the kernel refuses.
pub(super) fn refused(ebpf: &mut Ebpf) -> Vec<Error> {
    let loaded = program::ALL.iter().map(|name| load(ebpf, name));
    loaded.filter_map(Result::err).collect()
}

/// In the way of everybody else: a program attached the old way, with flags 0, until the value is dropped.
#[cfg(test)]
pub(in super::super) fn attach_exclusively(cgroup: &Path) -> Ebpf {
    let features = super::object::Features::probe();
    let owner = sidecar_ebpf::abi::Owner::ALONE;
    let mut ebpf = super::object::load(features, owner, 1, &[], false).expect("maps");
    load_all(&mut ebpf).expect("programs");
    let program = program_mut(&mut ebpf, program::CONNECT4).expect("built");
    let cgroup = File::open(cgroup).expect("a cgroup");
    let hook = HOOKS
        .iter()
        .find(|hook| hook.program == program::CONNECT4)
        .expect("listed");
    sys::attach_exclusively(
        program.fd().expect("loaded").as_fd(),
        cgroup.as_fd(),
        hook.attach_type,
    )
    .expect("attach");
    ebpf
}
