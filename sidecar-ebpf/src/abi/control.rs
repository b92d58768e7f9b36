//! The control path: how a proxy that may not call bpf(2) writes what it has to. It calls setsockopt(2) with a level of its
//! own, and `or_setsockopt` does what the request says, if the request has the pod's secret in it.
//!
//! A request is the secret, and right behind it the body that belongs to its operation. An operation whose body changes gets
//! another number: a program of another version then answers [`UNKNOWN`] instead of something else than it was asked for.

use bytemuck::{Pod, Zeroable};

use super::{Path, Policy, PolicyKey, Tuple};
use crate::addr::{Ip, Port};

/// "OR" and a number. Linux has the numbers of IP protocols (0 to 255, and 262 for MPTCP) as levels, and of socket families
/// from 256 on, one after the other, of which there are some thirty. Where the program is not attached the kernel knows no
/// such level, and answers ENOPROTOOPT.
pub const LEVEL: i32 = 0x4f52_0001;

/// The operations, which are names of options.
pub mod operation {
    /// Nothing but the answer that the secret is the pod's. No body.
    pub const PROVE: i32 = 1;
    /// Puts a mark on the socket that it is called on. Body: [`Bypass`](super::super::Bypass).
    pub const MARK: i32 = 2;
    /// Body: [`StageChange`](super::super::StageChange). [`NO`](super::NO): the connection is in another stage, or over.
    pub const STAGE: i32 = 3;
    /// Body: [`Held`](super::Held). [`NO`](super::NO): that SYN does not wait.
    pub const IS_HELD: i32 = 4;
    /// Body: [`PolicyEntry`](super::PolicyEntry).
    pub const POLICY_SET: i32 = 5;
    /// Body: [`PolicyPrefix`](super::PolicyPrefix). [`NO`](super::NO): there was none.
    pub const POLICY_REMOVE: i32 = 6;
    /// Body: [`PolicyPrefix`](super::PolicyPrefix). [`NO`](super::NO), or the socket has the value for [`ANSWER`].
    pub const POLICY_GET: i32 = 7;
    /// Body: [`RouteEntry`](super::RouteEntry).
    pub const ROUTE_SET: i32 = 8;
    /// Body: [`RoutePrefix`](super::RoutePrefix). [`NO`](super::NO): there was none.
    pub const ROUTE_REMOVE: i32 = 9;
    /// Body: [`RoutePrefix`](super::RoutePrefix). [`NO`](super::NO), or the socket has the value for [`ANSWER`].
    pub const ROUTE_GET: i32 = 10;
    /// Body: [`WordChange`](super::WordChange). [`OTHER_EPOCH`](super::OTHER_EPOCH): another proxy has the pod.
    pub const WORD: i32 = 11;
    /// Body: a socket's cookie. [`NO`](super::NO): the programs do not count it.
    pub const HAS_APP_SOCKET: i32 = 12;
    /// getsockopt(2), not setsockopt(2): the [`Answer`](super::Answer) that the last request on this socket has left there.
    pub const ANSWER: i32 = 13;
    /// Body: [`ProbeAttempt`](super::ProbeAttempt). [`NO`](super::NO): it is no probe of the pod's host.
    pub const IS_PROBE: i32 = 14;
}

// What the system call fails with. They are errnos, because it has no other way to answer.

/// The secret is wrong, or nobody has been given one. EPERM is also all that a kernel before 5.18 can answer.
pub const REFUSED: u32 = 1;
/// What was asked for is not so: ENOENT.
pub const NO: u32 = 2;
/// The body is not as long as this operation's: EINVAL.
pub const BAD_LENGTH: u32 = 22;
/// EOPNOTSUPP.
pub const UNKNOWN: u32 = 95;
/// ESTALE.
pub const OTHER_EPOCH: u32 = 116;

/// What the installer has given to the proxy of one pod. All zero: nobody has been given any.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Secret {
    pub words: [u32; 4],
}

impl Secret {
    pub const NONE: Self = Self { words: [0; 4] };

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.is_same(Self::NONE)
    }

    /// Takes as long whatever they have in common.
    #[inline(always)]
    pub const fn is_same(self, other: Self) -> bool {
        let (a, b) = (self.words, other.words);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Held {
    pub tuple: Tuple,
    /// Of its SYN, in host order.
    pub sequence: u32,
    pub reserved: u32,
}

/// Who dials a port of the pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ProbeAttempt {
    pub from: Ip,
    pub port: Port,
    pub reserved: u16,
}

/// A key of `or_policy` as the kernel has it: how many bits of it count, then its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PolicyPrefix {
    pub bits: u32,
    pub key: PolicyKey,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PolicyEntry {
    pub prefix: PolicyPrefix,
    pub policy: Policy,
}

/// A key of `or_routes` as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RoutePrefix {
    pub bits: u32,
    pub ip: Ip,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RouteEntry {
    pub prefix: RoutePrefix,
    pub path: Path,
}

/// One word of the settings, for the proxy whose epoch is in force.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct WordChange {
    pub epoch: u32,
    pub word: Word,
    pub value: u32,
}

/// The words of [`Settings`](super::Settings) that may change while the programs run.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Word(u32);

impl Word {
    /// Changes nothing: asks whether the epoch is in force.
    pub const NONE: Self = Self(0);
    pub const STRICT: Self = Self(1);
    pub const HOLD: Self = Self(2);
    /// `first_shard` in the low half, `shards` in the high one.
    pub const SHARDS: Self = Self(3);
    pub const POLICY_GENERATION: Self = Self(4);
    pub const ROUTES: Self = Self(5);
    pub const APP_PORTS: Self = Self(6);
}

/// What a request has found: an entry's value, and anything behind a shorter one.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Answer([u64; Answer::WORDS]);

impl Answer {
    const WORDS: usize = 16;
    pub const BYTES: usize = Self::WORDS * size_of::<u64>();
}

const _: () = assert!(
    size_of::<Policy>() <= Answer::BYTES && size_of::<Path>() <= Answer::BYTES,
    "every value has room"
);
