//! Bytes that the kernel moves without the program touching them: sendfile, splice, MSG_ZEROCOPY.

use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use crate::watch::Events;
use anyhow::Result;
use nix::fcntl::{SpliceFFlags, splice};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use nix::sys::socket::{MsgFlags, recvmsg};
use nix::unistd::pipe;
use socket2::Socket;

use crate::case::{ALL, Case, case};
use crate::close::{accepted, dialled};
use crate::half::Half;
use crate::{stream, sys, watch};

pub(crate) const CASES: &[Case] = &[
    case(
        "copyless/sendfile",
        ALL,
        |h| dialled(h, send_file),
        |h| accepted(h, read),
    ),
    case(
        "copyless/sendfile-by-the-server",
        ALL,
        |h| dialled(h, read),
        |h| accepted(h, send_file),
    ),
    case(
        "copyless/splice",
        ALL,
        |h| dialled(h, splice_in),
        |h| accepted(h, splice_out),
    ),
    case(
        "copyless/splice-to-the-client",
        ALL,
        |h| dialled(h, splice_out),
        |h| accepted(h, splice_in),
    ),
    case(
        "copyless/zerocopy",
        ALL,
        |h| dialled(h, zerocopy),
        |h| accepted(h, read),
    ),
    case(
        "copyless/zerocopy-by-the-server",
        ALL,
        |h| dialled(h, read),
        |h| accepted(h, zerocopy),
    ),
];

const TOTAL: usize = 1_000_000;

fn read(half: &mut Half, socket: Socket) -> Result<()> {
    stream::drain(&socket).report(&mut half.facts, "read");
    Ok(())
}

fn file() -> Result<std::fs::File> {
    let file: OwnedFd = memfd_create("pattern", MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&stream::pattern(0, TOTAL))?;
    file.rewind()?;
    Ok(file)
}

fn send_file(half: &mut Half, socket: Socket) -> Result<()> {
    let file = file()?;
    let mut sent = 0;
    while sent < TOTAL {
        match sendfile(&socket, &file, None, TOTAL - sent) {
            Ok(0) => break,
            Ok(n) => sent += n,
            Err(errno) => {
                half.facts.say("sendfile", format_args!("{errno:?}"));
                break;
            }
        }
    }
    half.facts.say("sent", sent);
    Ok(())
}

/// File to pipe to socket.
fn splice_in(half: &mut Half, socket: Socket) -> Result<()> {
    let file = file()?;
    let (out, into) = pipe()?;
    let mut sent = 0;
    while sent < TOTAL {
        let mut left = splice(&file, None, &into, None, TOTAL - sent, SpliceFFlags::empty())?;
        while left > 0 {
            let n = splice(&out, None, &socket, None, left, SpliceFFlags::SPLICE_F_MORE)?;
            left -= n;
            sent += n;
        }
    }
    half.facts.say("sent", sent);
    half.facts.done("shutdown", socket.shutdown(Shutdown::Write));
    half.facts.result("read", stream::recv_text(&socket));
    Ok(())
}

/// Socket to pipe.
fn splice_out(half: &mut Half, socket: Socket) -> Result<()> {
    let (out, into) = pipe()?;
    let mut out = std::fs::File::from(out);
    let mut bytes = Vec::new();
    loop {
        let n = splice(&socket, None, &into, None, 60_000, SpliceFFlags::empty())?;
        if n == 0 {
            break;
        }
        let at = bytes.len();
        bytes.resize(at + n, 0);
        out.read_exact(&mut bytes[at..])?;
    }
    half.facts.say("spliced", bytes.len());
    half.facts.say("intact", stream::is_pattern(0, &bytes));
    Ok(())
}

/// The kernel tells when it no longer needs the memory, through the error queue.
fn zerocopy(half: &mut Half, socket: Socket) -> Result<()> {
    const CALLS: usize = 10;
    let set = sys::set_int_option(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1);
    half.facts.done("SO_ZEROCOPY", set);
    let all = stream::pattern(0, TOTAL);
    let mut sent = 0;
    let mut calls = 0;
    while sent < TOTAL {
        let end = TOTAL.min(sent + TOTAL / CALLS);
        sent += socket.send_with_flags(&all[sent..end], libc::MSG_ZEROCOPY)?;
        calls += 1;
    }
    half.facts.say("sent", sent);
    socket.shutdown(Shutdown::Write)?;
    // Notifications are ranges of calls, merged by chance; the last one is for the last call.
    let mut highest = None;
    while highest != Some(calls - 1) {
        if !watch::wait(&socket, Events::NONE, half.patience)?.contains(Events::ERR) {
            break;
        }
        highest = highest.max(notified(&socket)?);
    }
    half.facts.say("all-notified", highest == Some(calls - 1));
    half.facts.say("SO_ERROR", crate::connect::pending(&socket)?);
    Ok(())
}

/// The last call that a notification is about.
fn notified(socket: &Socket) -> Result<Option<u32>> {
    let mut control = nix::cmsg_space!([u8; 64]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let raw = std::os::fd::AsRawFd::as_raw_fd(socket);
    let message = recvmsg::<()>(raw, &mut [], Some(&mut control), flags)?;
    let errors = message.cmsgs()?.filter_map(|cmsg| match cmsg {
        nix::sys::socket::ControlMessageOwned::Ipv4RecvErr(error, _) => Some(error.ee_data),
        nix::sys::socket::ControlMessageOwned::Ipv6RecvErr(error, _) => Some(error.ee_data),
        _ => None,
    });
    Ok(errors.max())
}
