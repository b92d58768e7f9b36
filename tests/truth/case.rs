//! What a case is, and the list of all. Runs none.

use std::fmt::{self, Display};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::half::Half;

pub(crate) struct Case {
    /// `topic/case`
    pub(crate) name: &'static str,
    pub(crate) families: &'static [Family],
    pub(crate) client: Run,
    pub(crate) server: Run,
}

pub(crate) type Run = fn(&mut Half) -> Result<()>;

/// How the client writes the address, and how the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
    /// IPv4 through IPv6 sockets on both sides.
    Mapped,
}

pub(crate) const ALL: &[Family] = &[Family::V4, Family::V6, Family::Mapped];
pub(crate) const UNMAPPED: &[Family] = &[Family::V4, Family::V6];
/// For what does not depend on addresses.
pub(crate) const ONE: &[Family] = &[Family::V4];

impl Family {
    pub(crate) fn is_v4_on_the_wire(self) -> bool {
        self != Self::V6
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Mapped => "mapped",
        })
    }
}

pub(crate) const fn case(name: &'static str, families: &'static [Family], client: Run, server: Run) -> Case {
    Case {
        name,
        families,
        client,
        server,
    }
}

/// For a case that concerns the client's pod alone.
pub(crate) fn nothing(_: &mut Half) -> Result<()> {
    Ok(())
}

pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        crate::refuse::CASES, // first: these wait longest
        crate::names::CASES,
        crate::connect::CASES,
        crate::readiness::CASES,
        crate::bind::CASES,
        crate::listen::CASES,
        crate::close::CASES,
        crate::reset::CASES,
        crate::queue::CASES,
        crate::urgent::CASES,
        crate::options::CASES,
        crate::info::CASES,
        crate::bulk::CASES,
        crate::copyless::CASES,
        crate::fastopen::CASES,
        crate::mptcp::CASES,
        crate::uring::CASES,
        crate::udp::CASES,
        crate::selfdial::CASES,
    ]
    .into_iter()
    .flatten()
}
