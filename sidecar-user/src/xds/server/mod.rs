//! One delta stream as its server sees it. Sans-io: requests and changes of the store in, responses out.
//!
//! ```text
//!   request  ──▶ a name is subscribed ──▶ awaited ──(the store knows it)──▶ its resources are queued ──▶ answered
//!   touched  ──▶ resources that the stream wants, or holds, are queued
//!   next     ──▶ what went away, then what came or changed, a part at a time, then the names that were asked for
//! ```
//!
//! What is queued is looked at only when it is sent, so a client that reads slowly is sent the last state and none between.

mod audience;
mod round;
mod served;

use std::sync::Arc;

pub use audience::Audience;
pub(super) use round::{LAST, MORE};
use served::Served;

use super::message::{DeltaRequest, DeltaResponse};
use super::{Kind, Store, Touched};

/// Names that one stream may subscribe to, and bytes of one name: a pod dials far fewer, and a node's pods together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub names: usize,
}

const NAME: usize = 512;

#[derive(Debug)]
pub struct ServerStream {
    audience: Audience,
    limits: Limits,
    types: [Option<Served>; Kind::ALL.len()],
    nonce: u64,
}

/// What a request has changed, for whoever has to find out about names first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Names of addresses.
    pub subscribed: Vec<Arc<str>>,
    pub unsubscribed: Vec<Arc<str>>,
    /// The client has refused a resource, and says why.
    pub refused: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("`{0}` is no type that is served here; ask for addresses or authorizations")]
    UnknownType(String),
    #[error("a name has {0} bytes; the longest that anything has here is {NAME}")]
    LongName(usize),
    #[error("more than {0} names are subscribed")]
    TooMany(usize),
}

impl ServerStream {
    pub fn new(audience: Audience, limits: Limits) -> Self {
        Self {
            audience,
            limits,
            types: [None, None],
            nonce: 0,
        }
    }

    pub fn request(&mut self, request: DeltaRequest, store: &Store) -> Result<Asked, BadRequest> {
        let Some(kind) = Kind::of_type_url(&request.type_url) else {
            let url = request.type_url.escape_debug().take(128).collect();
            return Err(BadRequest::UnknownType(url));
        };
        let names = request.subscribe.iter().chain(&request.unsubscribe);
        if let Some(long) = names.map(String::len).find(|length| *length > NAME) {
            return Err(BadRequest::LongName(long));
        }
        let served = &mut self.types[kind as usize];
        if served.is_none() && !request.response_nonce.is_empty() {
            // It answers a stream before this one.
            return Ok(Asked::default());
        }
        let refused = request.error.as_ref().map(|error| error.message.clone());
        let (subscribed, unsubscribed) = match served {
            None => served.insert(Served::new(kind)).first(request),
            Some(served) => served.later(request, store),
        };
        let served = served.as_mut().expect("it has just been asked for");
        if served.len() > self.limits.names {
            return Err(BadRequest::TooMany(self.limits.names));
        }
        served.settle(store);
        let of_addresses = |names| if kind == Kind::Address { names } else { Vec::new() };
        Ok(Asked {
            subscribed: of_addresses(subscribed),
            unsubscribed: of_addresses(unsubscribed),
            refused,
        })
    }

    /// Something has changed in the store.
    pub fn touched(&mut self, touched: &Touched, store: &Store) {
        let own = self.audience.is_touched(touched);
        for served in self.types.iter_mut().flatten() {
            served.touched(touched, store);
            if own && served.kind() == Kind::Authorization {
                served.look_at_all(store);
            }
        }
    }

    /// Changes were missed: everything is looked at again.
    pub fn lost_track(&mut self, store: &Store) {
        for served in self.types.iter_mut().flatten() {
            served.look_at_all(store);
            served.settle(store);
        }
    }

    /// Somebody waits for an answer.
    pub fn is_urgent(&self) -> bool {
        self.types.iter().flatten().any(Served::is_urgent)
    }

    pub fn is_due(&self) -> bool {
        self.types.iter().flatten().any(Served::is_due)
    }

    /// The next response, if there is something to say.
    pub fn next(&mut self, store: &Store) -> Option<DeltaResponse> {
        let audience = &self.audience;
        let mut types = self.types.iter_mut().flatten();
        let mut response = types.find_map(|served| served.next(store, audience))?;
        self.nonce += 1;
        response.nonce = self.nonce.to_string();
        Some(response)
    }

    /// Names of addresses that are subscribed to.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.types[Kind::Address as usize].iter().flat_map(Served::names)
    }
}

#[cfg(test)]
mod tests;
