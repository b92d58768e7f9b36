//! The seccomp filter of containerd's RuntimeDefault profile for a container without capabilities, as classic BPF. Installs
//! nothing: see `sys.rs`.

use nix::libc::{self, sock_filter};

/// Lines of a name and a number; `#` begins a comment.
const ALLOWED: &str = include_str!("seccomp_x86_64.txt");

const ARCH_X86_64: u32 = 0xc000_003e;
/// Offsets in `struct seccomp_data`, and the lower half of the first argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const ALLOW: sock_filter = step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
const REFUSE: sock_filter = step(
    RETURN,
    0,
    0,
    libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
);
/// What glibc takes as "use clone(2) instead".
const UNKNOWN: sock_filter = step(
    RETURN,
    0,
    0,
    libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
);

/// Those of clone(2) that make a namespace.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The last call that has a number of its own, and a handful that none has yet.
const NUMBERS: u32 = 480;

/// `uretprobe` and `uprobe`, of which the kernel asks no filter: they are calls of its own trampolines.
const NEVER_ASKED: [u32; 2] = [335, 336];

/// The numbers of the calls that the profile refuses whatever their arguments.
pub fn refused() -> Vec<u32> {
    let by_argument = [
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_socket,
        libc::SYS_personality,
    ];
    let decided: Vec<u32> = by_argument.map(number_of).into();
    let allowed: Vec<u32> = allowed().map(|(_, number)| number).collect();
    (0..NUMBERS)
        .filter(|number| !allowed.contains(number) && !decided.contains(number))
        .filter(|number| !NEVER_ASKED.contains(number))
        .collect()
}

/// Calls by the numbers of another architecture (x32 and i386, which the profile allows) are refused: nothing here makes them.
pub(crate) fn runtime_default() -> Vec<sock_filter> {
    let mut filter = vec![
        step(LOAD, 0, 0, ARCH),
        step(EQUAL, 1, 0, ARCH_X86_64),
        REFUSE,
        step(LOAD, 0, 0, NUMBER),
    ];
    for (_, number) in allowed() {
        on_call(&mut filter, number, &[ALLOW]);
    }
    on_call(&mut filter, number_of(libc::SYS_clone3), &[UNKNOWN]);
    let no_namespace = [
        step(LOAD, 0, 0, FIRST_ARGUMENT),
        step(ANY_BIT, 1, 0, NAMESPACES.cast_unsigned()),
        ALLOW,
        REFUSE,
    ];
    on_call(&mut filter, number_of(libc::SYS_clone), &no_namespace);
    let mut families = vec![step(LOAD, 0, 0, FIRST_ARGUMENT)];
    for family in [libc::AF_ALG, libc::AF_VSOCK] {
        families.extend([step(EQUAL, 0, 1, family.cast_unsigned()), REFUSE]);
    }
    families.push(ALLOW);
    on_call(&mut filter, number_of(libc::SYS_socket), &families);
    let mut personalities = vec![step(LOAD, 0, 0, FIRST_ARGUMENT)];
    for personality in PERSONALITIES {
        personalities.extend([step(EQUAL, 0, 1, personality), ALLOW]);
    }
    personalities.push(REFUSE);
    on_call(&mut filter, number_of(libc::SYS_personality), &personalities);
    filter.push(REFUSE);
    filter
}

/// For this call the filter goes no further than these steps.
fn on_call(filter: &mut Vec<sock_filter>, number: u32, steps: &[sock_filter]) {
    let over = u8::try_from(steps.len()).expect("a few steps");
    filter.push(step(EQUAL, 0, over, number));
    filter.extend_from_slice(steps);
}

fn allowed() -> impl Iterator<Item = (&'static str, u32)> {
    let lines = ALLOWED.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (name, number) = line.split_once(' ').expect("a name and a number");
        (name, number.parse().expect("a number"))
    })
}

fn number_of(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("numbers of calls are small")
}

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // All codes are below 256.
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter returns for a call by its number and first argument.
    fn verdict(filter: &[sock_filter], arch: u32, number: libc::c_long, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at];
            at += 1;
            let taken = match u32::from(code) {
                RETURN => return k,
                LOAD => {
                    value = match k {
                        ARCH => arch,
                        NUMBER => number_of(number),
                        _ => argument,
                    };
                    continue;
                }
                EQUAL => value == k,
                ANY_BIT => value & k != 0,
                other => panic!("no step has the code {other}"),
            };
            at += usize::from(if taken { jt } else { jf });
        }
    }

    fn is_allowed(number: libc::c_long, argument: u32) -> bool {
        let filter = runtime_default();
        verdict(&filter, ARCH_X86_64, number, argument) == libc::SECCOMP_RET_ALLOW
    }

    #[test]
    fn the_list_has_the_numbers_of_the_kernel() {
        for (name, number) in [
            ("accept4", libc::SYS_accept4),
            ("setsockopt", libc::SYS_setsockopt),
            ("membarrier", libc::SYS_membarrier),
            ("pidfd_open", libc::SYS_pidfd_open),
        ] {
            assert!(allowed().any(|call| call == (name, number_of(number))), "{name}");
        }
        assert!(allowed().count() > 300);
    }

    #[test]
    fn what_takes_a_capability_is_refused() {
        for call in [
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
            libc::SYS_init_module,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_userfaultfd,
        ] {
            assert!(!is_allowed(call, 0), "{call}");
        }
    }

    #[test]
    fn some_calls_are_decided_by_their_argument() {
        let family = |family: i32| family.cast_unsigned();
        assert!(is_allowed(libc::SYS_socket, family(libc::AF_INET6)));
        assert!(is_allowed(libc::SYS_socket, family(libc::AF_NETLINK)));
        assert!(!is_allowed(libc::SYS_socket, family(libc::AF_ALG)));
        assert!(!is_allowed(libc::SYS_socket, family(libc::AF_VSOCK)));
        assert!(is_allowed(libc::SYS_clone, family(libc::CLONE_VM)));
        assert!(!is_allowed(libc::SYS_clone, family(libc::CLONE_NEWUSER)));
        assert!(is_allowed(libc::SYS_personality, 0x2_0008));
        assert!(!is_allowed(libc::SYS_personality, 1));
        let filter = runtime_default();
        assert_eq!(verdict(&filter, ARCH_X86_64, libc::SYS_clone3, 0), UNKNOWN.k);
        let i386 = 0x4000_0003;
        assert_eq!(verdict(&filter, i386, libc::SYS_read, 0), REFUSE.k);
    }
}
