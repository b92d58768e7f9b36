//! What was proved of a token, for a few seconds: an agent shows the same one with each request, and a review costs the API server
//! something. It keeps a hash and never the token.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

/// So long may something stay in force that is no longer true: a pod that has gone, a token that was revoked.
const LIFE: Duration = Duration::from_secs(10);
/// One entry is some hundred bytes.
const MOST: usize = 4096;

#[derive(Debug)]
pub struct Remembered<T>(Mutex<HashMap<[u8; 32], Entry<T>>>);

#[derive(Debug)]
struct Entry<T> {
    proved: T,
    until: SystemTime,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Remembered<T> {
    pub fn get(&self, token: &str, now: SystemTime) -> Option<T> {
        let table = self.lock();
        let entry = table.get(&hash(token))?;
        // A clock that was set back must not make it live longer.
        let is_fresh = now < entry.until && entry.until <= now + LIFE;
        is_fresh.then(|| entry.proved.clone())
    }

    /// Never longer than the token itself is good.
    pub fn put(&self, token: &str, proved: T, expires: SystemTime, now: SystemTime) {
        let until = expires.min(now + LIFE);
        let mut table = self.lock();
        if table.len() >= MOST {
            table.retain(|_, entry| now < entry.until);
        }
        // Whoever comes now is looked up again the next time.
        if table.len() < MOST {
            table.insert(hash(token), Entry { proved, until });
        }
    }

    pub fn forget(&self, token: &str) {
        self.lock().remove(&hash(token));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Entry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_forgotten_after_ten_seconds_and_with_the_end_of_the_token() {
        let (known, now) = (Remembered::default(), SystemTime::now());
        known.put("long", 1, now + SECOND * 3600, now);
        known.put("short", 2, now + SECOND * 3, now);
        let at = |token, seconds| known.get(token, now + SECOND * seconds);
        assert_eq!((at("long", 9), at("long", 10)), (Some(1), None));
        assert_eq!((at("short", 2), at("short", 3)), (Some(2), None));
        assert_eq!(at("other", 0), None);
        assert_eq!(known.get("long", now - SECOND), None, "the clock was set back");
        known.forget("long");
        assert_eq!(at("long", 1), None);
    }

    #[test]
    fn it_has_only_so_many_places_which_those_leave_that_are_over() {
        let (known, now) = (Remembered::default(), SystemTime::now());
        for n in 0..=MOST {
            known.put(&n.to_string(), n, now + LIFE, now);
        }
        assert_eq!(known.lock().len(), MOST);
        let later = now + LIFE;
        known.put("late", 0, later + LIFE, later);
        assert_eq!(known.lock().len(), 1);
    }
}
