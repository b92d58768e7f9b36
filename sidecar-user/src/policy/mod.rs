//! MAY IT? Pure decisions about a connection whose facts are known. No clock, no input, no output.

pub mod authorization;
mod client;

use std::net::SocketAddr;

use crate::model::authorization::PolicyName;
use crate::model::snapshot::{Applicable, Standing};
use authorization::{By, Decision, Denial};

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
    by: Option<By>,
}

impl Permit {
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The rule that allows it; `None`: nothing restricts the workload.
    pub fn by(&self) -> Option<&By> {
        self.by.as_ref()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("plaintext is refused in strict mode")]
    Plaintext,
    #[error(transparent)]
    Policy(Denial),
    #[error(
        "the registry does not list this workload, and policy {0} may be meant for it; list the workload, by its name and \
         addresses"
    )]
    Unlisted(PolicyName),
}

/// Lets a connection in when the mode and every policy that applies to the workload allow it.
pub fn admit(mode: Mode, standing: &Standing<'_>, facts: &Facts<'_>) -> Result<Permit, Denied> {
    if facts.source.is_none() && mode == Mode::Strict {
        return Err(Denied::Plaintext);
    }
    match decide(standing, |policies| authorization::evaluate(policies, facts))? {
        Decision::Allow(by) => Ok(Permit {
            destination: facts.destination,
            by,
        }),
        Decision::Deny(denial) => Err(Denied::Policy(denial)),
    }
}

/// What the policies would decide if those marked `dryRun` were obeyed; `None` where there are none, or where policies are
/// not what decides.
pub fn rehearse(mode: Mode, standing: &Standing<'_>, facts: &Facts<'_>) -> Option<Decision> {
    let by_mode = facts.source.is_none() && mode == Mode::Strict;
    if by_mode || !standing.all().any(|policy| policy.dry_run) {
        return None;
    }
    let rehearsed = decide(standing, |policies| {
        authorization::rehearse(policies, facts).unwrap_or_else(|| authorization::evaluate(policies, facts))
    });
    rehearsed.ok()
}

/// All entries that the workload may be have to agree; the first that does not is the answer.
fn decide(standing: &Standing<'_>, decide: impl Fn(&Applicable<'_>) -> Decision) -> Result<Decision, Denied> {
    match standing {
        Standing::Unlisted {
            meant: Some(policy), ..
        } => Err(Denied::Unlisted((*policy).clone())),
        Standing::Unlisted { general, .. } => Ok(decide(general)),
        Standing::Listed(all) => {
            let mut allowed = Decision::Allow(None);
            for policies in all {
                match decide(policies) {
                    Decision::Allow(None) => {}
                    Decision::Allow(by) => allowed = Decision::Allow(by),
                    denied @ Decision::Deny(_) => return Ok(denied),
                }
            }
            Ok(allowed)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::SpiffeId;
    use crate::model::authorization::{Action, Policy, Scope};

    fn name(name: &str) -> PolicyName {
        PolicyName {
            namespace: "t".into(),
            name: name.into(),
        }
    }

    #[test]
    fn strict_admits_identities_and_denies_plaintext_and_policy_is_always_asked() {
        let id = SpiffeId::new("td.test", "a", "b").unwrap();
        let destination = "10.0.0.2:80".parse().unwrap();
        let proven = Facts {
            source: Some(&id),
            source_ips: &["10.0.0.1".parse().unwrap()],
            destination,
        };
        let plain = Facts {
            source: None,
            ..proven
        };
        let none = Standing::Listed(vec![Applicable::default()]);
        assert_eq!(
            admit(Mode::Strict, &none, &proven).unwrap().destination(),
            destination
        );
        assert_eq!(admit(Mode::Strict, &none, &plain).unwrap_err(), Denied::Plaintext);
        assert!(admit(Mode::Permissive, &none, &plain).is_ok());
        let missing = [name("gone")];
        let unknown = Applicable {
            missing: &missing,
            ..Applicable::default()
        };
        // Of two entries that the workload may be, one is enough to keep out.
        for entries in [
            vec![unknown],
            vec![Applicable::default(), unknown],
            vec![unknown, Applicable::default()],
        ] {
            let unknown = Standing::Listed(entries);
            for mode in [Mode::Strict, Mode::Permissive] {
                assert!(matches!(admit(mode, &unknown, &proven), Err(Denied::Policy(_))));
            }
        }
    }

    #[test]
    fn a_rehearsal_is_told_where_policies_decide() {
        let id = SpiffeId::new("td.test", "a", "b").unwrap();
        let proven = Facts {
            source: Some(&id),
            source_ips: &["10.0.0.1".parse().unwrap()],
            destination: "10.0.0.2:80".parse().unwrap(),
        };
        let plain = Facts {
            source: None,
            ..proven
        };
        let policy = |dry_run| {
            Arc::new(Policy {
                name: name("nobody"),
                scope: Scope::Namespace,
                action: Action::Allow,
                rules: Vec::new(),
                dry_run,
            })
        };
        let (rehearsed, obeyed) = ([policy(true)], [policy(false)]);
        let standing = |policies| {
            Standing::Listed(vec![
                Applicable::default(),
                Applicable {
                    namespace: policies,
                    ..Applicable::default()
                },
            ])
        };
        let denied = Some(Decision::Deny(Denial::NotAllowed));
        assert_eq!(rehearse(Mode::Strict, &standing(&rehearsed), &proven), denied);
        assert_eq!(rehearse(Mode::Permissive, &standing(&rehearsed), &plain), denied);
        assert!(admit(Mode::Permissive, &standing(&rehearsed), &plain).is_ok());
        assert_eq!(rehearse(Mode::Strict, &standing(&rehearsed), &plain), None);
        assert_eq!(rehearse(Mode::Strict, &standing(&obeyed), &proven), None);
    }

    #[test]
    fn whoever_may_be_meant_and_is_not_listed_is_closed() {
        let facts = Facts {
            source: None,
            source_ips: &["10.0.0.1".parse().unwrap()],
            destination: "10.0.0.2:80".parse().unwrap(),
        };
        let selector = name("selector");
        let unlisted = |meant| Standing::Unlisted {
            general: Applicable::default(),
            meant,
        };
        assert!(admit(Mode::Permissive, &unlisted(None), &facts).is_ok());
        assert_eq!(
            admit(Mode::Permissive, &unlisted(Some(&selector)), &facts).unwrap_err(),
            Denied::Unlisted(selector.clone())
        );
    }
}
