//! What a flow's client has proved: whose flows may push whose out of a bounded list.

use crate::model::{Direction, Flow};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// Opened by the pod's own application.
    Own,
    /// Inbound from a peer that has proved an identity.
    Proven,
    /// Inbound without an identity, and let in.
    Plaintext,
    /// Inbound, no identity was proved, and it did not get to the application, or not yet.
    Stranger,
}

impl Standing {
    const ALL: [Self; 4] = [Self::Own, Self::Proven, Self::Plaintext, Self::Stranger];

    pub(super) fn of(flow: &Flow) -> Self {
        match (flow.direction, &flow.source_identity, flow.is_usable()) {
            (Direction::Outbound, ..) => Self::Own,
            (Direction::Inbound, Some(_), _) => Self::Proven,
            (Direction::Inbound, None, true) => Self::Plaintext,
            (Direction::Inbound, None, false) => Self::Stranger,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Proven => "proven",
            Self::Plaintext => "plaintext",
            Self::Stranger => "stranger",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.name() == name)
    }
}
