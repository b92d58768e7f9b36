//! Names that somebody needs, counted: asked for once however many need them, and given up when nobody has for a while. Asks
//! nobody itself; `follow.rs` does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

#[derive(Debug)]
pub struct Demands {
    names: Mutex<HashMap<Arc<str>, Need>>,
    changed: Notify,
    limits: DemandLimits,
}

#[derive(Clone, Copy, Debug)]
pub struct DemandLimits {
    /// How long a name is kept that nobody needs; half of it more at most, so that not all go at once.
    pub idle: Duration,
    /// Names at a time. Beyond it, the one goes that nobody has needed for longest.
    pub names: usize,
}

#[derive(Debug)]
struct Need {
    users: usize,
    /// When it goes, if nobody needs it until then.
    until: Instant,
    asked: bool,
}

/// What has to be asked for and given up, since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub wanted: Vec<Arc<str>>,
    pub unwanted: Vec<Arc<str>>,
    /// When there may be something to give up.
    pub next: Option<Instant>,
}

/// The names that one user needs, until it is dropped.
#[derive(Debug)]
pub struct Needs {
    demands: Arc<Demands>,
    names: Vec<Arc<str>>,
}

impl Demands {
    pub fn new(limits: DemandLimits) -> Arc<Self> {
        Arc::new(Self {
            names: Mutex::default(),
            changed: Notify::new(),
            limits,
        })
    }

    pub fn needs(self: &Arc<Self>) -> Needs {
        Needs {
            demands: self.clone(),
            names: Vec::new(),
        }
    }

    /// Somebody needs the name now, for a moment.
    pub fn touch(&self, name: &Arc<str>, now: Instant) {
        let mut names = self.lock();
        let until = self.until(now);
        if let Some(need) = names.get_mut(name) {
            need.until = until;
            return;
        }
        if names.len() >= self.limits.names && !give_way(&mut names) {
            return;
        }
        let need = Need {
            users: 0,
            until,
            asked: false,
        };
        names.insert(name.clone(), need);
        drop(names);
        self.changed.notify_one();
    }

    pub fn due(&self, now: Instant) -> Due {
        let mut due = Due::default();
        let mut names = self.lock();
        names.retain(|name, need| {
            if need.users == 0 && need.until <= now {
                if need.asked {
                    due.unwanted.push(name.clone());
                }
                return false;
            }
            if !need.asked {
                need.asked = true;
                due.wanted.push(name.clone());
            }
            if need.users == 0 {
                due.next = Some(due.next.map_or(need.until, |next: Instant| next.min(need.until)));
            }
            true
        });
        due
    }

    /// Completes when there may be something due.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn until(&self, now: Instant) -> Instant {
        now + self.limits.idle.mul_f64(1.0 + fastrand::f64() / 2.0)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Need>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the one go that is the next to go anyway. It is given up with the others that are due.
fn give_way(names: &mut HashMap<Arc<str>, Need>) -> bool {
    let idle = names.values_mut().filter(|need| need.users == 0 && need.asked);
    let Some(first) = idle.min_by_key(|need| need.until) else {
        return false;
    };
    first.until = Instant::now();
    true
}

impl Needs {
    pub fn add(&mut self, names: &[Arc<str>], now: Instant) {
        if names.is_empty() {
            return;
        }
        let mut all = self.demands.lock();
        for name in names {
            let need = all.entry(name.clone()).or_insert(Need {
                users: 0,
                until: now,
                asked: false,
            });
            need.users += 1;
            self.names.push(name.clone());
        }
        drop(all);
        self.demands.changed.notify_one();
    }

    pub fn remove(&mut self, names: &[Arc<str>], now: Instant) {
        for name in names {
            if let Some(at) = self.names.iter().position(|needed| needed == name) {
                self.names.swap_remove(at);
                self.release(name, now);
            }
        }
        self.demands.changed.notify_one();
    }

    fn release(&self, name: &Arc<str>, now: Instant) {
        let until = self.demands.until(now);
        if let Some(need) = self.demands.lock().get_mut(name) {
            need.users -= 1;
            need.until = until;
        }
    }
}

impl Drop for Needs {
    fn drop(&mut self) {
        let now = Instant::now();
        for name in std::mem::take(&mut self.names) {
            self.release(&name, now);
        }
        self.demands.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn demands(names: usize) -> Arc<Demands> {
        Demands::new(DemandLimits { idle: IDLE, names })
    }

    #[test]
    fn a_name_that_many_need_is_asked_for_once_and_given_up_after_the_last() {
        let (demands, start) = (demands(10), Instant::now());
        let name: Arc<str> = "/10.0.0.1".into();
        let (mut one, mut other) = (demands.needs(), demands.needs());
        one.add(std::slice::from_ref(&name), start);
        other.add(std::slice::from_ref(&name), start);
        assert_eq!(demands.due(start).wanted, std::slice::from_ref(&name));
        assert_eq!(demands.due(start + 10 * IDLE), Due::default());
        one.remove(std::slice::from_ref(&name), start);
        assert_eq!(demands.due(start + 10 * IDLE), Due::default());
        other.remove(std::slice::from_ref(&name), start);
        let due = demands.due(start + IDLE - Duration::from_secs(1));
        assert!(due.unwanted.is_empty() && due.next.is_some());
        assert_eq!(demands.due(start + 2 * IDLE).unwanted, [name]);
        assert!(demands.is_empty());
    }

    #[test]
    fn a_name_that_is_needed_again_in_time_stays() {
        let (demands, start) = (demands(10), Instant::now());
        let name: Arc<str> = "/10.0.0.1".into();
        demands.touch(&name, start);
        assert_eq!(demands.due(start).wanted, std::slice::from_ref(&name));
        demands.touch(&name, start + IDLE);
        assert_eq!(demands.due(start + IDLE + IDLE / 2).unwanted, []);
        assert_eq!(demands.due(start + 3 * IDLE).unwanted, [name]);
    }

    #[test]
    fn beyond_the_limit_the_one_goes_that_was_needed_longest_ago() {
        let (demands, start) = (demands(2), Instant::now());
        let names: [Arc<str>; 3] = ["/10.0.0.1".into(), "/10.0.0.2".into(), "/10.0.0.3".into()];
        demands.touch(&names[0], start);
        demands.touch(&names[1], start + 10 * IDLE);
        demands.due(start);
        demands.touch(&names[2], start);
        let due = demands.due(Instant::now());
        assert_eq!(
            (due.wanted, due.unwanted),
            (vec![names[2].clone()], vec![names[0].clone()])
        );
    }
}
