//! MAY IT? Pure decisions about a connection whose facts are known. No clock, no input, no output.

pub mod authorization;
mod client;

use std::net::SocketAddr;

use crate::model::snapshot::Applicable;
use authorization::{Decision, Denial};

pub use authorization::Facts;
pub use client::{Claim, client_address};

/// Whether plaintext from outside the mesh is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Plaintext is accepted and counted.
    #[default]
    Permissive,
    /// Only proven identities get in.
    Strict,
}

/// Leave to deliver to one destination. Only `admit` makes one, and delivery cannot be called without it.
#[derive(Debug)]
pub struct Permit {
    destination: SocketAddr,
}

impl Permit {
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("plaintext is refused in strict mode")]
    Plaintext,
    #[error(transparent)]
    Policy(Denial),
}

/// Lets a connection in when the mode and every policy that applies to the workload allow it.
pub fn admit(mode: Mode, policies: &Applicable<'_>, facts: &Facts<'_>) -> Result<Permit, Denied> {
    if facts.source.is_none() && mode == Mode::Strict {
        return Err(Denied::Plaintext);
    }
    match authorization::evaluate(policies, facts) {
        Decision::Allow(_) => Ok(Permit {
            destination: facts.destination,
        }),
        Decision::Deny(denial) => Err(Denied::Policy(denial)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SpiffeId;
    use crate::model::authorization::PolicyName;

    #[test]
    fn strict_admits_identities_and_denies_plaintext_and_policy_is_always_asked() {
        let id = SpiffeId::new("td.test", "a", "b").unwrap();
        let destination = "10.0.0.2:80".parse().unwrap();
        let proven = Facts {
            source: Some(&id),
            source_ip: "10.0.0.1".parse().unwrap(),
            destination,
        };
        let plain = Facts {
            source: None,
            ..proven
        };
        let none = Applicable::default();
        assert_eq!(
            admit(Mode::Strict, &none, &proven).unwrap().destination(),
            destination
        );
        assert_eq!(admit(Mode::Strict, &none, &plain).unwrap_err(), Denied::Plaintext);
        assert!(admit(Mode::Permissive, &none, &plain).is_ok());
        let missing = [PolicyName {
            namespace: "t".into(),
            name: "gone".into(),
        }];
        let unknown = Applicable {
            missing: &missing,
            ..none
        };
        for mode in [Mode::Strict, Mode::Permissive] {
            assert!(matches!(admit(mode, &unknown, &proven), Err(Denied::Policy(_))));
        }
    }
}
