//! The stages of the connections that are held, as the proxy asks for them and changes them: by running `or_approve`, or by
//! the control path.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use sidecar_ebpf::abi::{Pending, StageChange, Tuple};

use super::super::map::Map;
use super::super::sys;
use super::control::Control;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Stages {
    Bpf {
        approve: Arc<OwnedFd>,
        pending: Map<Tuple, Pending>,
    },
    Control(Control),
}

impl Stages {
    /// Whether the connection is in the wanted stage now.
    pub(super) fn change(&self, change: StageChange) -> io::Result<bool> {
        match self {
            Self::Bpf { approve, .. } => Ok(run(approve, &change)? == StageChange::DONE),
            Self::Control(control) => Ok(control.stage(change)?),
        }
    }

    pub(super) fn is_held(&self, tuple: Tuple, sequence: u32) -> io::Result<bool> {
        let pending = match self {
            Self::Bpf { pending, .. } => pending.get(&tuple)?,
            Self::Control(control) => return Ok(control.is_held(tuple, sequence)?),
        };
        Ok(pending.is_some_and(|pending| pending.stage.is_waiting() && pending.stage.sequence() == sequence))
    }
}

/// Runs a socket filter on a request, and returns what it answers.
fn run(program: &OwnedFd, request: &StageChange) -> io::Result<u32> {
    const BPF_PROG_TEST_RUN: i32 = 10;
    /// The start of what the command takes, which the kernel fills with zeros.
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Attr {
        program: u32,
        answer: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }
    let packet = Packet {
        ethernet: [0; 14],
        request: *request,
    };
    let mut attr = Attr {
        program: sys::descriptor(program.as_fd()),
        size_in: u32::try_from(size_of::<Packet>()).expect("it is small"),
        data_in: &raw const packet as u64,
        ..Attr::zeroed()
    };
    sys::bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.answer)
}

/// What the kernel takes for a packet: it has an Ethernet header, which a program for sockets is not shown.
#[repr(C, packed)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Packet {
    ethernet: [u8; 14],
    request: StageChange,
}
