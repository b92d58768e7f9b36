//! What happens when the host has no more to give: who gets the last descriptors, and what the log says. Counts
//! nothing: a connection that is refused for it is a flow with the cause `limit_reached`.
//!
//! Connections are not given all descriptors. Were they, nobody could ask the proxy why it refuses them, and it could
//! not renew its certificate. The kernel gives the lowest free number, so that a number tells how many are in use, and
//! no list has to be kept.
//!
//! A place for a connection that is not accepted yet is a count. While the highest number that a connection ever had, and
//! the places that are promised, stay together below the limit, there is a descriptor for each promise. Nearer to the
//! limit, where free numbers lie between those in use, a place is a real descriptor.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};

use crate::model::ClientAddr;

/// Not for connections: three endpoints of 64 connections each, the certificate service, the registry's files.
const CONTROL: u64 = 256;
/// Where the limit is low, connections still get most of it.
const CONTROL_PART: u64 = 8;

/// How soon the spare descriptor is looked for that somebody else has got hold of.
const RESTOCK: Duration = Duration::from_millis(50);

/// Connections in a row are promised a place by the same answer. Between a promise and its accept() the limit may fall, too,
/// and for longer: a server takes its time to answer.
const LIMIT_AGE: Duration = Duration::from_millis(100);

/// The descriptors of one shard.
pub(super) struct Descriptors {
    /// The first number that is not for connections.
    end: usize,
    /// The limit of open files, and when it was asked for.
    limit: Cell<Option<(u64, Instant)>>,
    /// Costs nothing to duplicate.
    null: RefCell<OwnedFd>,
    /// Given up to accept a connection that is to be turned away: otherwise it would hang in the backlog. Of the two
    /// it has the lower number, which is also below a limit that somebody lowers while we run.
    spare: Cell<Option<OwnedFd>>,
    shared: Arc<Shared>,
}

/// A descriptor that no other connection gets.
pub(super) enum Place {
    Promised(Arc<Shared>),
    Taken(#[expect(dead_code, reason = "only dropped")] OwnedFd),
}

/// An accepted connection.
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) client: ClientAddr,
    /// There is a descriptor for it. If not, it can only be told so.
    pub(super) admitted: bool,
}

impl Descriptors {
    pub(super) fn new(shared: Arc<Shared>) -> io::Result<Self> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let end = limit - CONTROL.min(limit / CONTROL_PART);
        let mut spares = shared.spares.lock().unwrap_or_else(PoisonError::into_inner);
        let [spare, null] = match spares.pop() {
            Some(early) => early,
            None => spares_of_one()?,
        };
        drop(spares);
        Ok(Self {
            end: usize::try_from(end).unwrap_or(usize::MAX),
            limit: Cell::default(),
            null: RefCell::new(null),
            spare: Cell::new(Some(spare)),
            shared,
        })
    }

    /// May a connection have this one? EMFILE if not, as if the limit were lower.
    pub(super) fn admit(&self, fd: impl AsFd) -> io::Result<()> {
        // One that a shard is about to take back is nobody's: there has to be another.
        let spared = || self.shared.lent.load(Ordering::Relaxed) == 0 || self.duplicate().is_ok();
        let number = usize::try_from(fd.as_fd().as_raw_fd()).unwrap_or_default();
        // Before the promises are read: a shard that promises now sees this number, or this one sees its promise.
        self.shared.highest.fetch_max(number, Ordering::SeqCst);
        let promised = self.shared.promised.load(Ordering::SeqCst);
        if number + promised < self.end && spared() {
            Ok(())
        } else {
            Err(Errno::EMFILE.into())
        }
    }

    /// For a connection that will be accepted later, when it is too late to refuse it.
    pub(super) fn reserve(&self) -> io::Result<Place> {
        let promised = self.shared.promised.fetch_add(1, Ordering::SeqCst) + 1;
        let place = Place::Promised(self.shared.clone());
        let limit = self.limit()?;
        // Sockets of the control thread may have higher numbers than any connection.
        let taken = (self.shared.highest.load(Ordering::SeqCst) + promised) as u64;
        if taken + CONTROL < limit.min(self.end as u64) {
            return Ok(place);
        }
        drop(place);
        let fd = self.duplicate()?;
        self.admit(&fd)?;
        Ok(Place::Taken(fd))
    }

    /// The connection has come for which the place was reserved.
    pub(super) fn settle(&self, stream: TcpStream, place: Place) -> io::Result<TcpStream> {
        let taken = matches!(place, Place::Taken(_));
        drop(place);
        if self.admit(&stream).is_ok() || !taken {
            return Ok(stream);
        }
        // Accepted beside its place, it has got one of the others' descriptors: back to its own.
        let stream = stream.into_std()?;
        TcpStream::from_std(match stream.try_clone() {
            Ok(moved) if self.admit(&moved).is_ok() => moved,
            _ => stream,
        })
    }

    pub(super) fn arrival(&self, stream: TcpStream, client: ClientAddr) -> Arrival {
        let admitted = self.admit(&stream).is_ok();
        Arrival {
            stream,
            client,
            admitted,
        }
    }

    /// Accepts with the spare descriptor. `None`: there is none now, or nobody waits any more.
    pub(super) async fn last_resort(&self, listener: &TcpListener) -> Option<Arrival> {
        self.restock();
        let spare = self.spare.take()?;
        self.shared.lent.fetch_add(1, Ordering::Relaxed);
        drop(spare);
        match poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
            Poll::Ready(Ok((stream, peer))) => Some(Arrival {
                stream,
                client: ClientAddr::new(peer),
                admitted: false,
            }),
            _ => {
                self.restock();
                None
            }
        }
    }

    /// Takes a new spare descriptor, if the last one is gone and there is one.
    pub(super) fn restock(&self) {
        let spare = self.spare.take().or_else(|| {
            let mut spare = self.duplicate().ok()?;
            self.shared.lent.fetch_sub(1, Ordering::Relaxed);
            let null = &mut *self.null.borrow_mut();
            if null.as_raw_fd() < spare.as_raw_fd() {
                mem::swap(null, &mut spare);
            }
            Some(spare)
        });
        self.spare.set(spare);
    }

    /// Is the spare descriptor given up, and not back yet?
    pub(super) fn is_lent(&self) -> bool {
        let spare = self.spare.take();
        let lent = spare.is_none();
        self.spare.set(spare);
        lent
    }

    /// Completes when the spare descriptor is back. Somebody else may have had it for a while.
    pub(super) async fn restocked(&self) {
        while self.is_lent() {
            tokio::time::sleep(RESTOCK).await;
            self.restock();
        }
    }

    /// The limit as it is now: whoever lowers it while we run takes back what could be promised.
    fn limit(&self) -> io::Result<u64> {
        let now = Instant::now();
        match self.limit.get() {
            Some((limit, at)) if now.duration_since(at) < LIMIT_AGE => Ok(limit),
            _ => {
                let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
                self.limit.set(Some((limit, now)));
                Ok(limit)
            }
        }
    }

    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.null.borrow().try_clone()
    }
}

/// What one shard keeps in reserve: a descriptor to give up, and one to make it from again.
fn spares_of_one() -> io::Result<[OwnedFd; 2]> {
    let null = OwnedFd::from(File::open("/dev/null")?);
    Ok([null.try_clone()?, null])
}

/// What the host can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Resources {
    Descriptors,
    Ports,
    Memory,
    /// For connections whose SYN is held or that wait for the application, and for tunnels in their handshake.
    Places,
}

impl Resources {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE) => Self::Descriptors,
            Some(Errno::EADDRNOTAVAIL) => Self::Ports,
            None if error.kind() == io::ErrorKind::QuotaExceeded => Self::Places,
            _ => Self::Memory,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Descriptors => "raise the limit of open files (RLIMIT_NOFILE)",
            Self::Ports => {
                "widen the pod's net.ipv4.ip_local_port_range, or set its net.ipv4.tcp_tw_reuse to 1"
            }
            Self::Memory => "give the pod more memory",
            Self::Places => "too many connections wait at once for an answer from their other side",
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Promised(shared) = self {
            shared.promised.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// What all shards share.
#[derive(Default)]
pub(super) struct Shared {
    /// Places that are promised to connections, without a descriptor.
    promised: AtomicUsize,
    /// The highest number that a connection has had. It never falls.
    highest: AtomicUsize,
    /// Spare descriptors that are given up just now.
    lent: AtomicUsize,
    /// For shards that have not begun.
    spares: Mutex<Vec<[OwnedFd; 2]>>,
}

impl Shared {
    /// To be called before anything else is opened: the spare descriptors get low numbers, and are then of use also when
    /// the limit is lowered while the proxy runs.
    pub(super) fn early(shards: usize) -> io::Result<Self> {
        let spares: io::Result<Vec<_>> = (0..shards).map(|_| spares_of_one()).collect();
        Ok(Self {
            spares: Mutex::new(spares?),
            ..Self::default()
        })
    }

    /// Once for each burst and each thing that is lacking, over all shards: the log's gate sees to that.
    pub(super) fn report(&self, what: Resources) {
        tracing::warn!(
            lacking = ?what, remedy = what.remedy(),
            "new connections are refused for lack of something; those that exist go on"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_beyond_the_end_is_not_for_connections() {
        let mut descriptors = Descriptors::new(Arc::default()).unwrap();
        drop(descriptors.reserve().unwrap());
        descriptors.end = number(&descriptors.null.borrow());
        let refused = descriptors.reserve().err().unwrap();
        assert_eq!(Resources::of(&refused), Resources::Descriptors);
    }

    #[test]
    fn a_place_takes_no_descriptor_while_the_limit_is_far() {
        let descriptors = Descriptors::new(Arc::default()).unwrap();
        let place = descriptors.reserve().unwrap();
        assert!(matches!(place, Place::Promised(_)));
        assert_eq!(descriptors.shared.promised.load(Ordering::SeqCst), 1);
        drop(place);
        assert_eq!(descriptors.shared.promised.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn what_is_promised_is_given_to_no_other_connection() {
        let mut descriptors = Descriptors::new(Arc::default()).unwrap();
        let other = descriptors.duplicate().unwrap();
        let place = descriptors.reserve().unwrap();
        assert!(matches!(place, Place::Promised(_)));
        descriptors.end = number(&other) + 2;
        descriptors.admit(&other).unwrap();
        descriptors.end -= 1;
        assert!(descriptors.admit(&other).is_err(), "the last one is promised");
        drop(place);
        descriptors.admit(&other).unwrap();
    }

    /// How many are free between those in use nobody knows without asking the kernel.
    #[test]
    fn near_the_limit_a_place_is_a_descriptor() {
        let descriptors = Descriptors::new(Arc::default()).unwrap();
        let near = descriptors.end - CONTROL as usize;
        descriptors.shared.highest.store(near - 2, Ordering::SeqCst);
        assert!(matches!(descriptors.reserve().unwrap(), Place::Promised(_)));
        descriptors.shared.highest.store(near - 1, Ordering::SeqCst);
        assert!(matches!(descriptors.reserve().unwrap(), Place::Taken(_)));
        assert_eq!(descriptors.shared.promised.load(Ordering::SeqCst), 0);
    }

    fn number(fd: &OwnedFd) -> usize {
        usize::try_from(fd.as_raw_fd()).unwrap()
    }

    #[test]
    fn the_spare_descriptor_is_the_lower_one_and_comes_back() {
        let shared = Arc::new(Shared::early(1).unwrap());
        let descriptors = Descriptors::new(shared.clone()).unwrap();
        let numbers = || {
            let spare = descriptors.spare.take();
            let number = spare.as_ref().map(AsRawFd::as_raw_fd);
            descriptors.spare.set(spare);
            (number, descriptors.null.borrow().as_raw_fd())
        };
        assert!(!descriptors.is_lent());
        drop(descriptors.spare.take());
        shared.lent.fetch_add(1, Ordering::Relaxed);
        assert!(descriptors.is_lent());
        descriptors.restock();
        assert!(!descriptors.is_lent());
        let (spare, null) = numbers();
        assert!(spare.is_some_and(|spare| spare < null), "{spare:?}, {null}");
        assert_eq!(shared.lent.load(Ordering::Relaxed), 0);
    }
}
