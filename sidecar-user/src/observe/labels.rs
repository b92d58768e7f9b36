//! The labels of a connection's metrics, and the cap on how many sets of them there may be.
//!
//! No addresses and no ports: their number has no bound. Holds no counters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

use crate::model::{Cause, Direction, Flow, Party, ServiceName, SpiffeId, Transport};

/// What a flow is counted under. Cheap to make: the strings are shared with the snapshot and the certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub direction: Direction,
    pub transport: Transport,
    pub names: Names,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Names {
    Known {
        source: Option<SpiffeId>,
        destination: Option<SpiffeId>,
        service: Option<ServiceName>,
    },
    /// The cap was reached before these names were first seen.
    Overflow,
}

/// The value of a label that the flow does not know.
const UNKNOWN: &str = "unknown";
/// The value of the three name labels for flows past the cap.
const OVERFLOW: &str = "overflow";

impl Labels {
    pub(super) fn of(flow: &Flow) -> Self {
        Self {
            direction: flow.direction,
            transport: flow.transport,
            names: Names::Known {
                source: flow.source_identity.clone(),
                destination: flow.destination_identity.clone(),
                service: flow.service.clone(),
            },
        }
    }

    pub(super) fn overflowed(&self) -> Self {
        Self {
            names: Names::Overflow,
            ..*self
        }
    }

    /// Name and value, as they appear in the exposition.
    pub(super) fn text(&self) -> Vec<(&'static str, String)> {
        let id = |id: &Option<SpiffeId>| id.as_ref().map_or_else(|| UNKNOWN.into(), ToString::to_string);
        let [source, destination, service] = match &self.names {
            Names::Overflow => [OVERFLOW; 3].map(String::from),
            Names::Known {
                source,
                destination,
                service,
            } => {
                let service = service
                    .as_ref()
                    .map_or_else(|| UNKNOWN.into(), ToString::to_string);
                [id(source), id(destination), service]
            }
        };
        vec![
            ("direction", direction(self.direction).into()),
            ("transport", transport(self.transport).into()),
            ("source_identity", source),
            ("destination_identity", destination),
            ("service", service),
        ]
    }
}

/// All label sets of the process, numbered in order of first sight. Shards ask it once for each set they meet.
#[derive(Debug)]
pub(super) struct LabelTable {
    cap: usize,
    numbers: RwLock<HashMap<Labels, u32>>,
    overflowed: AtomicU64,
}

impl LabelTable {
    pub(super) fn new(cap: usize) -> Self {
        Self {
            cap,
            numbers: RwLock::default(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// The number of a label set; `None` when it is new and the table is full. The overflow sets themselves are
    /// always let in: there are as many as directions times transports.
    pub(super) fn admit(&self, labels: &Labels) -> Option<u32> {
        if let Some(number) = self
            .numbers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(labels)
        {
            return Some(*number);
        }
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        let next = numbers.len() as u32;
        if let Some(number) = numbers.get(labels) {
            return Some(*number);
        }
        if next as usize >= self.cap && labels.names != Names::Overflow {
            return None;
        }
        numbers.insert(labels.clone(), next);
        Some(next)
    }

    pub(super) fn count_overflow(&self) {
        self.overflowed.fetch_add(1, Relaxed);
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Relaxed)
    }

    /// Every label set, at the index of its number.
    pub(super) fn all(&self) -> Vec<Labels> {
        let numbers = self.numbers.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = numbers.iter().collect();
        all.sort_unstable_by_key(|(_, number)| **number);
        all.into_iter().map(|(labels, _)| labels.clone()).collect()
    }
}

pub(super) fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

pub(super) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Plain => "plain",
        Transport::Hbone => "hbone",
    }
}

pub(super) fn party(party: Party) -> &'static str {
    match party {
        Party::Client => "client",
        Party::Upstream => "upstream",
        Party::Policy => "policy",
        Party::Us => "us",
    }
}

pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Eof => "eof",
        Cause::Reset => "reset",
        Cause::ConnectionRefused => "connection_refused",
        Cause::Unreachable => "unreachable",
        Cause::TimedOut => "timed_out",
        Cause::TlsFailed => "tls_failed",
        Cause::WrongIdentity => "wrong_identity",
        Cause::NoIdentity => "no_identity",
        Cause::Denied => "denied",
        Cause::NoEndpoint => "no_endpoint",
        Cause::UnknownDestination => "unknown_destination",
        Cause::NoOriginalDestination => "no_original_destination",
        Cause::Loop => "loop",
        Cause::LimitReached => "limit_reached",
        Cause::IdleTimeout => "idle_timeout",
        Cause::ProtocolError => "protocol_error",
        Cause::Shutdown => "shutdown",
        Cause::Io => "io",
        Cause::Internal => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_metrics_are_those_of_the_model() {
        fn json(value: impl serde::Serialize) -> String {
            serde_json::to_string(&value).unwrap().replace('"', "")
        }
        for value in [
            Cause::Eof,
            Cause::NoOriginalDestination,
            Cause::TlsFailed,
            Cause::Io,
        ] {
            assert_eq!(cause(value), json(value));
        }
        for value in [Party::Client, Party::Upstream, Party::Policy, Party::Us] {
            assert_eq!(party(value), json(value));
        }
        assert_eq!(direction(Direction::Inbound), json(Direction::Inbound));
        assert_eq!(transport(Transport::Hbone), json(Transport::Hbone));
    }

    #[test]
    fn a_full_table_still_knows_the_old_and_admits_the_overflow() {
        let table = LabelTable::new(1);
        let named = |service: &str| Labels {
            direction: Direction::Outbound,
            transport: Transport::Plain,
            names: Names::Known {
                source: None,
                destination: None,
                service: Some(ServiceName {
                    namespace: "demo".into(),
                    hostname: service.into(),
                }),
            },
        };
        assert_eq!(table.admit(&named("a")), Some(0));
        assert_eq!(table.admit(&named("b")), None);
        assert_eq!(table.admit(&named("a")), Some(0));
        assert_eq!(table.admit(&named("b").overflowed()), Some(1));
        assert_eq!(table.all(), [named("a"), named("b").overflowed()]);
    }
}
