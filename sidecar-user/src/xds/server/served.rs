//! One type of resources on one stream: what its client has asked for, what it holds, and what it is sent next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;

use super::super::message::{Any, DeltaRequest, DeltaResponse, Named};
use super::super::{Key, Kind, Store, Stored, Touched};
use super::audience::Audience;
use super::round::{LAST, MORE};

/// Of the resources in one response, beside which their names are small.
const RESPONSE: usize = 128 << 10;
/// As long as a workload's encoding without its own names.
const LEAST: usize = 128;
/// Names in one response that are gone.
const REMOVED: usize = 4096;

const WILDCARD: &str = "*";

#[derive(Debug)]
pub(super) struct Served {
    kind: Kind,
    wildcard: bool,
    names: HashSet<Arc<str>>,
    /// Subscribed, and the store cannot answer yet. The wildcard is one of them.
    awaited: HashSet<Arc<str>>,
    /// To be answered once nothing is queued, so that whoever sees the answer has all that belongs to it.
    answers: Vec<Arc<str>>,
    /// What the client holds: the version of each, by name.
    sent: HashMap<Arc<str>, Arc<str>>,
    /// What the client had before this stream. What is not wanted of it is gone only when everything is answered.
    claimed: Vec<Arc<str>>,
    queue: VecDeque<Arc<str>>,
    queued: HashSet<Arc<str>>,
    /// Something was queued since removals were looked for.
    fresh: bool,
    /// An answer is owed, and be it an empty one.
    owes: bool,
}

type Changed = (Vec<Arc<str>>, Vec<Arc<str>>);

impl Served {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            wildcard: false,
            names: HashSet::new(),
            awaited: HashSet::new(),
            answers: Vec::new(),
            sent: HashMap::new(),
            claimed: Vec::new(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            fresh: false,
            owes: false,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// Without names, the first request means everything. A client that subscribes to none beside the wildcard, but brings
    /// what it holds, means that.
    pub(super) fn first(&mut self, request: DeltaRequest) -> Changed {
        let by_name = request.subscribe.iter().any(|name| name != WILDCARD);
        if request.subscribe.is_empty() {
            self.wildcard = true;
        }
        self.wildcard |= request.subscribe.iter().any(|name| name == WILDCARD);
        self.wildcard &= request.unsubscribe.iter().all(|name| name != WILDCARD);
        if self.wildcard {
            self.awaited.insert(WILDCARD.into());
        }
        let mut subscribed = Vec::new();
        for (name, version) in request.initial_versions {
            let name: Arc<str> = name.into();
            self.sent.insert(name.clone(), version.into());
            if !self.wildcard && !by_name {
                self.subscribe(name.clone(), &mut subscribed);
            }
            self.claimed.push(name);
        }
        for name in request.subscribe {
            self.subscribe(name.into(), &mut subscribed);
        }
        (subscribed, Vec::new())
    }

    pub(super) fn later(&mut self, request: DeltaRequest, store: &Store) -> Changed {
        let (mut subscribed, mut unsubscribed) = (Vec::new(), Vec::new());
        for name in request.subscribe {
            if name == WILDCARD && !self.wildcard {
                self.wildcard = true;
                self.awaited.insert(WILDCARD.into());
            }
            self.subscribe(name.into(), &mut subscribed);
        }
        for name in request.unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                self.awaited.remove(WILDCARD);
            } else if let Some(name) = self.names.take(name.as_str()) {
                self.awaited.remove(&name);
                self.answers.retain(|answer| *answer != name);
                unsubscribed.push(name);
            }
        }
        self.let_go(&unsubscribed, store);
        (subscribed, unsubscribed)
    }

    /// Asking again for a name asks for an answer again.
    fn subscribe(&mut self, name: Arc<str>, subscribed: &mut Vec<Arc<str>>) {
        if *name == *WILDCARD {
            return;
        }
        if self.names.insert(name.clone()) {
            subscribed.push(name.clone());
        }
        self.awaited.insert(name);
    }

    /// The client is told what it has no name for any more, like anything else that goes away: so what it holds is what it was
    /// sent, whatever was on its way at the time.
    fn let_go(&mut self, names: &[Arc<str>], store: &Store) {
        for name in names {
            for stored in self.related(name, store) {
                self.enqueue(stored.key.name.clone());
            }
        }
    }

    /// Whatever can be answered now is.
    pub(super) fn settle(&mut self, store: &Store) {
        let known = |name: &Arc<str>| match &**name {
            WILDCARD => store.is_complete(self.kind),
            name => store.knows(self.kind, name),
        };
        for name in self.awaited.extract_if(known).collect::<Vec<_>>() {
            if *name == *WILDCARD {
                self.owes = true;
                store
                    .of_kind(self.kind)
                    .for_each(|stored| self.enqueue(stored.key.name.clone()));
                continue;
            }
            for stored in self.related(&name, store) {
                self.enqueue(stored.key.name.clone());
            }
            self.answers.push(name);
        }
        if self.awaited.is_empty() {
            for name in mem::take(&mut self.claimed) {
                self.enqueue(name);
            }
        }
    }

    pub(super) fn touched(&mut self, touched: &Touched, store: &Store) {
        for (key, names) in &touched.resources {
            // What is not answered yet will be all at once.
            let answered = |name: &Arc<str>| self.names.contains(name) && !self.awaited.contains(name);
            let everything = self.wildcard && !self.awaited.contains(WILDCARD);
            let wanted = || everything || names.iter().any(answered);
            if key.kind == self.kind && (self.sent.contains_key(&key.name) || wanted()) {
                self.enqueue(key.name.clone());
            }
        }
        if touched.learnt.contains(&self.kind) {
            self.settle(store);
        }
    }

    pub(super) fn look_at_all(&mut self, store: &Store) {
        let held: Vec<_> = self.sent.keys().cloned().collect();
        held.into_iter().for_each(|name| self.enqueue(name));
        let all = |store: &Store| store.of_kind(self.kind).map(|s| s.key.name.clone()).collect();
        let wanted: Vec<_> = match self.wildcard {
            true => all(store),
            false => {
                let related = self.names.iter().flat_map(|name| self.related(name, store));
                related.map(|stored| stored.key.name.clone()).collect()
            }
        };
        wanted.into_iter().for_each(|name| self.enqueue(name));
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.owes || !self.answers.is_empty()
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_urgent() || !self.queue.is_empty()
    }

    pub(super) fn next(&mut self, store: &Store, audience: &Audience) -> Option<DeltaResponse> {
        if mem::take(&mut self.fresh) {
            // An address that moves from one workload to another is to be free before it is taken.
            let removed = self.removals(store, audience);
            if !removed.is_empty() {
                return Some(self.response(Vec::new(), removed));
            }
        }
        let mut resources = self.changes(store, audience);
        let mut removed = Vec::new();
        if self.queue.is_empty() {
            for name in mem::take(&mut self.answers) {
                match self.answer(&name, store, audience) {
                    Some(named) => resources.push(named),
                    None => removed.push(name.to_string()),
                }
            }
        }
        if resources.is_empty() && removed.is_empty() && !(self.owes && self.queue.is_empty()) {
            return None;
        }
        Some(self.response(resources, removed))
    }

    fn response(&mut self, resources: Vec<Named>, removed: Vec<String>) -> DeltaResponse {
        let more = self.is_queued();
        // What follows may be unwanted by then, and the last is to be told all the same.
        self.owes = more;
        DeltaResponse {
            system_version: if more { MORE } else { LAST }.to_owned(),
            resources,
            type_url: self.kind.type_url().to_owned(),
            removed,
            nonce: String::new(),
        }
    }

    fn is_queued(&self) -> bool {
        !self.queue.is_empty() || !self.answers.is_empty()
    }

    /// Takes out of the queue what the client holds and is to hold no longer, and whatever has not changed.
    fn removals(&mut self, store: &Store, audience: &Audience) -> Vec<String> {
        let mut removed = Vec::new();
        for name in mem::take(&mut self.queue) {
            let held = self.sent.get(&name);
            match self.wanted(&name, store, audience) {
                Some(stored) if held == Some(&stored.version) => {}
                None if held.is_none() => {}
                None if removed.len() < REMOVED => {
                    self.sent.remove(&name);
                    removed.push(name.to_string());
                }
                _ => {
                    self.queue.push_back(name);
                    continue;
                }
            }
            self.queued.remove(&name);
        }
        self.fresh = removed.len() == REMOVED;
        removed
    }

    fn changes(&mut self, store: &Store, audience: &Audience) -> Vec<Named> {
        let (mut resources, mut bytes) = (Vec::new(), 0);
        while bytes < RESPONSE
            && let Some(name) = self.queue.pop_front()
        {
            self.queued.remove(&name);
            let Some(stored) = self.wanted(&name, store, audience) else {
                continue;
            };
            if self.sent.get(&name) != Some(&stored.version) {
                bytes += stored.encoded.len() + LEAST;
                resources.push(named(&name, stored));
                self.sent.insert(name, stored.version.clone());
            }
        }
        resources
    }

    /// The resource under the very name by which it was asked for: ztunnel wakes whoever waits for a name by no other. Where
    /// several have it as an alias, they all have been sent by their own names.
    fn answer(&self, name: &Arc<str>, store: &Store, audience: &Audience) -> Option<Named> {
        let mut found = match self.kind {
            Kind::Address => store
                .named(name)
                .filter(|stored| audience.sees(stored, store))
                .collect(),
            Kind::Authorization => self.wanted(name, store, audience).into_iter().collect::<Vec<_>>(),
        };
        found.sort_by_key(|stored| stored.key.name != *name);
        found.first().map(|stored| named(name, stored))
    }

    fn wanted<'s>(&self, name: &Arc<str>, store: &'s Store, audience: &Audience) -> Option<&'s Arc<Stored>> {
        let key = Key {
            kind: self.kind,
            name: name.clone(),
        };
        let stored = store.get(&key)?;
        (self.wants(stored, store) && audience.sees(stored, store)).then_some(stored)
    }

    fn wants(&self, stored: &Stored, store: &Store) -> bool {
        match self.kind {
            _ if self.wildcard || self.names.contains(&stored.key.name) => true,
            Kind::Address => store.names(stored).iter().any(|name| self.names.contains(name)),
            Kind::Authorization => false,
        }
    }

    fn related<'s>(&self, name: &Arc<str>, store: &'s Store) -> Vec<&'s Arc<Stored>> {
        match self.kind {
            Kind::Address => store.related(name),
            Kind::Authorization => store.get(&Key::authorization(name)).into_iter().collect(),
        }
    }

    fn enqueue(&mut self, name: Arc<str>) {
        if self.queued.insert(name.clone()) {
            self.queue.push_back(name);
        }
        self.fresh = true;
    }
}

fn named(name: &str, stored: &Stored) -> Named {
    Named {
        version: stored.version.to_string(),
        resource: Some(Any {
            type_url: stored.key.kind.type_url().to_owned(),
            value: stored.encoded.clone(),
        }),
        name: name.to_owned(),
        aliases: stored.aliases.iter().map(ToString::to_string).collect(),
    }
}
