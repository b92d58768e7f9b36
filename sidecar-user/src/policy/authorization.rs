//! The decision of authorization policies about one inbound connection, by Istio's layer 4 rules. Looks at
//! identities, addresses and ports; knows nothing of HTTP, and nothing of how the identity was proven.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::SpiffeId;
use crate::model::authorization::{Action, Clause, Match, Policy, PolicyName, Rule};
use crate::model::snapshot::Applicable;

/// What is known of a connection before it is let in.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// The proven identity; `None` for plaintext.
    pub source: Option<&'f SpiffeId>,
    /// Every address that is known to be the source's. A network has the source when it has any of them.
    pub source_ips: &'f [IpAddr],
    /// The application's address and port, not the tunnel's.
    pub destination: SocketAddr,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// By this rule, or because no policy restricts the workload.
    Allow(Option<By>),
    Deny(Denial),
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    pub policy: PolicyName,
    /// Its number in the policy's list, from 0.
    pub rule: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error("the Deny policy {0} denies it")]
    Denied(By),
    #[error("the workload has policies that allow, and none of them allows this")]
    NotAllowed,
    #[error("the workload names policy {0}, which the registry does not have")]
    UnknownPolicy(PolicyName),
}

/// In order: an unknown policy denies, for nobody knows what it forbids; any matching DENY denies; without ALLOW
/// policies all is allowed; else one of them has to match.
pub fn evaluate(policies: &Applicable<'_>, facts: &Facts<'_>) -> Decision {
    decide(policies, facts, |policy| !policy.dry_run)
}

/// What would be decided if dry-run policies were obeyed; `None` where there are none.
pub fn rehearse(policies: &Applicable<'_>, facts: &Facts<'_>) -> Option<Decision> {
    policies
        .all()
        .any(|policy| policy.dry_run)
        .then(|| decide(policies, facts, |_| true))
}

fn decide(policies: &Applicable<'_>, facts: &Facts<'_>, counts: impl Fn(&Policy) -> bool) -> Decision {
    if let Some(missing) = policies.missing.first() {
        return Decision::Deny(Denial::UnknownPolicy(missing.clone()));
    }
    let with = |action| {
        let policies = policies.all().filter(|policy| counts(policy));
        policies.filter(move |policy| policy.action == action)
    };
    if let Some(by) = with(Action::Deny).find_map(|policy| applies(policy, facts)) {
        return Decision::Deny(Denial::Denied(by));
    }
    if with(Action::Allow).next().is_none() {
        return Decision::Allow(None);
    }
    match with(Action::Allow).find_map(|policy| applies(policy, facts)) {
        Some(by) => Decision::Allow(Some(by)),
        None => Decision::Deny(Denial::NotAllowed),
    }
}

/// The first of the policy's rules that applies.
pub fn applies(policy: &Policy, facts: &Facts<'_>) -> Option<By> {
    let rule = policy.rules.iter().position(|rule| rule_applies(rule, facts))?;
    Some(By {
        policy: policy.name.clone(),
        rule,
    })
}

fn rule_applies(rule: &Rule, facts: &Facts<'_>) -> bool {
    rule.clauses.iter().all(|clause| clause_applies(clause, facts))
}

fn clause_applies(clause: &Clause, facts: &Facts<'_>) -> bool {
    clause.matches.is_empty() || clause.matches.iter().any(|m| matches(m, facts))
}

/// A source without identity has no namespace, account or principal, not even an empty one: what is asked for does not
/// fit, and neither does what is ruled out.
fn matches(m: &Match, facts: &Facts<'_>) -> bool {
    let source = facts.source;
    let namespace = source.map(SpiffeId::namespace);
    let principal = source.map(SpiffeId::principal);
    let destination = facts.destination.ip().to_canonical();
    !m.is_empty()
        && m.namespaces
            .holds(|wanted| namespace.is_some_and(|namespace| wanted.fits(namespace)))
        && m.service_accounts.holds(|wanted| {
            source.is_some_and(|id| id.namespace() == wanted.namespace && id.service_account() == wanted.name)
        })
        && m.principals
            .holds(|wanted| principal.is_some_and(|principal| wanted.fits(principal)))
        && m.source_ips
            .holds(|net| facts.source_ips.iter().any(|ip| net.contains(&ip.to_canonical())))
        && m.destination_ips.holds(|net| net.contains(&destination))
        && m.destination_ports
            .holds(|port| *port == facts.destination.port())
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by its rules[{}]", self.policy, self.rule)
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
