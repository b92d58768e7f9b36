//! A thread that may do what a sidecar of a node agent may: an ordinary user without any capability, to whom bpf(2) is refused.

use std::io;
use std::thread;

use nix::libc;

const UID: u32 = 65532;

/// Runs in a thread of its own, which nobody can give anything back.
pub(super) fn confined<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            confine();
            body()
        });
        thread.join().expect("what the confined thread asserts holds")
    })
}

fn confine() {
    let zero = 0_u64;
    // SAFETY: numbers, no memory.
    succeeds("no_new_privs", unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_SET_NO_NEW_PRIVS,
            1_u64,
            zero,
            zero,
            zero,
        )
    });
    // The calls of the C library would change every thread.
    // SAFETY: as above.
    succeeds("setresgid", unsafe {
        libc::syscall(libc::SYS_setresgid, UID, UID, UID)
    });
    // SAFETY: as above.
    succeeds("setresuid", unsafe {
        libc::syscall(libc::SYS_setresuid, UID, UID, UID)
    });
    refuse_bpf();
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
    for none in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{none}:\t0000000000000000")), "{status}");
    }
    // SAFETY: the filter refuses the call whatever it is given.
    let refused = unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) };
    let error = io::Error::last_os_error();
    assert_eq!(
        (refused, error.raw_os_error()),
        (-1, Some(libc::EPERM)),
        "{error}"
    );
}

/// As the runtime's default profile does for a container without CAP_BPF.
fn refuse_bpf() {
    /// Loads a word, jumps where it is equal, and ends.
    const LOAD: u16 = 0x20;
    const IS: u16 = 0x15;
    const END: u16 = 0x06;
    const SECCOMP_SET_MODE_FILTER: u64 = 1;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let bpf = u32::try_from(libc::SYS_bpf).expect("a small number");
    let mut filter = [
        // The number of the call is the first word.
        step(LOAD, 0, 0, 0),
        step(IS, 0, 1, bpf),
        step(END, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        step(END, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    let no_flags = 0_u64;
    // SAFETY: the kernel copies a program of the length given, which lives until then.
    succeeds("seccomp", unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            no_flags,
            &raw const program,
        )
    });
}

fn succeeds(what: &str, result: libc::c_long) {
    assert_eq!(result, 0, "{what}: {}", io::Error::last_os_error());
}
