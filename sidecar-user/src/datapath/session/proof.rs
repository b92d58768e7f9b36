//! Do the programs see the sockets of this process, and do connections get to its listeners?
//!
//! The first by a connection from the process to itself, over loopback, which only the programs can complete: the connect
//! hook knows its port, sockops hands its client over, and getpeername and getsockopt show that to the accepted end.
//! Programs are attached to a cgroup by its name, and nothing else tells that this process is in it: outside, it would
//! show every application the pod's own address as the client's.
//!
//! The second by a connection to an address that nobody has and nobody else knows, which the programs redirect to the
//! proxy's own listener; the listener's owner says whether it came. No port of an application is dialled, nothing leaves
//! the host, and nothing is left behind.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::super::PodTarget;
use super::super::capabilities::Capabilities;
use super::super::pod::unified;
use super::{Bypass, Ownership};
use crate::model::Direction;

/// Far more than a connection over loopback takes, where the kernel does all the work at once.
const LIMIT: Duration = Duration::from_secs(1);
/// Other programs of the pod that connect to the listener in the moment that it exists.
const STRANGERS: usize = 8;

#[derive(Clone, Debug)]
pub struct Proof {
    bypass: Bypass,
    pod: PodTarget,
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

/// A connection that the proxy has dialled to find out where it arrives. It is reset when this is dropped.
#[derive(Debug)]
pub struct Dialled(#[expect(dead_code, reason = "it is held, not used")] Socket);

/// A nonce did not get to a listener.
#[derive(Debug)]
pub enum Lost {
    /// For want of descriptors, ports or memory: nothing is known.
    Untried(io::Error),
    Failed(io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// One of the addresses for documentation (RFC 5737, RFC 3849) and any port: nobody is there, nobody calls from there,
    /// and nobody guesses it.
    pub fn nonce(self) -> SocketAddr {
        const DOCUMENTATION: [[u8; 3]; 3] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
        let ip = match self {
            Self::V4 => {
                let [a, b, c] = DOCUMENTATION[fastrand::usize(..DOCUMENTATION.len())];
                IpAddr::from([a, b, c, fastrand::u8(..)])
            }
            Self::V6 => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(fastrand::u64(..))).into(),
        };
        SocketAddr::new(ip, fastrand::u16(1..))
    }
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
    pub(super) fn new(bypass: Bypass, pod: PodTarget) -> Self {
        Self { bypass, pod }
    }

    /// Whether the pod has the family: of another nothing is intercepted.
    pub fn has(&self, family: Family) -> bool {
        // Where nobody can be asked, it is found out by trying.
        self.pod.netns().within(|| is_there(family)).unwrap_or(true)
    }

    /// Whether connections of the pod come to this proxy, or to another one.
    pub fn ownership(&self) -> Ownership {
        self.bypass.ownership()
    }

    /// Whether the programs see this process at all, in each family that this host has.
    pub fn see(&self) -> Result<(), Unseen> {
        Family::ALL
            .into_iter()
            .try_for_each(|family| self.look(family).map(drop))
    }

    /// Whether the programs see a connection of this process to itself. False: this host has no such family, and so
    /// nothing of it is intercepted. Blocks for some ten microseconds, or for `LIMIT` where something is wrong.
    pub fn look(&self, family: Family) -> Result<bool, Unseen> {
        let looked = self.pod.netns().within(|| self.look_here(family));
        looked.unwrap_or_else(|error| {
            Err(Unseen::Io {
                source: io::Error::other(error),
            })
        })
    }

    fn look_here(&self, family: Family) -> Result<bool, Unseen> {
        let listener = match listen(family.loopback()) {
            Ok(listener) => listener,
            Err(error) if is_no_family(&error) => return Ok(false),
            Err(source) => return Err(Unseen::Io { source }),
        };
        match self.is_seen(&listener, family.nonce()) {
            Ok(None) => Ok(true),
            Ok(Some(what)) => Err(self.unseen(what)),
            Err(source) => Err(Unseen::Io { source }),
        }
    }

    /// Dials the nonce, so that it arrives at the proxy's listener of that direction, and keeps the connection until the
    /// value is dropped. Blocks like [`Self::look`].
    pub fn dial(&self, nonce: SocketAddr, direction: Direction) -> Result<Dialled, Lost> {
        let dialled = self.pod.netns().within(|| self.dial_here(nonce, direction));
        dialled.unwrap_or_else(|error| Err(Lost::Untried(io::Error::other(error))))
    }

    fn dial_here(&self, nonce: SocketAddr, direction: Direction) -> Result<Dialled, Lost> {
        let binds = Capabilities::own().has(Capabilities::NET_RAW);
        if nonce.is_ipv6() && !binds {
            self.look_before()?;
        }
        let open = || {
            let socket = Socket::new(Domain::for_address(nonce), Type::STREAM, None)?;
            socket.set_linger(Some(Duration::ZERO))?;
            keep_in(&socket, nonce, binds)?;
            Ok(socket)
        };
        let socket: Socket = open().map_err(Lost::Untried)?;
        // Where this process may not call bpf(2), a program takes the mark, and none may be there any more.
        let dial = || {
            self.bypass.probe_listener(socket.as_fd(), nonce, direction)?;
            socket.connect_timeout(&nonce.into(), LIMIT)
        };
        match dial() {
            Ok(()) => Ok(Dialled(socket)),
            Err(error) if is_scarce(&error) => Err(Lost::Untried(error)),
            Err(error) => Err(Lost::Failed(error)),
        }
    }

    /// Where nothing keeps the SYN in, the connect hook has to: it is looked for first.
    fn look_before(&self) -> Result<(), Lost> {
        match self.look_here(Family::V6) {
            Ok(_) => Ok(()),
            Err(Unseen::Io { source }) => Err(Lost::Untried(source)),
            Err(unseen) => Err(Lost::Failed(io::Error::other(unseen))),
        }
    }

    /// `None`: the programs have done it all. Otherwise what they have not.
    fn is_seen(&self, listener: &Socket, client: SocketAddr) -> io::Result<Option<&'static str>> {
        let own = address(&listener.local_addr()?)?;
        let dialling = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
        // It ends with a reset, which leaves nothing in TIME_WAIT.
        dialling.set_linger(Some(Duration::ZERO))?;
        match self.bypass.probe(dialling.as_fd(), client, own) {
            Ok(()) => {}
            Err(error) if is_scarce(&error) => return Err(error),
            // It is a program that takes the mark, or refuses it.
            Err(_) => return Ok(Some("setsockopt")),
        }
        match dialling.connect_timeout(&self.bypass.door(own).into(), LIMIT) {
            Ok(()) => {}
            Err(error) if is_scarce(&error) => return Err(error),
            // Refused by the kernel, or by a program of somebody else's.
            Err(_) => return Ok(Some("connect")),
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
            cgroup: self.pod.cgroup_path().into(),
            own: unified(&own).unwrap_or("that nobody can name").into(),
            what,
        }
    }
}

fn is_there(family: Family) -> bool {
    let at = SocketAddr::new(family.loopback(), 0);
    let bound =
        Socket::new(Domain::for_address(at), Type::STREAM, None).and_then(|socket| socket.bind(&at.into()));
    !bound.is_err_and(|error| is_no_family(&error))
}

/// Where the connect hook is gone the SYN is not to get into the network. Bound to loopback's device it ends there; the hook
/// takes the binding off, for which the kernel asks the process that connects for CAP_NET_RAW. Without that a loopback
/// source does it, from which IPv4 lets nothing out. IPv6 does: such a SYN ends at the first hop, and is sent only where the
/// hook is gone since the moment before. `binds`: this thread has the capability.
fn keep_in(socket: &Socket, nonce: SocketAddr, binds: bool) -> io::Result<()> {
    if binds {
        return socket.bind_device(Some(b"lo"));
    }
    match nonce {
        SocketAddr::V4(_) => socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()),
        SocketAddr::V6(_) => {
            socket.set_unicast_hops_v6(1)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into())
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

/// Says nothing about the programs.
fn is_scarce(error: &io::Error) -> bool {
    let scarce = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOMEM,
        Errno::ENOBUFS,
        Errno::EADDRNOTAVAIL,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| scarce.contains(&Errno::from_raw(errno)))
}

fn is_no_family(error: &io::Error) -> bool {
    let absent = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    error
        .raw_os_error()
        .is_some_and(|errno| absent.contains(&Errno::from_raw(errno)))
}
