//! Which endpoint the pod's connections to a service go to, where the service asks for that (session affinity by client
//! address: the clients of a sidecar are one pod). Chooses none; `route/` does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::model::{Service, ServiceName, Workload};

/// Services that a pod remembers endpoints of. Beyond that those are forgotten that were used longest ago.
const MOST: usize = 1024;

#[derive(Default)]
pub(super) struct Affinities(Mutex<HashMap<Key, Kept>>);

/// As kube-proxy has it, each port of a service for itself: other endpoints may serve the other.
type Key = (ServiceName, u16);

struct Kept {
    workload: Arc<Workload>,
    used: Instant,
    until: Instant,
}

impl Affinities {
    /// Chooses for a connection to that port of the service: `choose` learns whom it stays with, and what it answers is
    /// kept. Connections that begin at the same time wait for one another here, and so go to the same endpoint.
    pub(super) fn choose<R>(
        &self,
        service: &Service,
        port: u16,
        now: Instant,
        choose: impl FnOnce(Option<&str>) -> (R, Option<Arc<Workload>>),
    ) -> R {
        let Some(affinity) = service.affinity else {
            return choose(None).0;
        };
        let key = (service.name.clone(), port);
        let mut all = self.all();
        let kept = all.get(&key).filter(|kept| now < kept.until);
        let (chosen, workload) = choose(kept.map(|kept| kept.workload.uid.as_str()));
        if let Some(workload) = workload {
            if all.len() == MOST && !all.contains_key(&key) {
                make_room(&mut all, now);
            }
            let kept = Kept {
                workload,
                used: now,
                until: now + affinity.timeout,
            };
            all.insert(key, kept);
        }
        chosen
    }

    /// Whom a connection to that port of the service would stay with.
    pub(super) fn of(&self, service: &Service, port: u16, now: Instant) -> Option<Arc<Workload>> {
        service.affinity?;
        let all = self.all();
        let kept = all.get(&(service.name.clone(), port));
        kept.filter(|kept| now < kept.until)
            .map(|kept| kept.workload.clone())
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_room(all: &mut HashMap<Key, Kept>, now: Instant) {
    all.retain(|_, kept| now < kept.until);
    let oldest = all.iter().min_by_key(|(_, kept)| kept.used);
    if let Some(oldest) = oldest.map(|(key, _)| key.clone()).filter(|_| all.len() == MOST) {
        all.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Affinity, Locality, SpiffeId, TunnelProtocol};

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn service(name: usize) -> Service {
        Service {
            name: ServiceName {
                namespace: "t".into(),
                hostname: format!("s{name}").into(),
            },
            affinity: Some(Affinity { timeout: TIMEOUT }),
            ..Service::default()
        }
    }

    fn workload(uid: &str) -> Arc<Workload> {
        Arc::new(Workload {
            uid: uid.into(),
            name: String::new(),
            namespace: "t".into(),
            identity: SpiffeId::new("td.test", "t", "w").unwrap(),
            addresses: Vec::new(),
            protocol: TunnelProtocol::None,
            healthy: true,
            capacity: 1,
            locality: Locality::default(),
            node: String::new(),
        })
    }

    /// Whom it stayed with before `next` was chosen.
    fn goes(all: &Affinities, service: &Service, port: u16, now: Instant, next: &str) -> Option<String> {
        all.choose(service, port, now, |kept| {
            (kept.map(str::to_owned), Some(workload(next)))
        })
    }

    #[test]
    fn each_use_keeps_the_endpoint_for_the_timeout_and_silence_ends_it() {
        let (all, start) = (Affinities::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(goes(&all, &service(1), 80, start, "a"), None);
        let later = start + TIMEOUT - second;
        assert_eq!(goes(&all, &service(1), 80, later, "a").as_deref(), Some("a"));
        let later = later + TIMEOUT - second;
        assert_eq!(goes(&all, &service(1), 80, later, "b").as_deref(), Some("a"));
        assert_eq!(
            all.of(&service(1), 80, later).unwrap().uid,
            "b",
            "what is chosen last"
        );
        assert_eq!(goes(&all, &service(1), 80, later + TIMEOUT, "a"), None);
    }

    #[test]
    fn ports_and_services_are_kept_apart_and_one_without_affinity_is_not_kept() {
        let (all, now) = (Affinities::default(), Instant::now());
        goes(&all, &service(1), 80, now, "a");
        assert_eq!(goes(&all, &service(1), 81, now, "b"), None);
        assert_eq!(goes(&all, &service(2), 80, now, "b"), None);
        let without = Service {
            affinity: None,
            ..service(1)
        };
        assert_eq!(goes(&all, &without, 80, now, "b"), None);
        assert_eq!(all.of(&service(1), 80, now).unwrap().uid, "a");
    }

    #[test]
    fn nothing_is_kept_where_nobody_is_chosen() {
        let (all, now) = (Affinities::default(), Instant::now());
        goes(&all, &service(1), 80, now, "a");
        all.choose(&service(1), 80, now, |_| ((), None));
        assert_eq!(all.of(&service(1), 80, now).unwrap().uid, "a");
    }

    #[test]
    fn the_memory_is_bounded_and_what_was_used_longest_ago_goes_first() {
        let (all, start) = (Affinities::default(), Instant::now());
        for n in 0..=MOST {
            goes(
                &all,
                &service(n),
                80,
                start + Duration::from_micros(n as u64),
                "a",
            );
        }
        let now = start + Duration::from_secs(1);
        assert_eq!(all.all().len(), MOST);
        assert!(all.of(&service(0), 80, now).is_none());
        assert!(all.of(&service(1), 80, now).is_some());
        assert!(all.of(&service(MOST), 80, now).is_some());
    }
}
