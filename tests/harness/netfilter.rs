//! Whether a network namespace holds netfilter rules. Only looks.

use std::fs;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::AsRawFd;

use crate::netns::Netns;

/// How many nftables tables the namespace has, and which tables of the older iptables are in use there. Both are zero
/// where nobody ever made a rule: neither has tables by itself.
pub fn tables(netns: &Netns) -> Result<usize> {
    netns.run(|| Ok(nftables()? + iptables()))?
}

/// The kernel lists a table once a rule or a listing has brought it to life.
fn iptables() -> usize {
    let names = ["ip_tables_names", "ip6_tables_names"].map(|file| {
        // The file is missing where the module is not loaded.
        fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
    });
    names.iter().map(|names| names.lines().count()).sum()
}

/// Asks for a dump of all tables (NFT_MSG_GETTABLE) and counts the answers.
fn nftables() -> Result<usize> {
    const GET_TABLE: u16 = 10 << 8 | 1;
    const REQUEST_DUMP: u16 = 0x301;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const HEADER: usize = 16;

    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    );
    let netlink = match netlink {
        // A kernel without netfilter's netlink has no rules.
        Err(Errno::EPROTONOSUPPORT) => return Ok(0),
        other => other.context("open a netlink socket")?,
    };
    let mut request = Vec::new();
    request.extend(20u32.to_ne_bytes());
    request.extend(GET_TABLE.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]); // sequence number and port: one request, one socket
    request.extend([0; 4]); // any family
    sendto(
        netlink.as_raw_fd(),
        &request,
        &NetlinkAddr::new(0, 0),
        MsgFlags::empty(),
    )?;

    let mut tables = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(header) = rest.get(..HEADER) {
            let size = u32::from_ne_bytes(header[..4].try_into()?) as usize;
            match u16::from_ne_bytes(header[4..6].try_into()?) {
                DONE => return Ok(tables),
                // nf_tables is neither built in nor loaded: it answers EINVAL or EOPNOTSUPP.
                ERROR => return Ok(tables),
                _ => tables += 1,
            }
            if size < HEADER {
                bail!("netlink answered with a message of {size} bytes");
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
