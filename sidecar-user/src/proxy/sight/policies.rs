//! Which policies hold for the workload beside this proxy, and whether somebody would be let in. Connections are judged by the same
//! function, `authorize::judge`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::authorize;
use super::endpoints::registry;
use crate::discovery::Feed;
use crate::discovery::istio::{CONVERTED, STATIC_STRICT};
use crate::model::authorization::{Action, Policy, PolicyName};
use crate::model::snapshot::{Applicable, Standing};
use crate::model::{Own, Snapshot, SpiffeId};
use crate::observe::{PoliciesQuestion, PolicyReport, PolicySource, PolicyStanding, PolicyVerdict};
use crate::policy::authorization::{Decision, Denial, applies};
use crate::policy::{Denied, Facts, Mode};

pub(super) struct Policies {
    pub(super) own: Own,
    pub(super) mode: Mode,
    pub(super) feed: Feed,
}

/// Somebody who asks for a connection.
struct Asking {
    source: Option<SpiffeId>,
    port: Option<u16>,
    address: Option<IpAddr>,
    /// Of the pod, dialled there.
    destination: IpAddr,
}

impl Policies {
    /// An error is a sentence for whoever asked.
    pub(super) fn report(&self, question: &PoliciesQuestion) -> Result<PolicyReport, String> {
        let world = self.feed.snapshots.borrow().clone();
        let asking = self.asking(question)?;
        let address = self.own.addresses.first().copied();
        let standing = world.standing(&self.own, address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
        let verdict = asking
            .as_ref()
            .map(|asking| self.verdict(&world, &standing, asking));
        let mut policies = that_hold(&standing, &world, asking.as_ref());
        policies.sort_by(|a, b| (a.dry_run, &b.action, &a.name).cmp(&(b.dry_run, &a.action, &b.name)));
        Ok(PolicyReport {
            pod: None,
            workload: format!("{}/{}", self.own.identity.namespace(), self.own.name),
            identity: self.own.identity.to_string(),
            mode: match self.mode {
                Mode::Permissive => "permissive",
                Mode::Strict => "strict",
            }
            .into(),
            listed: matches!(standing, Standing::Listed(_)),
            registry: registry(&self.feed, &world),
            notes: self.notes(&standing, &world, &policies),
            policies,
            verdict,
        })
    }

    fn asking(&self, question: &PoliciesQuestion) -> Result<Option<Asking>, String> {
        let source = match &question.from {
            None => return Ok(None),
            Some(PolicySource::Plaintext) => None,
            Some(PolicySource::Id(id)) => Some(id.clone()),
            Some(PolicySource::Account { namespace, name }) => {
                let id = SpiffeId::new(self.own.identity.trust_domain(), namespace, name);
                Some(id.map_err(|error| error.to_string())?)
            }
        };
        let family = |ip: &&IpAddr| question.address.is_none_or(|from| from.is_ipv4() == ip.is_ipv4());
        let destination = self.own.addresses.iter().find(family).copied();
        let destination = destination.ok_or_else(|| match question.address {
            Some(from) => format!("{from} cannot reach this pod, which has no address of that family"),
            None => "this proxy knows no address of its pod".to_owned(),
        })?;
        Ok(Some(Asking {
            source,
            port: question.port,
            address: question.address,
            destination,
        }))
    }

    fn verdict(&self, world: &Snapshot, standing: &Standing<'_>, asking: &Asking) -> PolicyVerdict {
        let mut verdict = PolicyVerdict {
            from: asking
                .source
                .as_ref()
                .map_or_else(|| "none".to_owned(), ToString::to_string),
            port: asking.port,
            address: asking.address.map(|ip| ip.to_string()),
            result: "depends".into(),
            policy: None,
            rule: None,
            reason: String::new(),
            dry_run: None,
        };
        if world.generation == 0 {
            verdict.result = "denied".into();
            verdict.reason = "the registry has told nothing yet".to_owned();
            return verdict;
        }
        let (from, destination) = asking.ends();
        let judgement = authorize::judge(
            world,
            &self.own,
            self.mode,
            asking.source.as_ref(),
            from,
            destination,
        );
        // Whatever the rest is, nobody asks policies about plaintext in strict mode.
        let is_certain = matches!(judgement.verdict, Err(Denied::Plaintext | Denied::Unlisted(_)));
        if let Some(missing) = asking.missing(world, standing).filter(|_| !is_certain) {
            verdict.reason = missing;
            return verdict;
        }
        verdict.dry_run = judgement.rehearsed.as_ref().map(in_words);
        let by = match &judgement.verdict {
            Ok(permit) => {
                verdict.result = "allowed".into();
                verdict.reason = match permit.by() {
                    Some(by) => format!("the Allow policy {by} allows it"),
                    None => "no policy that allows restricts this workload, and none denies it".to_owned(),
                };
                permit.by()
            }
            Err(denied) => {
                verdict.result = "denied".into();
                verdict.reason = match denied {
                    Denied::Policy(Denial::NotAllowed) => {
                        format!("nobody matches: {denied}; asked were {}", allowing(standing))
                    }
                    _ => denied.to_string(),
                };
                match denied {
                    Denied::Policy(Denial::Denied(by)) => Some(by),
                    _ => None,
                }
            }
        };
        verdict.policy = by.map(|by| by.policy.to_string());
        verdict.rule = by.map(|by| by.rule);
        verdict
    }

    fn notes(&self, standing: &Standing<'_>, world: &Snapshot, policies: &[PolicyStanding]) -> Vec<String> {
        let mut notes = Vec::new();
        if self.mode == Mode::Strict {
            notes.push(
                "the proxy's own mode is strict: plaintext is refused, and no policy is asked".to_owned(),
            );
        }
        match standing {
            Standing::Listed(entries) if entries.len() > 1 => notes.push(format!(
                "{} entries of the registry may be this workload, and all of them have to let a connection in",
                entries.len()
            )),
            Standing::Listed(_) => {}
            Standing::Unlisted { meant: Some(policy), .. } => notes.push(format!(
                "the registry does not list this workload, and policy {policy} may be meant for it: nobody gets in"
            )),
            Standing::Unlisted { meant: None, .. } => notes.push(
                "the registry does not list this workload: only policies of its namespace and of the mesh hold".to_owned(),
            ),
        }
        if world.generation == 0 {
            notes.push("the registry has told nothing yet: nobody gets in".to_owned());
        } else if !policies
            .iter()
            .any(|policy| policy.action != "deny" && !policy.dry_run)
        {
            notes.push("no policy that allows holds: whoever none denies gets in".to_owned());
        }
        notes
    }
}

impl Asking {
    /// What is not known has the unspecified address, or port 0, and plays no part where nothing asks for it.
    fn ends(&self) -> (IpAddr, SocketAddr) {
        let unknown = match self.destination {
            IpAddr::V4(_) => IpAddr::from([0; 4]),
            IpAddr::V6(_) => IpAddr::from([0; 16]),
        };
        (
            self.address.unwrap_or(unknown),
            SocketAddr::new(self.destination, self.port.unwrap_or_default()),
        )
    }

    /// What has to be known, because a policy asks for it.
    fn missing(&self, world: &Snapshot, standing: &Standing<'_>) -> Option<String> {
        let asks_for = |what: &str, how: &str, asks: &dyn Fn(&Policy) -> bool| {
            let policy = standing.all().find(|policy| asks(policy))?;
            Some(format!("policy {} asks for {what}: give {how}", policy.name))
        };
        let port = || asks_for("the application's port", "port", &Policy::asks_destination_ports);
        let address = || asks_for("the client's address", "address", &Policy::asks_source_ips);
        let port = self.port.is_none().then(port).flatten();
        port.or_else(|| match self.address {
            None => address(),
            // A connection waits until the registry has said which other addresses its peer has.
            Some(from) if self.source.is_some() && !world.has_heard_of(from) => address().map(|_| {
                format!(
                    "the registry was not asked for {from} yet, and may know other addresses of that client"
                )
            }),
            Some(_) => None,
        })
    }

    /// The first rule that applies, where enough is known to say so.
    fn applies(&self, world: &Snapshot, policy: &Policy) -> Option<usize> {
        let is_unknown = (self.port.is_none() && policy.asks_destination_ports())
            || (self.address.is_none() && policy.asks_source_ips());
        let (from, destination) = self.ends();
        let facts = Facts {
            source: self.source.as_ref(),
            source_ips: &world.addresses_of(self.source.as_ref(), &from),
            destination,
        };
        applies(policy, &facts).map(|by| by.rule).filter(|_| !is_unknown)
    }
}

fn that_hold(standing: &Standing<'_>, world: &Snapshot, asking: Option<&Asking>) -> Vec<PolicyStanding> {
    let entries = match standing {
        Standing::Listed(entries) => entries.as_slice(),
        Standing::Unlisted { general, .. } => std::slice::from_ref(general),
    };
    let mut all: Vec<PolicyStanding> = Vec::new();
    let mut add = |policy: PolicyStanding| {
        if all.iter().all(|known| known.name != policy.name) {
            all.push(policy);
        }
    };
    for Applicable {
        global,
        namespace,
        selected,
        missing,
    } in entries
    {
        for (scope, policies) in [("mesh", global), ("namespace", namespace), ("workload", selected)] {
            for policy in *policies {
                let applies = asking.and_then(|asking| asking.applies(world, policy));
                add(told(policy, scope, applies));
            }
        }
        for name in *missing {
            add(PolicyStanding {
                name: name.to_string(),
                kind: kind(name).into(),
                action: "unknown".into(),
                scope: "workload".into(),
                because: "the registry lists it for this workload, and does not have it: nobody gets in"
                    .to_owned(),
                dry_run: false,
                rules: 0,
                applies: None,
            });
        }
    }
    all
}

fn told(policy: &Policy, scope: &'static str, applies: Option<usize>) -> PolicyStanding {
    let kind = kind(&policy.name);
    PolicyStanding {
        name: policy.name.to_string(),
        kind: kind.into(),
        action: match policy.action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        }
        .into(),
        scope: scope.into(),
        because: match (kind, scope) {
            ("peer_authentication", _) if *policy.name.name == *STATIC_STRICT => {
                "a PeerAuthentication demands mutual TLS of this workload".to_owned()
            }
            ("peer_authentication", _) => format!(
                "PeerAuthentication {}/{} selects this workload",
                policy.name.namespace,
                policy.name.name.strip_prefix(CONVERTED).unwrap_or_default()
            ),
            (_, "mesh") => "it holds for every workload of the mesh".to_owned(),
            (_, "namespace") => format!(
                "it holds for every workload of namespace {}",
                policy.name.namespace
            ),
            _ => "it selects this workload".to_owned(),
        },
        dry_run: policy.dry_run,
        rules: policy.rules.len(),
        applies,
    }
}

/// What it was made of. No object of Kubernetes has an underscore in its name.
fn kind(name: &PolicyName) -> &'static str {
    match name.name.starts_with(CONVERTED) || *name.name == *STATIC_STRICT {
        true => "peer_authentication",
        false => "policy",
    }
}

fn allowing(standing: &Standing<'_>) -> String {
    let allow = standing
        .all()
        .filter(|policy| policy.action == Action::Allow && !policy.dry_run);
    let mut names: Vec<String> = allow.map(|policy| policy.name.to_string()).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

fn in_words(decision: &Decision) -> String {
    match decision {
        Decision::Allow(None) => "nothing would deny it".to_owned(),
        Decision::Allow(Some(by)) => format!("the Allow policy {by} would allow it"),
        Decision::Deny(denial) => format!("it would be denied: {denial}"),
    }
}

#[cfg(test)]
mod tests;
