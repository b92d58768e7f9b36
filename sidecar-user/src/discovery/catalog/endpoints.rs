//! The endpoints of one Service, over all its slices. An address may stand in several of them for a while, and is one endpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::kubernetes::{Distribution, Slice, SliceEndpoint};

#[derive(Debug, Default)]
pub(super) struct Endpoints {
    at: HashMap<IpAddr, Vec<Entry>>,
    /// Addresses at their best in this state: they serve only where nobody is ready.
    draining: BTreeSet<IpAddr>,
    /// How many addresses are ready, and how many of these have hints.
    ready: usize,
    for_zones: usize,
    for_nodes: usize,
}

/// An endpoint by its place in its slice. Those of an address stand in the order of their slices' names.
#[derive(Clone, Debug)]
struct Entry {
    slice: Arc<Slice>,
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    NotReady,
    /// It ends and serves still.
    Draining,
    Ready,
}

/// What slices say of one endpoint together.
#[derive(Debug)]
pub(super) struct Summary<'e> {
    pub(super) state: State,
    /// By the name of the Service's port.
    pub(super) ports: BTreeMap<&'e str, u16>,
    /// The first slice that has it.
    pub(super) slice: &'e Slice,
    pub(super) endpoint: &'e SliceEndpoint,
}

/// What a new version of a slice has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Names that endpoints at these addresses have or had.
    pub(super) pods: BTreeSet<Arc<str>>,
    pub(super) hints: bool,
}

impl Endpoints {
    pub(super) fn replace(&mut self, old: Option<&Arc<Slice>>, new: Option<&Arc<Slice>>) -> Effects {
        let (had, has) = (self.hints(), self.ready > 0);
        let mut addresses = differing(old, new);
        let mut pods = BTreeSet::new();
        for address in &addresses {
            self.count(*address, |count| *count -= 1);
            pods.extend(self.names(*address));
        }
        if let Some(old) = old {
            for endpoint in &old.endpoints {
                self.forget(endpoint.address, old);
            }
        }
        for (index, endpoint) in new.iter().flat_map(|new| new.endpoints.iter().enumerate()) {
            let entries = self.at.entry(endpoint.address).or_default();
            let slice = new.expect("it has this endpoint").clone();
            let at = entries.partition_point(|entry| entry.slice.name <= slice.name);
            entries.reserve_exact(1);
            entries.insert(at, Entry { slice, index });
        }
        for address in &addresses {
            self.count(*address, |count| *count += 1);
            pods.extend(self.names(*address));
        }
        if has != (self.ready > 0) {
            for address in self.draining.clone() {
                pods.extend(self.names(address));
                addresses.insert(address);
            }
        }
        Effects {
            addresses,
            pods,
            hints: had != self.hints(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.at.contains_key(&address)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.at.keys().copied()
    }

    /// The pods that endpoints at this address are said to be.
    pub(super) fn names(&self, address: IpAddr) -> impl Iterator<Item = Arc<str>> {
        let entries = self.at.get(&address).into_iter().flatten();
        entries.filter_map(|entry| entry.endpoint().pod.clone())
    }

    /// Does an endpoint in this state get connections?
    pub(super) fn is_used(&self, state: State) -> bool {
        state == State::Ready || (state == State::Draining && self.ready == 0)
    }

    /// Where traffic should stay, if every ready endpoint says so; one that does not is for everybody, and then all are.
    pub(super) fn hints(&self) -> Distribution {
        match self.ready {
            0 => Distribution::Any,
            ready if ready == self.for_nodes => Distribution::SameNode,
            ready if ready == self.for_zones => Distribution::SameZone,
            _ => Distribution::Any,
        }
    }

    /// Of the endpoints at this address that are meant, by the names of their pods.
    pub(super) fn summary(
        &self,
        address: IpAddr,
        is_meant: impl Fn(Option<&str>) -> bool,
    ) -> Option<Summary<'_>> {
        let entries = self.at.get(&address)?;
        let mut meant: Vec<(State, &Entry)> = entries
            .iter()
            .filter(|entry| is_meant(entry.endpoint().pod.as_deref()))
            .filter_map(|entry| Some((entry.state()?, entry)))
            .collect();
        let (_, first) = meant.first()?;
        let (slice, endpoint) = (&*first.slice, first.endpoint());
        // Stable, so that the first slice wins among equals.
        meant.sort_by_key(|(state, _)| std::cmp::Reverse(*state));
        let mut ports = BTreeMap::new();
        for (name, port) in meant.iter().flat_map(|(_, entry)| &entry.slice.ports) {
            ports.entry(name.as_str()).or_insert(*port);
        }
        Some(Summary {
            state: meant[0].0,
            ports,
            slice,
            endpoint,
        })
    }

    fn forget(&mut self, address: IpAddr, slice: &Slice) {
        if let Some(entries) = self.at.get_mut(&address) {
            entries.retain(|entry| entry.slice.name != slice.name);
            if entries.is_empty() {
                self.at.remove(&address);
            }
        }
    }

    /// Takes this address out of the counts, or into them.
    fn count(&mut self, address: IpAddr, step: impl Fn(&mut usize)) {
        let entries = self.at.get(&address).into_iter().flatten();
        let best = entries.clone().filter_map(Entry::state).max();
        let is_ready = |entry: &&Entry| entry.state() == Some(State::Ready);
        let hints = |is_given: fn(&SliceEndpoint) -> bool| {
            entries
                .clone()
                .filter(is_ready)
                .all(|entry| is_given(entry.endpoint()))
        };
        let (zones, nodes) = (hints(|e| e.hints.zones), hints(|e| e.hints.nodes));
        self.draining.remove(&address);
        match best {
            Some(State::Ready) => {
                step(&mut self.ready);
                zones.then(|| step(&mut self.for_zones));
                nodes.then(|| step(&mut self.for_nodes));
            }
            Some(State::Draining) => {
                self.draining.insert(address);
            }
            Some(State::NotReady) | None => {}
        }
    }
}

impl Entry {
    fn endpoint(&self) -> &SliceEndpoint {
        &self.slice.endpoints[self.index]
    }

    /// `None` for one that has ended.
    fn state(&self) -> Option<State> {
        let conditions = self.endpoint().conditions;
        match (conditions.ready, conditions.terminating, conditions.serving) {
            (true, ..) => Some(State::Ready),
            (false, true, true) => Some(State::Draining),
            (false, true, false) => None,
            (false, false, _) => Some(State::NotReady),
        }
    }
}

/// The addresses of which two versions of a slice say something else.
fn differing(old: Option<&Arc<Slice>>, new: Option<&Arc<Slice>>) -> BTreeSet<IpAddr> {
    let all = |slice: Option<&Arc<Slice>>| {
        let endpoints = slice.into_iter().flat_map(|slice| slice.endpoints.iter());
        endpoints
            .map(|endpoint| endpoint.address)
            .collect::<BTreeSet<_>>()
    };
    match (old, new) {
        (Some(old), Some(new)) if old.ports == new.ports => {
            let (before, after) = (by_address(old), by_address(new));
            let addresses = before.keys().chain(after.keys());
            addresses
                .filter(|address| before.get(address) != after.get(address))
                .copied()
                .collect()
        }
        _ => all(old).into_iter().chain(all(new)).collect(),
    }
}

fn by_address(slice: &Slice) -> HashMap<IpAddr, Vec<&SliceEndpoint>> {
    let mut all: HashMap<IpAddr, Vec<&SliceEndpoint>> = HashMap::new();
    for endpoint in &slice.endpoints {
        all.entry(endpoint.address).or_default().push(endpoint);
    }
    all
}
