//! WHO MAY WAIT AT THE DOOR? Places for connections that have proved nothing yet: a newcomer always gets one, and who
//! holds one too long gives it up.
//!
//! A listener with a fixed number of places that are held until a timeout is closed by whoever fills them with silence.
//! Here the number is fixed too, but the newcomer takes the place of another: of its own source's oldest, where the source
//! has used up its quota, else of the oldest of the source that holds the most. So a few sources that open connections
//! faster than an honest client can finish a handshake displace each other, and not the client.
//!
//! Where the newcomers' own work takes the core, [`Turns`] lets each source have its share of it.
//!
//! Accepts nothing, reads nothing, closes nothing: whoever holds a [`Guest`] does, when [`Guest::evicted`] completes. Knows no
//! clock.

mod limits;
mod source;
mod table;
mod turns;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use source::Source;
use table::Table;

pub use limits::{Counts, Limits};
pub use turns::Turns;

/// The places of one door. Cheap to clone; the clones share them.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    table: Mutex<Table<Arc<Notify>>>,
}

/// A connection's place, until it is proved, evicted or dropped.
#[derive(Debug)]
pub struct Guest {
    admission: Admission,
    source: Source,
    number: u64,
    evicted: Arc<Notify>,
}

impl Admission {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            table: Mutex::default(),
        }))
    }

    /// Always gives a place. Whoever has to make room for it is evicted. `None`: no address, as on a unix socket.
    pub fn enter(&self, source: Option<IpAddr>) -> Guest {
        let source = Source::of(source);
        let evicted = Arc::new(Notify::new());
        let mut table = self.table();
        let (number, displaced) = table.enter(source, evicted.clone(), &self.0.limits);
        drop(table);
        for notify in displaced {
            // Stores a permit, so that the news is not lost on a guest that does not listen at this moment.
            notify.notify_one();
        }
        Guest {
            admission: self.clone(),
            source,
            number,
            evicted,
        }
    }

    pub fn counts(&self) -> Counts {
        self.table().counts()
    }

    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Locks even after a panic in another holder: the table is valid between any two of its calls.
    fn table(&self) -> MutexGuard<'_, Table<Arc<Notify>>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Completes when the place was given to another connection: this one is to be closed. Never completes once the
    /// connection is proved.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// How long the first byte may take, as things are now.
    pub fn first_byte_limit(&self) -> Duration {
        let limits = &self.admission.0.limits;
        if self.admission.table().is_pressed(self.source, limits) {
            limits.first_byte_under_pressure
        } else {
            limits.first_byte
        }
    }

    /// The connection has proved what this door asks for and no longer needs a place. `false`: it was evicted before,
    /// and is to be closed all the same.
    pub fn proved(&self) -> bool {
        self.admission.table().leave(self.source, self.number)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.admission.table().leave(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(places: usize, per_source: usize) -> Limits {
        Limits {
            places,
            per_source,
            first_byte: Duration::from_secs(10),
            first_byte_under_pressure: Duration::from_secs(2),
        }
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    async fn is_evicted(guest: &Guest) -> bool {
        tokio::select! {
            biased;
            () = guest.evicted() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn a_newcomer_takes_the_place_of_the_oldest() {
        let admission = Admission::new(limits(2, 2));
        let first = admission.enter(ip("10.0.0.1"));
        let second = admission.enter(ip("10.0.0.2"));
        assert!(!is_evicted(&first).await);
        let third = admission.enter(ip("10.0.0.3"));
        assert!(is_evicted(&first).await);
        assert!(!first.proved(), "too late");
        assert!(!is_evicted(&second).await && !is_evicted(&third).await);
        let counts = admission.counts();
        assert_eq!((counts.waiting, counts.evicted_when_full), (2, 1));
    }

    #[tokio::test]
    async fn a_crowd_from_few_sources_displaces_itself() {
        let admission = Admission::new(limits(8, 4));
        let honest = admission.enter(ip("10.0.0.9"));
        let crowd: Vec<_> = (0..30)
            .map(|n| admission.enter(ip(&format!("10.0.0.{}", n % 3))))
            .collect();
        assert!(!is_evicted(&honest).await, "it came first, and holds one place");
        assert!(is_evicted(&crowd[0]).await);
        let late = admission.enter(ip("10.0.0.8"));
        let _more: Vec<_> = (0..30)
            .map(|n| admission.enter(ip(&format!("10.0.0.{}", n % 3))))
            .collect();
        assert!(!is_evicted(&late).await && honest.proved());
        let counts = admission.counts();
        assert_eq!(counts.waiting, 7);
        assert!(counts.evicted_when_full > 0);
    }

    #[tokio::test]
    async fn a_source_beyond_its_quota_displaces_its_own() {
        let admission = Admission::new(limits(100, 2));
        let other = admission.enter(ip("2001:db8:0:2::1"));
        let flood: Vec<_> = (1..=4)
            .map(|host| admission.enter(ip(&format!("2001:db8:0:1::{host}"))))
            .collect();
        assert!(!is_evicted(&other).await, "another /64");
        assert!(is_evicted(&flood[0]).await && is_evicted(&flood[1]).await);
        assert!(!is_evicted(&flood[2]).await && !is_evicted(&flood[3]).await);
        let counts = admission.counts();
        assert_eq!((counts.waiting, counts.evicted_by_quota), (3, 2));
    }

    #[tokio::test]
    async fn who_is_proved_or_gone_holds_no_place() {
        let admission = Admission::new(limits(1, 1));
        let proved = admission.enter(ip("10.0.0.1"));
        assert!(proved.proved());
        drop(admission.enter(ip("10.0.0.1")));
        let newcomer = admission.enter(ip("10.0.0.2"));
        assert!(!is_evicted(&proved).await && !is_evicted(&newcomer).await);
        assert_eq!(
            admission.counts(),
            Counts {
                waiting: 1,
                ..Counts::default()
            }
        );
    }

    #[test]
    fn time_is_short_under_pressure() {
        let admission = Admission::new(limits(10, 4));
        let first = admission.enter(ip("10.0.0.1"));
        assert_eq!(first.first_byte_limit(), Duration::from_secs(10));
        let _more = [admission.enter(ip("10.0.0.1")), admission.enter(ip("10.0.0.1"))];
        assert_eq!(
            first.first_byte_limit(),
            Duration::from_secs(2),
            "its own source presses"
        );
        let other = admission.enter(ip("10.0.0.2"));
        assert_eq!(other.first_byte_limit(), Duration::from_secs(10));
        let _crowd: Vec<_> = (3..=5)
            .map(|host| admission.enter(ip(&format!("10.0.0.{host}"))))
            .collect();
        assert_eq!(
            other.first_byte_limit(),
            Duration::from_secs(2),
            "the door is crowded"
        );
    }
}
