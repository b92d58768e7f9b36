//! setsockopt(2) with the level of the control path: does what a proxy asks for that may not call bpf(2). The kernel never
//! sees such an option.
//!
//! This runs for every setsockopt() of the pod where it is attached, so the first comparison sends all others away. Who asks
//! is known by the secret alone: applications of the pod pass this hook, too, as every uid.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use sidecar_ebpf::abi::control::{
    self, Held, PolicyEntry, PolicyPrefix, ProbeAttempt, RouteEntry, RoutePrefix, Secret, Word, WordChange,
    operation,
};
use sidecar_ebpf::abi::{Bypass, Counter, Settings, StageChange};

use super::{ALLOW, DENY, PAGE_SIZE, load, pending, store};
use crate::maps::{self, Pod};

/// Not to be told to the kernel.
const HANDLED: i32 = -1;

const SECRET: usize = size_of::<Secret>();

const _: () = assert!(
    offset_of!(Settings, first_shard).is_multiple_of(size_of::<u32>())
        && offset_of!(Settings, shards) == offset_of!(Settings, first_shard) + size_of::<u16>(),
    "the first shard and their number are one word"
);

#[cgroup_sockopt(setsockopt)]
pub(crate) fn or_setsockopt(ctx: SockoptContext) -> i32 {
    let opt = ctx.sockopt;
    // SAFETY: fields that this hook may read.
    let (level, len) = unsafe { (load(&raw const (*opt).level), load(&raw const (*opt).optlen)) };
    if level != control::LEVEL {
        if len > PAGE_SIZE {
            // 0 means "untouched"; older kernels fail long options with EFAULT otherwise.
            // SAFETY: a field that this hook may write.
            unsafe { store(&raw mut (*opt).optlen, 0) };
        }
        return ALLOW;
    }
    // SAFETY: fields that this hook may read, and one that it may write. The socket is a full one, never null.
    let request = unsafe {
        store(&raw mut (*opt).optlen, HANDLED);
        Request {
            start: load(&raw const (*opt).__bindgen_anon_2.optval),
            end: load(&raw const (*opt).__bindgen_anon_3.optval_end),
            len,
            sk: load(&raw const (*opt).__bindgen_anon_1.sk),
        }
    };
    // SAFETY: a field that this hook may read, and the context of this program. The namespace is the socket's.
    let (name, netns) = unsafe { (load(&raw const (*opt).optname), bpf_get_netns_cookie(opt.cast())) };
    // In a namespace that is no pod's nobody has a secret.
    let Some(pod) = Pod::of(netns) else {
        return DENY;
    };
    match answer(pod, netns, &request, name) {
        Ok(()) => ALLOW,
        Err(errno) => {
            if matches!(errno, control::REFUSED | control::BAD_LENGTH | control::UNKNOWN) {
                pod.count(Counter::DeniedControl);
            }
            maps::fail_with(errno);
            DENY
        }
    }
}

struct Request {
    start: *mut c_void,
    end: *mut c_void,
    /// As the caller says. The kernel's buffer has 16 bytes at least.
    len: i32,
    sk: *mut bpf_sock,
}

impl Request {
    /// `None`: it is not exactly as long.
    #[inline(always)]
    fn body<T>(&self) -> Result<*const T, u32> {
        let body = self.start.cast::<u8>().wrapping_add(SECRET);
        if self.len as usize != SECRET + size_of::<T>() || body.wrapping_add(size_of::<T>()).cast() > self.end
        {
            return Err(control::BAD_LENGTH);
        }
        Ok(body.cast())
    }

    /// A copy of it, on the program's stack.
    #[inline(always)]
    fn read<T: Copy>(&self) -> Result<T, u32> {
        // SAFETY: `body` has shown the verifier that it is there.
        self.body().map(|body| unsafe { ptr::read_unaligned::<T>(body) })
    }

    #[inline(always)]
    fn is_allowed(&self, pod: Pod) -> bool {
        if (self.len as usize) < SECRET || self.start.wrapping_byte_add(SECRET) > self.end {
            return false;
        }
        // SAFETY: as the comparison has shown.
        let given = unsafe { ptr::read_unaligned(self.start.cast::<Secret>()) };
        pod.secret()
            .is_some_and(|secret| !secret.is_none() && secret.is_same(given))
    }
}

#[inline(always)]
fn answer(pod: Pod, netns: u64, request: &Request, name: i32) -> Result<(), u32> {
    if !request.is_allowed(pod) {
        return Err(control::REFUSED);
    }
    match name {
        operation::PROVE => request.read::<()>(),
        operation::MARK => {
            let mut mark = request.read::<Bypass>()?;
            // SAFETY: the socket of the context.
            is_so(unsafe { maps::set_bypass(request.sk, &mut mark) }, NO_MEMORY)
        }
        operation::STAGE => {
            let change = request.read::<StageChange>()?;
            let is_done = pending::change(pod, &change.tuple, change.from, change.to);
            is_so(is_done, control::NO)
        }
        operation::IS_HELD => {
            let held = request.read::<Held>()?;
            let found = pending::find(pod, &held.tuple);
            let is_held = found.is_some_and(|e| e.stage.is_waiting() && e.stage.sequence() == held.sequence);
            is_so(is_held, control::NO)
        }
        operation::POLICY_SET => {
            // SAFETY: `body` has shown the verifier that it is there; all of its types may be anywhere.
            let entry = unsafe { &*request.body::<PolicyEntry>()? };
            let key = (&raw const entry.prefix).cast();
            // SAFETY: a prefix is what the map has as a key, and a key may be anywhere.
            done(
                pod.policies()
                    .ok_or(NO_MEMORY)?
                    .insert(unsafe { &*key }, &entry.policy, 0),
            )
        }
        operation::POLICY_REMOVE => {
            let key = request.body::<PolicyPrefix>()?.cast();
            // SAFETY: as above.
            done(pod.policies().ok_or(NO_MEMORY)?.remove(unsafe { &*key }))
        }
        operation::POLICY_GET => {
            let key = request.body::<PolicyPrefix>()?.cast();
            // SAFETY: as above.
            leave(request, pod.policies().ok_or(NO_MEMORY)?.get(unsafe { &*key }))
        }
        operation::ROUTE_SET => {
            // SAFETY: as above.
            let entry = unsafe { &*request.body::<RouteEntry>()? };
            let key = (&raw const entry.prefix).cast();
            // SAFETY: as above.
            done(
                pod.routes()
                    .ok_or(NO_MEMORY)?
                    .insert(unsafe { &*key }, &entry.path, 0),
            )
        }
        operation::ROUTE_REMOVE => {
            let key = request.body::<RoutePrefix>()?.cast();
            // SAFETY: as above.
            done(pod.routes().ok_or(NO_MEMORY)?.remove(unsafe { &*key }))
        }
        operation::ROUTE_GET => {
            let key = request.body::<RoutePrefix>()?.cast();
            // SAFETY: as above.
            leave(request, pod.routes().ok_or(NO_MEMORY)?.get(unsafe { &*key }))
        }
        operation::WORD => change(pod, &request.read()?),
        operation::HAS_APP_SOCKET => {
            let cookie = request.read::<u64>()?;
            let counted = pod.app_sockets().ok_or(NO_MEMORY)?;
            // SAFETY: nothing of the value is read.
            is_so(unsafe { counted.get(cookie) }.is_some(), control::NO)
        }
        operation::IS_PROBE => {
            let attempt = request.read::<ProbeAttempt>()?;
            is_so(maps::is_probe(netns, attempt.from, attempt.port), control::NO)
        }
        _ => Err(control::UNKNOWN),
    }
}

/// ENOMEM.
const NO_MEMORY: u32 = 12;

#[inline(always)]
fn is_so(yes: bool, otherwise: u32) -> Result<(), u32> {
    if yes { Ok(()) } else { Err(otherwise) }
}

/// What a map says becomes the caller's errno.
#[inline(always)]
fn done(by_map: Result<(), i32>) -> Result<(), u32> {
    by_map.map_err(|errno| errno.unsigned_abs())
}

/// Gives the socket what was found, to be read with getsockopt().
#[inline(always)]
fn leave<T: Copy>(request: &Request, found: Option<&T>) -> Result<(), u32> {
    let found = found.ok_or(control::NO)?;
    // SAFETY: the socket of the context.
    let answer = unsafe { maps::new_answer(request.sk) }.ok_or(NO_MEMORY)?;
    // SAFETY: an answer has room for every value.
    unsafe { ptr::write(ptr::from_mut(answer).cast::<T>(), *found) };
    Ok(())
}

/// Each word at once, so that other programs see it before or after.
#[inline(always)]
fn change(pod: Pod, asked: &WordChange) -> Result<(), u32> {
    let settings: *mut Settings = pod.settings_mut().ok_or(NO_MEMORY)?;
    // SAFETY: fields of the map's value, all of them aligned.
    unsafe {
        if load(&raw const (*settings).epoch) != asked.epoch {
            return Err(control::OTHER_EPOCH);
        }
        match asked.word {
            Word::NONE => {}
            Word::STRICT => store(&raw mut (*settings).strict, asked.value),
            Word::HOLD => store(&raw mut (*settings).hold, asked.value as u16),
            // They are in one word for this.
            Word::SHARDS => store((&raw mut (*settings).first_shard).cast::<u32>(), asked.value),
            Word::POLICY_GENERATION => store(&raw mut (*settings).policy_generation, asked.value),
            Word::ROUTES => store(&raw mut (*settings).routes, asked.value),
            Word::APP_PORTS => store(&raw mut (*settings).app_ports, asked.value),
            _ => return Err(control::UNKNOWN),
        }
    }
    Ok(())
}
