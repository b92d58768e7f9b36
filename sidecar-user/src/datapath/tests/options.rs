//! Facts about getsockopt() on a socket that is bound to a device, which the redirection has to undo.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use socket2::{Domain, Socket, Type};

use super::pod::in_pod;
use super::probe::{FAR4, address};

const SO_BINDTOIFINDEX: i32 = 62;

/// What getsockopt() answers: its errno, or the length and the buffer.
type Answer = Result<(u32, [u8; 24]), i32>;

#[test]
fn the_device_is_shown_in_a_buffer_of_any_size_as_the_kernel_does() {
    in_pod(|pod| {
        let outbound = pod.outbound();
        let bare = bound();
        let _datapath = pod.attach(None);
        let taken = bound();
        taken.connect(&address(FAR4).into()).expect("redirected");
        let _accepted = outbound.accept().expect("accept");
        for option in [libc::SO_BINDTODEVICE, SO_BINDTOIFINDEX] {
            for len in 0..=24 {
                assert_eq!(
                    ask(taken.as_fd(), option, len),
                    ask(bare.as_fd(), option, len),
                    "option {option} with {len} bytes"
                );
            }
        }
        let named = ask(taken.as_fd(), libc::SO_BINDTODEVICE, 16).expect("a name");
        assert_eq!((named.0, &named.1[..5]), (5, &b"eth0\0"[..]));
        assert_eq!(ask(taken.as_fd(), libc::SO_BINDTODEVICE, 8), Err(libc::EINVAL));
    });
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind_device(Some(b"eth0")).expect("a device");
    socket
}

fn ask(socket: BorrowedFd<'_>, option: i32, len: u32) -> Answer {
    let (mut buffer, mut len) = ([0xaa_u8; 24], len);
    // SAFETY: the kernel writes at most `len` bytes, which is no more than the buffer has.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match failed {
        0 => Ok((len, buffer)),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()),
    }
}
