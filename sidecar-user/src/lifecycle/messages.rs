//! Messages between two processes of one network namespace, each of which may carry descriptors: a unix socket of packets at
//! an abstract name. Knows nothing of what is said, and trusts nobody: see [`Messages::peer`].

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType,
    UnixAddr, accept4, bind, connect, getsockopt, listen, recvmsg, sendmsg, shutdown, socket, sockopt,
};

use tokio::io::Interest;

use super::sys;

/// Longer ones are cut, and then make no sense.
const LONGEST: usize = 16384;
/// In one message.
pub const MOST_DESCRIPTORS: usize = 250;

/// One end of a conversation.
#[derive(Debug)]
pub struct Messages(OwnedFd);

/// A message and what came with it.
#[derive(Debug)]
pub struct Message {
    pub text: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// Waits for conversations.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// The process at the other end, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0: of another PID namespace.
    pub pid: u32,
    pub uid: u32,
}

impl Peer {
    /// Of root, or of this process's own user.
    pub fn is_trusted(&self) -> bool {
        self.uid == 0 || self.uid == nix::unistd::geteuid().as_raw()
    }
}

impl Listener {
    /// Nobody else may have the name.
    pub fn bind(name: &str) -> io::Result<Self> {
        Self::at(&UnixAddr::new_abstract(name.as_bytes())?)
    }

    /// At a path, for its owner alone. Whatever an earlier process has left there is removed.
    pub fn bind_path(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = Self::at(&UnixAddr::new(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    fn at(address: &UnixAddr) -> io::Result<Self> {
        let socket = new()?;
        bind(socket.as_raw_fd(), address)?;
        listen(&socket, Backlog::new(16)?)?;
        Ok(Self(socket))
    }

    /// One that another process has bound, and hands over.
    pub fn received(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Waits for the next one; an error once it was closed.
    pub fn accept(&self) -> io::Result<Messages> {
        let accepted = accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        Ok(Messages(sys::own(accepted)))
    }

    /// As [`Self::accept`], without a thread that waits. Within a tokio runtime.
    pub async fn next(&self) -> io::Result<Messages> {
        let watched = sys::watch(self.0.try_clone()?, Interest::READABLE)?;
        let _ready = watched.readable().await?;
        self.accept()
    }

    /// Whoever waits here waits no longer.
    pub fn close(&self) -> io::Result<()> {
        Ok(shutdown(self.0.as_raw_fd(), Shutdown::Both)?)
    }
}

impl Messages {
    /// A conversation that another process has begun, and hands over.
    pub fn received(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub fn connect(name: &str) -> io::Result<Self> {
        let socket = new()?;
        connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        Ok(Self(socket))
    }

    pub fn connect_path(path: &Path) -> io::Result<Self> {
        let socket = new()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(socket))
    }

    pub fn peer(&self) -> io::Result<Peer> {
        let credentials = getsockopt(&self.0, sockopt::PeerCredentials)?;
        Ok(Peer {
            pid: u32::try_from(credentials.pid()).unwrap_or(0),
            uid: credentials.uid(),
        })
    }

    /// The process that has connected. `None`: the kernel knows it by its number alone.
    pub fn peer_pidfd(&self) -> io::Result<Option<OwnedFd>> {
        sys::peer_pidfd(self.0.as_fd())
    }

    pub fn send(&self, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let text = [IoSlice::new(text)];
        sendmsg::<()>(self.0.as_raw_fd(), &text, control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next message; `None` once the other end is gone. Waits no longer than `limit`.
    pub fn receive(&self, limit: Option<Duration>) -> io::Result<Option<Message>> {
        if !is_readable(self.0.as_fd(), limit)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut text = vec![0; LONGEST];
        let mut control = cmsg_space!([RawFd; MOST_DESCRIPTORS]);
        let (length, descriptors) = {
            let mut into = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let received = match recvmsg::<()>(self.0.as_raw_fd(), &mut into, Some(&mut control), flags) {
                // The other end has not read all of ours. The kernel says so once, before what it has sent.
                Err(nix::errno::Errno::ECONNRESET) => {
                    return self.receive(Some(Duration::ZERO)).or_else(nothing_more);
                }
                received => received?,
            };
            let mut descriptors = Vec::new();
            for message in received.cmsgs()? {
                if let ControlMessageOwned::ScmRights(rights) = message {
                    descriptors.extend(rights.into_iter().map(sys::own));
                }
            }
            (received.bytes, descriptors)
        };
        // Nobody sends an empty message.
        if length == 0 {
            return Ok(None);
        }
        text.truncate(length);
        Ok(Some(Message { text, descriptors }))
    }

    /// Completes when the other end is gone, or has said something that nobody has asked for. Within a tokio runtime.
    pub async fn over(&self) -> io::Result<()> {
        let watched = sys::watch(self.0.try_clone()?, Interest::READABLE)?;
        watched.readable().await.map(drop)
    }
}

impl AsFd for Messages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn nothing_more(error: io::Error) -> io::Result<Option<Message>> {
    match error.kind() {
        io::ErrorKind::TimedOut => Ok(None),
        _ => Err(error),
    }
}

fn is_readable(socket: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<bool> {
    let limit = limit.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
    let limit = limit.map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut wanted = [PollFd::new(socket, PollFlags::POLLIN)];
    loop {
        match poll(&mut wanted, limit) {
            Err(nix::errno::Errno::EINTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

fn new() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::Future;
    use std::io::Read;
    use std::task::Poll;

    use super::*;

    fn pair(name: &str) -> (Messages, Messages) {
        let name = format!("outrigger-test-{name}-{}", std::process::id());
        let listener = Listener::bind(&name).unwrap();
        Listener::bind(&name).expect_err("the name is taken");
        let there = Messages::connect(&name).unwrap();
        (there, listener.accept().unwrap())
    }

    #[test]
    fn whoever_waits_learns_that_nobody_will_come() {
        let name = format!("outrigger-test-closed-{}", std::process::id());
        let listener = Listener::bind(&name).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.accept().is_err());
            listener.close().unwrap();
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (there, here) = pair("whole");
        let file = File::open("/proc/self/comm").unwrap();
        there.send(b"one", &[file.as_fd()]).unwrap();
        there.send(b"two", &[]).unwrap();
        let one = here.receive(None).unwrap().unwrap();
        assert_eq!((one.text.as_slice(), one.descriptors.len()), (&b"one"[..], 1));
        let mut name = String::new();
        let mut file = File::from(one.descriptors.into_iter().next().unwrap());
        file.read_to_string(&mut name).unwrap();
        assert!(!name.is_empty());
        let two = here.receive(None).unwrap().unwrap();
        assert_eq!((two.text.as_slice(), two.descriptors.len()), (&b"two"[..], 0));
    }

    #[test]
    fn the_end_is_seen_and_so_is_silence_and_who_is_there() {
        let (there, here) = pair("end");
        let peer = here.peer().unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let silence = here.receive(Some(Duration::from_millis(1))).unwrap_err();
        assert_eq!(silence.kind(), io::ErrorKind::TimedOut);
        there.send(b"last", &[]).unwrap();
        drop(there);
        assert_eq!(here.receive(None).unwrap().unwrap().text, b"last");
        assert!(here.receive(None).unwrap().is_none());
    }

    #[test]
    fn the_last_message_arrives_from_an_end_that_has_not_read_ours() {
        let (there, here) = pair("unread");
        there.send(b"unread", &[]).unwrap();
        here.send(b"no", &[]).unwrap();
        drop(here);
        assert_eq!(there.receive(None).unwrap().unwrap().text, b"no");
        assert!(there.receive(None).unwrap().is_none());
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_is_woken_by_it_and_not_before() {
        let (there, here) = pair("over");
        let mut over = std::pin::pin!(here.over());
        let waits = std::future::poll_fn(|cx| Poll::Ready(over.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        drop(there);
        over.await.unwrap();
    }
}
