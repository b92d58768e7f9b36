//! The labels of a connection's metrics. How many sets of them there may be is `label_table.rs`.
//!
//! No addresses and no ports: their number has no bound. Holds no counters.

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
        Transport::LeftAlone => "left_alone",
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
        Cause::NoDiscovery => "no_discovery",
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
        for value in [Transport::Plain, Transport::Hbone, Transport::LeftAlone] {
            assert_eq!(transport(value), json(value));
        }
    }
}
