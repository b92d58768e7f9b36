//! The client of delta streams, on demand: names in, requests out; responses in, changes of its store out. Sans-io. It
//! outlives a stream: the next one begins with what it holds.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::message::{self, Any, DeltaRequest, DeltaResponse, ErrorDetail, Named, Node};
use super::server::{LAST, MORE};
use super::{Key, Kind, Store, Touched, Update};

const WILDCARD: &str = "*";

#[derive(Debug, Default)]
pub struct Client {
    /// Of the addresses that are wanted.
    names: HashSet<Arc<str>>,
    subscribe: HashSet<Arc<str>>,
    unsubscribe: HashSet<Arc<str>>,
    /// Names that are answered since a response was the last of what belongs together.
    answered: Vec<Arc<str>>,
}

/// What a response has done.
#[derive(Debug)]
pub struct Received {
    pub touched: Touched,
    /// To be sent: it acknowledges the response, and says what was refused.
    pub ack: DeltaRequest,
    /// A resource each, and why it was not taken.
    pub refused: Vec<String>,
    /// Others that belong to it follow.
    pub more: bool,
}

impl Client {
    /// Whether it is new.
    pub fn want(&mut self, name: Arc<str>) -> bool {
        let is_new = self.names.insert(name.clone());
        if is_new {
            self.subscribe.insert(name);
        }
        is_new
    }

    pub fn wants(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// Forgets the name. What was held for it alone goes when the server says so.
    pub fn unwant(&mut self, name: &str, store: &mut Store) {
        if let Some(name) = self.names.take(name) {
            store.forget(&name);
            if !self.subscribe.remove(&name) {
                self.unsubscribe.insert(name);
            }
        }
    }

    /// The first requests of a stream. What is held is not sent again.
    pub fn begin(&mut self, node: &Node, store: &mut Store) -> (Vec<DeltaRequest>, Touched) {
        self.subscribe.clear();
        self.unsubscribe.clear();
        self.answered.clear();
        let mut touched = Touched::default();
        if self.names.is_empty() {
            let held = store.of_kind(Kind::Address);
            let dropped: Vec<_> = held.map(|stored| Update::Remove(stored.key.clone())).collect();
            touched = store.apply(dropped);
        }
        let request = |kind: Kind| DeltaRequest {
            node: Some(node.clone()),
            type_url: kind.type_url().to_owned(),
            initial_versions: held(kind, store),
            ..DeltaRequest::default()
        };
        let mut addresses = request(Kind::Address);
        addresses.subscribe = self.names.iter().map(ToString::to_string).collect();
        if self.names.is_empty() {
            // Nobody, who would otherwise be everybody.
            addresses.subscribe = vec![WILDCARD.to_owned()];
            addresses.unsubscribe = vec![WILDCARD.to_owned()];
        }
        (vec![addresses, request(Kind::Authorization)], touched)
    }

    /// What has changed in what is wanted, until there is no more. A name that was dropped and is wanted again is dropped in
    /// a request of its own, or the server would not send again what it means.
    pub fn request(&mut self) -> Option<DeltaRequest> {
        let texts = |names: &mut HashSet<Arc<str>>| names.drain().map(|name| name.to_string()).collect();
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        if !self.unsubscribe.is_empty() {
            unsubscribe = texts(&mut self.unsubscribe);
        } else if !self.subscribe.is_empty() {
            subscribe = texts(&mut self.subscribe);
        } else {
            return None;
        }
        Some(DeltaRequest {
            type_url: Kind::Address.type_url().to_owned(),
            subscribe,
            unsubscribe,
            ..DeltaRequest::default()
        })
    }

    /// `None`: it is of a type that nobody asked for.
    pub fn response(&mut self, response: DeltaResponse, store: &mut Store) -> Option<Received> {
        let kind = Kind::of_type_url(&response.type_url)?;
        // Our own servers answer a name by the name itself. Others answer by whatever has it, and an alias that comes with
        // something else is taken for an answer.
        let is_exact = [MORE, LAST].contains(&&*response.system_version);
        let (mut changes, mut refused) = (Vec::new(), Vec::new());
        for name in response.removed {
            let name: Arc<str> = name.into();
            changes.push(Update::Remove(Key {
                kind,
                name: name.clone(),
            }));
            self.answer(kind, name);
        }
        for named in response.resources {
            match read(kind, &named) {
                Ok(update) => {
                    changes.push(update);
                    self.answer(kind, named.name.into());
                    if !is_exact {
                        let aliases = named.aliases.into_iter();
                        aliases.for_each(|alias| self.answer(kind, alias.into()));
                    }
                }
                Err(why) => refused.push(format!("{}: {why}", named.name.escape_debug())),
            }
        }
        let more = response.system_version == MORE;
        let mut touched = store.apply(changes);
        if !more {
            touched.merge(store.learn(mem::take(&mut self.answered)));
            if kind == Kind::Authorization {
                touched.merge(store.complete(kind));
            }
        }
        Some(Received {
            touched,
            ack: acknowledge(response.type_url, response.nonce, &refused),
            refused,
            more,
        })
    }

    fn answer(&mut self, kind: Kind, name: Arc<str>) {
        if kind == Kind::Address && self.names.contains(&name) {
            self.answered.push(name);
        }
    }
}

fn held(kind: Kind, store: &Store) -> HashMap<String, String> {
    let held = store.of_kind(kind);
    held.map(|stored| (stored.key.name.to_string(), stored.version.to_string()))
        .collect()
}

fn read(kind: Kind, named: &Named) -> Result<Update, message::Rejected> {
    let Some(Any { value, .. }) = &named.resource else {
        return Err(message::Rejected::Malformed);
    };
    Ok(Update::Received {
        resource: message::decode(kind, value)?,
        version: named.version.as_str().into(),
        encoded: value.clone(),
    })
}

fn acknowledge(type_url: String, response_nonce: String, refused: &[String]) -> DeltaRequest {
    /// `google.rpc.Code.INVALID_ARGUMENT`.
    const INVALID: i32 = 3;
    /// For whoever reads the server's log.
    const SHOWN: usize = 10;
    let shown: Vec<&str> = refused.iter().take(SHOWN).map(String::as_str).collect();
    DeltaRequest {
        type_url,
        response_nonce,
        error: (!refused.is_empty()).then(|| ErrorDetail {
            code: INVALID,
            message: shown.join("; "),
        }),
        ..DeltaRequest::default()
    }
}

#[cfg(test)]
mod tests;
