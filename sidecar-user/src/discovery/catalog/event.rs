//! What the API server says, by kind.

use crate::kubernetes::{AuthorizationPolicy, Change, Node, PeerAuthentication, Service, Slice, WorkloadPod};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Nodes,
    Pods,
    Services,
    Slices,
    Authorizations,
    Peers,
}

#[derive(Clone, Debug)]
pub enum Event {
    Nodes(Change<Node>),
    Pods(Change<WorkloadPod>),
    Services(Change<Service>),
    Slices(Change<Slice>),
    Authorizations(Change<AuthorizationPolicy>),
    Peers(Change<PeerAuthentication>),
}

impl Event {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Nodes(_) => Kind::Nodes,
            Self::Pods(_) => Kind::Pods,
            Self::Services(_) => Kind::Services,
            Self::Slices(_) => Kind::Slices,
            Self::Authorizations(_) => Kind::Authorizations,
            Self::Peers(_) => Kind::Peers,
        }
    }

    /// Does it say everything of its kind?
    pub fn is_list(&self) -> bool {
        matches!(
            self,
            Self::Nodes(Change::All(_))
                | Self::Pods(Change::All(_))
                | Self::Services(Change::All(_))
                | Self::Slices(Change::All(_))
                | Self::Authorizations(Change::All(_))
                | Self::Peers(Change::All(_))
        )
    }

    /// Why the API server cannot be asked for its kind.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Self::Nodes(Change::Trouble(why))
            | Self::Pods(Change::Trouble(why))
            | Self::Services(Change::Trouble(why))
            | Self::Slices(Change::Trouble(why))
            | Self::Authorizations(Change::Trouble(why))
            | Self::Peers(Change::Trouble(why)) => Some(why),
            _ => None,
        }
    }
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Nodes,
        Self::Pods,
        Self::Services,
        Self::Slices,
        Self::Authorizations,
        Self::Peers,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
            Self::Services => "services",
            Self::Slices => "endpointslices",
            Self::Authorizations => "authorizationpolicies",
            Self::Peers => "peerauthentications",
        }
    }
}

/// How many objects there are of each kind but policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub nodes: usize,
    pub pods: usize,
    pub services: usize,
    pub slices: usize,
}
