//! getsockopt(2): answer SO_ORIGINAL_DST on the sockets that the proxy accepted, as netfilter would, and show a
//! redirected client the device that it has bound itself to, which the redirection had to undo. Also the second half of
//! a question of the control path, see `setsockopt.rs`.
//!
//! An application that asks for the original destination on its own sockets gets the plain kernel's answer. This
//! runs for every getsockopt() of the pod, so the first comparison sends nearly all of them away.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use sidecar_ebpf::abi::{Origin, Role, control};

use super::{ALLOW, PAGE_SIZE, SO_BINDTOIFINDEX, SOL_SOCKET, load, store};
use crate::maps::{self, Pod};

const SO_BINDTODEVICE: i32 = 25;
const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
/// The same number for IPv6.
const SO_ORIGINAL_DST: i32 = 80;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const EINVAL: u32 = 22;

#[repr(C)]
struct SockaddrIn {
    family: u16,
    port: u16,
    ip: u32,
    zero: [u32; 2],
}

#[repr(C)]
struct SockaddrIn6 {
    family: u16,
    port: u16,
    flow: u32,
    ip: [u32; 4],
    scope: u32,
}

#[cgroup_sockopt(getsockopt)]
pub(crate) fn or_getsockopt(ctx: SockoptContext) -> i32 {
    let opt = ctx.sockopt;
    // SAFETY: fields that this hook may read.
    let (level, name, len, failed) = unsafe {
        (
            load(&raw const (*opt).level),
            load(&raw const (*opt).optname),
            load(&raw const (*opt).optlen),
            load(&raw const (*opt).retval) != 0,
        )
    };
    let device = level == SOL_SOCKET && (name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX);
    if !device && (name != SO_ORIGINAL_DST || (level != SOL_IP && level != SOL_IPV6)) {
        if level == control::LEVEL {
            found(&ctx, name);
        } else if len > PAGE_SIZE {
            // 0 means "untouched"; older kernels fail long answers with EFAULT otherwise.
            // SAFETY: a field that this hook may write.
            unsafe { store(&raw mut (*opt).optlen, 0) };
        }
        return ALLOW;
    }
    // SAFETY: the kernel gives this hook a full socket, never null.
    let origin = unsafe { maps::origin(load(&raw const (*opt).__bindgen_anon_1.sk)) };
    match origin {
        Some(origin) if device && !failed && origin.role == Role::CLIENT && origin.device != 0 => {
            show_device(&ctx, name, origin.device);
        }
        Some(origin) if !device && (origin.role == Role::ACCEPTED || origin.role == Role::PROBED) => {
            answer(&ctx, level, origin);
        }
        _ => {}
    }
    ALLOW
}

/// What a request of the control path has left for its socket, of which only its owner has a descriptor.
#[inline(always)]
fn found(ctx: &SockoptContext, name: i32) {
    // SAFETY: the kernel gives this hook a full socket, never null.
    let answer = unsafe { maps::answer(load(&raw const (*ctx.sockopt).__bindgen_anon_1.sk)) };
    if name == control::operation::ANSWER
        && let Some(answer) = answer
    {
        write(ctx, *answer);
    }
}

/// As sk_getsockopt() does: SO_BINDTOIFINDEX is cut to the caller's buffer, SO_BINDTODEVICE wants one of IFNAMSIZ bytes.
#[inline(always)]
fn show_device(ctx: &SockoptContext, name: i32, index: u32) {
    if name == SO_BINDTOIFINDEX {
        if !write(ctx, index) {
            write_part(ctx, index);
        }
        return;
    }
    // SAFETY: the context is this program's.
    let pod = Pod::of(unsafe { bpf_get_netns_cookie(ctx.sockopt.cast()) });
    let Some(settings) = pod.and_then(Pod::settings) else {
        return;
    };
    if let Some(device) = settings.devices.iter().find(|device| device.index == index) {
        let mut len = 0;
        while len < device.name.len() && device.name[len] != 0 {
            len += 1;
        }
        if write(ctx, device.name) {
            // The kernel's answer ends with the zero after the name.
            // SAFETY: a field that this hook may write.
            unsafe { store(&raw mut (*ctx.sockopt).optlen, len as i32 + 1) };
        } else {
            maps::fail_with(EINVAL);
        }
    }
}

/// Writes as much of a number as there is room for. The kernel has set the length, as for the 0 that it has written.
#[inline(always)]
fn write_part(ctx: &SockoptContext, value: u32) {
    let (start, end) = buffer(ctx);
    let (start, bytes) = (start.cast::<u8>(), value.to_ne_bytes());
    let mut n = 0;
    while n < bytes.len() - 1 && start.wrapping_add(n + 1).cast() <= end {
        // SAFETY: the comparison proves the room to the verifier.
        unsafe { ptr::write_volatile(start.wrapping_add(n), bytes[n]) };
        n += 1;
    }
}

/// IPv4 destinations are answered at SOL_IP and IPv6 ones at SOL_IPV6, whatever the family of the socket.
#[inline(always)]
fn answer(ctx: &SockoptContext, level: i32, origin: &Origin) {
    match (level, origin.ip.v4()) {
        (SOL_IP, Some(ip)) => {
            write(
                ctx,
                SockaddrIn {
                    family: AF_INET,
                    port: origin.port.network_order(),
                    ip,
                    zero: [0; 2],
                },
            );
        }
        (SOL_IPV6, None) => {
            write(
                ctx,
                SockaddrIn6 {
                    family: AF_INET6,
                    port: origin.port.network_order(),
                    flow: 0,
                    ip: origin.ip.words(),
                    scope: 0,
                },
            );
        }
        _ => {}
    }
}

/// False where the caller's buffer is too small: it keeps the kernel's own answer.
#[inline(always)]
fn write<T>(ctx: &SockoptContext, value: T) -> bool {
    let opt = ctx.sockopt;
    let (start, end) = buffer(ctx);
    let start = start.cast::<T>();
    if start.wrapping_add(1).cast() > end {
        return false;
    }
    // SAFETY: the comparison above proves the room to the verifier. The two fields are ours to write.
    unsafe {
        ptr::write_unaligned(start, value);
        store(&raw mut (*opt).optlen, size_of::<T>() as i32);
        store(&raw mut (*opt).retval, 0);
    }
    true
}

/// From the first byte of the caller's buffer to behind the last one.
#[inline(always)]
fn buffer(ctx: &SockoptContext) -> (*mut c_void, *mut c_void) {
    let opt = ctx.sockopt;
    // SAFETY: fields that this hook may read.
    unsafe {
        (
            load(&raw const (*opt).__bindgen_anon_2.optval),
            load(&raw const (*opt).__bindgen_anon_3.optval_end),
        )
    }
}
