//! How people call the pods of Kubernetes that the agent knows by their uids: `namespace/name`. Only what is shown and asked for is
//! called so; directories and sockets have uids, which have a length that they can have.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::caller::Home;
use super::memory::Pods;

/// Pods that are gone have theirs for as long as others do not need the room.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, String>>);

impl Names {
    /// As long as the pod is served.
    pub(super) async fn follow(&self, uid: &str, home: &Home) {
        let Home::Container { known, .. } = home else {
            return std::future::pending().await;
        };
        let mut known = known.clone();
        loop {
            if let Some(pod) = &*known.borrow_and_update() {
                self.learn(uid, &format!("{}/{}", pod.namespace, pod.name));
            }
            if known.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn learn(&self, uid: &str, name: &str) {
        let mut names = self.lock();
        // Of pods of the same name the last one is meant.
        names.retain(|other, called| other == uid || called != name);
        if names.len() >= MOST
            && let Some(one) = names.keys().next().cloned()
        {
            names.remove(&one);
        }
        names.insert(uid.to_owned(), name.to_owned());
    }

    /// What it is called.
    pub(super) fn of(&self, uid: &str) -> String {
        self.lock().get(uid).map_or(uid, String::as_str).to_owned()
    }

    /// Whom somebody means, who may know the uid, too.
    pub(super) fn meant(&self, name: &str) -> String {
        let names = self.lock();
        let found = names.iter().find(|(_, called)| *called == name);
        found.map_or(name, |(uid, _)| uid).to_owned()
    }

    /// The same pods by their uids too: those that are known now.
    pub(super) fn meant_by(&self, pods: &Pods) -> Pods {
        let mut meant = pods.clone();
        let names = self.lock();
        let uids = names
            .iter()
            .filter(|(_, called)| !pods.are_all() && pods.have(called));
        meant.names.extend(uids.map(|(uid, _)| uid.clone()));
        meant
    }

    /// Whether this pod, or the one that is called so, is among them.
    pub(super) fn is_among(&self, uid: &str, pods: &Pods) -> bool {
        pods.have(uid) || pods.have(&self.of(uid))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_called_by_its_name_and_meant_by_either() {
        let names = Names::default();
        assert_eq!((names.of("u1"), names.meant("u1")), ("u1".into(), "u1".into()));
        names.learn("u1", "t/web-0");
        assert_eq!(names.of("u1"), "t/web-0");
        assert_eq!([names.meant("t/web-0"), names.meant("u1")], ["u1", "u1"]);
        names.learn("u2", "t/web-0");
        assert_eq!([names.meant("t/web-0"), names.of("u1")], ["u2", "u1"]);
    }

    #[test]
    fn the_pods_of_a_namespace_are_those_that_are_called_so_and_nobody_where_there_are_none() {
        let names = Names::default();
        names.learn("u1", "shop/web-0");
        names.learn("u2", "shopping/web-0");
        let shop = Pods {
            namespaces: ["shop".to_owned()].into(),
            ..Pods::default()
        };
        let meant = names.meant_by(&shop);
        assert!(meant.have("u1") && !meant.have("u2") && !meant.have("u3"));
        assert!(names.is_among("u1", &shop) && !names.is_among("u2", &shop));
        let none = Pods {
            namespaces: ["none".to_owned()].into(),
            ..Pods::default()
        };
        assert!(!names.meant_by(&none).have("u1"));
        assert!(names.meant_by(&Pods::default()).have("u3"));
    }

    #[test]
    fn names_are_bounded() {
        let names = Names::default();
        for n in 0..MOST + 10 {
            names.learn(&format!("u{n}"), &format!("t/p{n}"));
        }
        assert_eq!(names.lock().len(), MOST);
    }
}
