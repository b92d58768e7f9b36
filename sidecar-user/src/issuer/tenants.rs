//! Places for connections that have proved an identity: so many for each, and so many in all. Who comes beyond either
//! takes the place of the oldest that asks nothing at the moment, else of the oldest.
//!
//! Somebody with a stolen token can hold no more than the places of its identity. Closes nothing itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) per_identity: usize,
    pub(super) all: usize,
}

/// A connection, as far as it matters here.
pub(super) trait Tenant {
    /// A request of it is under way.
    fn is_busy(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Tenants<T> {
    limits: Limits,
    table: Mutex<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    next: u64,
    /// By the number of arrival, so that the first is the oldest.
    all: BTreeMap<u64, (Arc<str>, Arc<T>)>,
    by_identity: HashMap<Arc<str>, BTreeSet<u64>>,
}

impl<T: Tenant> Tenants<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Mutex::new(Table {
                next: 0,
                all: BTreeMap::new(),
                by_identity: HashMap::new(),
            }),
        }
    }

    /// The newcomer's number, and who has to go for it.
    pub(super) fn enter(&self, owner: &Arc<str>, tenant: &Arc<T>) -> (u64, Option<Arc<T>>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let crowded = table.by_identity.get(owner).map_or(0, BTreeSet::len) >= self.limits.per_identity;
        let leaving = match crowded {
            true => table.choose(table.by_identity[owner].iter()),
            false if table.all.len() >= self.limits.all => table.choose(table.all.keys()),
            false => None,
        };
        let displaced = leaving.and_then(|number| table.remove(number));
        let number = table.next;
        table.next += 1;
        table.all.insert(number, (owner.clone(), tenant.clone()));
        table.by_identity.entry(owner.clone()).or_default().insert(number);
        (number, displaced)
    }

    pub(super) fn leave(&self, number: u64) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.remove(number);
    }

    pub(super) fn len(&self) -> usize {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .all
            .len()
    }
}

impl<T: Tenant> Table<T> {
    fn choose<'a>(&self, numbers: impl Iterator<Item = &'a u64> + Clone) -> Option<u64> {
        let is_idle = |number: &&u64| self.all.get(number).is_some_and(|(_, tenant)| !tenant.is_busy());
        numbers
            .clone()
            .find(is_idle)
            .or_else(|| numbers.clone().next())
            .copied()
    }

    fn remove(&mut self, number: u64) -> Option<Arc<T>> {
        let (identity, tenant) = self.all.remove(&number)?;
        if let Some(numbers) = self.by_identity.get_mut(&identity) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
        Some(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Guest(&'static str, bool);

    impl Tenant for Guest {
        fn is_busy(&self) -> bool {
            self.1
        }
    }

    fn id(account: &str) -> Arc<str> {
        account.into()
    }

    fn tenants(per_identity: usize, all: usize) -> Tenants<Guest> {
        Tenants::new(Limits { per_identity, all })
    }

    fn enter(
        tenants: &Tenants<Guest>,
        account: &str,
        name: &'static str,
        busy: bool,
    ) -> (u64, Option<&'static str>) {
        let (number, displaced) = tenants.enter(&id(account), &Arc::new(Guest(name, busy)));
        (number, displaced.map(|guest| guest.0))
    }

    #[test]
    fn an_identity_beyond_its_places_displaces_its_own_oldest_that_asks_nothing() {
        let tenants = tenants(2, 10);
        assert_eq!(enter(&tenants, "other", "other", false).1, None);
        assert_eq!(enter(&tenants, "a", "busy", true).1, None);
        assert_eq!(enter(&tenants, "a", "idle", false).1, None);
        assert_eq!(enter(&tenants, "a", "third", true).1, Some("idle"));
        assert_eq!(
            enter(&tenants, "a", "fourth", true).1,
            Some("busy"),
            "none is idle"
        );
        assert_eq!(tenants.len(), 3);
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_of_all_goes() {
        let tenants = tenants(2, 2);
        let (first, _) = enter(&tenants, "a", "a", false);
        enter(&tenants, "b", "b", false);
        tenants.leave(first);
        assert_eq!(enter(&tenants, "c", "c", false).1, None);
        assert_eq!(enter(&tenants, "d", "d", false).1, Some("b"));
    }
}
