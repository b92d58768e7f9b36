//! Programs that are loaded for each pod: read, relocated and linked once. aya's loader would read the object again for each,
//! and the types of the whole kernel before it, which takes longer than all the rest of a pod.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::programs::ProgramError;
use aya_obj::generated::bpf_insn;
use aya_obj::{Object, VerifierLog};
use bytemuck::{Pod, Zeroable};
use sidecar_ebpf::abi::{Owner, program};

use super::super::sys::{self, bpf, descriptor};
use super::super::{Error, map};
use super::object::{OBJECT, data};

/// The map in whose place each pod has its own.
const OWNER: &str = ".rodata.owner";

/// A program that is told whom it serves when it is loaded.
struct Image {
    name: &'static str,
    kind: u32,
    attach_type: u32,
    instructions: Vec<u64>,
    /// Those of them that name [`OWNER`].
    of_owner: Vec<usize>,
}

/// The programs that are not told which pod they run for, and the types of the maps that each pod has.
pub(super) struct Images {
    images: Vec<Image>,
    license: CString,
    pub(super) btf: OwnedFd,
    /// Those that the instructions name by the numbers of these descriptors.
    _maps: Vec<OwnedFd>,
}

impl Images {
    /// Of the object whose maps have been made by aya.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        let mut object = Object::parse(OBJECT).map_err(|error| unfit(&error))?;
        let btf = types(&mut object)?;
        let declared = std::mem::take(&mut object.maps);
        let maps = declared.into_iter().map(|(name, map)| {
            let made = data(ebpf, &name).ok_or_else(|| unfit(&name))?;
            let fd = made.fd().as_fd().try_clone_to_owned();
            Ok((name, fd.map_err(|error| unfit(&error))?, map))
        });
        let maps = maps.collect::<Result<Vec<_>, Error>>()?;
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let named = maps
            .iter()
            .map(|(name, fd, map)| (name.as_str(), fd.as_raw_fd(), map));
        object
            .relocate_maps(named, &text)
            .map_err(|error| unfit(&error))?;
        object.relocate_calls(&text).map_err(|error| unfit(&error))?;
        object.sanitize_functions(aya::features());

        let owner = maps.iter().find(|(name, ..)| name == OWNER);
        let owner = owner
            .ok_or(Error::Missing {
                kind: "map",
                name: OWNER,
            })?
            .1
            .as_raw_fd();
        let images = FOR_ONE_POD.map(|(name, kind, attach_type)| {
            let function = object.programs.get(name).map(|program| program.function_key());
            let function = function.and_then(|key| object.functions.get(&key));
            let function = function.ok_or(Error::Missing {
                kind: "program",
                name,
            })?;
            let instructions: Vec<u64> = function.instructions.iter().map(word).collect();
            let places = instructions.iter().enumerate();
            let of_owner = places.filter(|(_, word)| named_map(**word) == Some(owner));
            Ok(Image {
                name,
                kind,
                attach_type,
                of_owner: of_owner.map(|(place, _)| place).collect(),
                instructions,
            })
        });
        let images = images.into_iter().collect::<Result<Vec<Image>, Error>>()?;
        let is_named = |fd: &OwnedFd| images.iter().any(|image| image.names(fd.as_raw_fd()));
        Ok(Self {
            _maps: maps.into_iter().map(|(_, fd, _)| fd).filter(is_named).collect(),
            license: object.license,
            images,
            btf,
        })
    }

    /// For that pod and proxy.
    pub(super) fn load(&self, owner: &Owner) -> Result<Vec<(&'static str, Arc<OwnedFd>)>, Error> {
        let owner = map::constant(OWNER, owner)?;
        let loaded = self.images.iter().map(|image| {
            let loaded = image.load(descriptor(owner.as_fd()), &self.license);
            let loaded = loaded.map_err(|io_error| Error::Load {
                program: image.name,
                cause: ProgramError::LoadError {
                    io_error,
                    verifier_log: VerifierLog::new(String::new()),
                },
            })?;
            Ok((image.name, Arc::new(loaded)))
        });
        loaded.collect()
    }
}

/// With what the kernel knows of each: its type, and where it is attached.
pub(super) const FOR_ONE_POD: [(&str, u32, u32); 2] = [
    (program::SK_LOOKUP, 30, super::links::SK_LOOKUP),
    (program::HOLD, 1, 0),
];

impl Image {
    fn load(&self, owner: u32, license: &CString) -> std::io::Result<OwnedFd> {
        const BPF_PROG_LOAD: i32 = 5;
        #[repr(C)]
        #[derive(Clone, Copy, Pod, Zeroable)]
        struct Attr {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log: [u32; 2],
            log_buffer: u64,
            kernel: u32,
            flags: u32,
            name: [u8; 16],
            device: u32,
            attach_type: u32,
        }
        let mut instructions = self.instructions.clone();
        for at in &self.of_owner {
            instructions[*at] = instructions[*at] & u64::from(u32::MAX) | u64::from(owner) << IMMEDIATE;
        }
        let mut attr = Attr {
            kind: self.kind,
            count: u32::try_from(instructions.len()).expect("programs are small"),
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            name: map::shown(self.name),
            attach_type: self.attach_type,
            ..Attr::zeroed()
        };
        bpf(BPF_PROG_LOAD, &mut attr).map(sys::owned)
    }

    fn names(&self, map: i32) -> bool {
        self.instructions.iter().any(|word| named_map(*word) == Some(map))
    }
}

/// Of an instruction its last 32 bits.
const IMMEDIATE: u32 = 32;

fn word(instruction: &bpf_insn) -> u64 {
    let registers = instruction.dst_reg() | instruction.src_reg() << 4;
    let offset = u64::from(instruction.off.cast_unsigned()) << 16;
    let immediate = u64::from(instruction.imm.cast_unsigned()) << IMMEDIATE;
    u64::from(instruction.code) | u64::from(registers) << 8 | offset | immediate
}

/// The descriptor of the map that an instruction names, or in which it names a value.
fn named_map(word: u64) -> Option<i32> {
    const BPF_LD_IMM64: u8 = 0x18;
    const BPF_PSEUDO_MAP_FD: u8 = 1;
    const BPF_PSEUDO_MAP_VALUE: u8 = 2;
    let [code, registers, ..] = word.to_le_bytes();
    let is_map =
        code == BPF_LD_IMM64 && [BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE].contains(&(registers >> 4));
    is_map.then_some((word >> IMMEDIATE) as i32)
}

/// Gives the kernel the types of the object.
fn types(object: &mut Object) -> Result<OwnedFd, Error> {
    const BPF_BTF_LOAD: i32 = 18;
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Attr {
        types: u64,
        log: u64,
        size: u32,
        log_size: [u32; 2],
        padding: u32,
    }
    let features = aya::features()
        .btf()
        .ok_or_else(|| unfit(&"the kernel has no BTF"))?;
    let fixed = object
        .fixup_and_sanitize_btf(features)
        .map_err(|error| unfit(&error))?;
    let types = fixed.ok_or_else(|| unfit(&"it has no types"))?.to_bytes();
    let mut attr = Attr {
        types: types.as_ptr() as u64,
        size: u32::try_from(types.len()).map_err(|error| unfit(&error))?,
        ..Attr::zeroed()
    };
    let loaded = bpf(BPF_BTF_LOAD, &mut attr).map(sys::owned);
    loaded.map_err(|source| Error::Host {
        what: "the types of the maps",
        source,
    })
}

fn unfit(why: &impl std::fmt::Display) -> Error {
    Error::Image { why: why.to_string() }
}
