//! What is intercepted: rules by address and port, and what the kernel makes of them.
//!
//! The most specific CIDR that names the port wins; among equal CIDRs the first rule does. The built-in rules come
//! after the user's. Pure but for `follow.rs`, which reads a file; `session/policy.rs` writes to the kernel. Says
//! nothing about who may talk to whom: that is the room `policy`.

mod compile;
mod file;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod rule;

pub use compile::Misfit;
pub use file::parse;
pub use follow::{Error, PolicyFile, Status};
pub use rule::{Action, Direction, Ports, Rule, Source};

pub(super) use compile::{Key, Prefix};
pub(super) use rule::host;

/// A policy that fits into the kernel. The default one has the built-in rules and nothing else.
#[derive(Clone, Debug)]
pub struct Policy {
    outbound: Vec<Rule>,
    inbound: Vec<Rule>,
    prefixes: Vec<Prefix>,
}

impl Policy {
    /// The user's rules, in their order, followed by the built-in ones; or all that does not fit.
    pub fn new(mut outbound: Vec<Rule>, mut inbound: Vec<Rule>) -> Result<Self, Vec<Misfit>> {
        outbound.extend(rule::built_in(Direction::Outbound));
        inbound.extend(rule::built_in(Direction::Inbound));
        let prefixes = compile::compile(&outbound, &inbound)?;
        Ok(Self {
            outbound,
            inbound,
            prefixes,
        })
    }

    /// In order of precedence among equal CIDRs.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    pub(super) fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new()).expect("the built-in rules fit")
    }
}

#[cfg(test)]
pub(super) mod tests;
