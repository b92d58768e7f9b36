//! Do the programs see the sockets of this process? A connection from the process to itself, over loopback, which only
//! the programs can complete: the connect hook knows its port, sockops hands its client over, and getpeername and
//! getsockopt show that to the accepted end.
//!
//! Programs are attached to a cgroup by its name, and nothing else tells that this process is in it: outside, it would
//! show every application the pod's own address as the client's. No port of an application is dialled, and nothing is
//! left behind.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::Bypass;
use super::whole_host::unified;

/// Far more than a connection over loopback takes, where the kernel does all the work at once.
const LIMIT: Duration = Duration::from_secs(1);
/// Other programs of the pod that connect to the listener in the moment that it exists.
const STRANGERS: usize = 8;

#[derive(Clone, Debug)]
pub struct Proof {
    bypass: Bypass,
    cgroup: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Unseen {
    #[error(
        "the programs at {} do not see this proxy's own sockets ({what}), it runs in the cgroup {own}; name the pod's \
         cgroup in interception.cgroup, which holds the application and the proxy, and not one container's",
        cgroup.display()
    )]
    Outside {
        cgroup: PathBuf,
        own: String,
        what: &'static str,
    },
    #[error("no connection over loopback can be tried: {source}")]
    Io { source: io::Error },
}

impl Unseen {
    /// For anybody who asks whether this proxy is ready.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Outside { .. } => {
                "the kernel programs do not see this proxy's own sockets: it does not run in the cgroup that \
                 interception.cgroup names"
            }
            Self::Io { .. } => "the kernel programs cannot be tried: no connection over loopback",
        }
    }
}

impl Proof {
    pub(super) fn new(bypass: Bypass, cgroup: PathBuf) -> Self {
        Self { bypass, cgroup }
    }

    /// Tries each family that this host has. Blocks for some ten microseconds, or for `LIMIT` where something is wrong.
    pub fn look(&self) -> Result<(), Unseen> {
        let prefix4 = Ipv4Addr::new(192, 0, 2, fastrand::u8(..));
        let prefix6 = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(fastrand::u64(..)));
        let families: [(IpAddr, IpAddr); 2] = [
            (Ipv4Addr::LOCALHOST.into(), prefix4.into()),
            (Ipv6Addr::LOCALHOST.into(), prefix6.into()),
        ];
        for (own, client) in families {
            // Addresses for documentation (RFC 5737, RFC 3849): nobody calls from there, least of all by this port.
            let client = SocketAddr::new(client, fastrand::u16(1..));
            let seen = match listen(own) {
                Ok(listener) => self.is_seen(&listener, client),
                // A host without this family intercepts nothing of it.
                Err(error) if is_no_family(&error) => continue,
                Err(error) => Err(error),
            };
            match seen {
                Ok(None) => {}
                Ok(Some(what)) => return Err(self.unseen(what)),
                Err(source) => return Err(Unseen::Io { source }),
            }
        }
        Ok(())
    }

    /// `None`: the programs have done it all. Otherwise what they have not.
    fn is_seen(&self, listener: &Socket, client: SocketAddr) -> io::Result<Option<&'static str>> {
        let own = address(&listener.local_addr()?)?;
        let dialling = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
        // Ends with a reset, which leaves nothing in TIME_WAIT.
        dialling.set_linger(Some(Duration::ZERO))?;
        self.bypass.probe(dialling.as_fd(), client, own)?;
        match dialling.connect_timeout(&self.bypass.door(own).into(), LIMIT) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Ok(Some("connect"));
            }
            Err(error) => return Err(error),
        }
        let from = dialling.local_addr()?;
        for _ in 0..STRANGERS {
            let (accepted, shown) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let shown = address(&shown)?;
            if shown == client {
                let destination = SockRef::from(&accepted);
                let destination = match own {
                    SocketAddr::V4(_) => destination.original_dst_v4(),
                    SocketAddr::V6(_) => destination.original_dst_v6(),
                };
                let answered = destination.is_ok_and(|answer| answer.as_socket() == Some(client));
                return Ok((!answered).then_some("getsockopt"));
            }
            if shown == address(&from)? {
                return Ok(Some("accept"));
            }
        }
        Ok(Some("accept"))
    }

    fn unseen(&self, what: &'static str) -> Unseen {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Unseen::Outside {
            cgroup: self.cgroup.clone(),
            own: unified(&own).unwrap_or("that nobody can name").into(),
            what,
        }
    }
}

fn listen(own: IpAddr) -> io::Result<Socket> {
    let at = SocketAddr::new(own, 0);
    let listener = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    listener.bind(&at.into())?;
    listener.listen(STRANGERS as i32)?;
    // Bounds accept(), too.
    listener.set_read_timeout(Some(LIMIT))?;
    Ok(listener)
}

fn address(of: &socket2::SockAddr) -> io::Result<SocketAddr> {
    of.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn is_no_family(error: &io::Error) -> bool {
    let absent = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    error
        .raw_os_error()
        .is_some_and(|errno| absent.contains(&Errno::from_raw(errno)))
}
