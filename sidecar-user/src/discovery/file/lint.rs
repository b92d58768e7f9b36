//! What a policy says and cannot mean: conditions that contradict each other, rules that never apply, negations that let
//! plaintext in. Every answer is a warning; nothing here changes what is read.

use ipnet::IpNet;

use crate::model::SpiffeId;
use crate::model::authorization::{Clause, Condition, Match, Rule, ServiceAccount, StringMatch};

/// Why this match can never hold; `None`: it can.
pub(super) fn contradiction(m: &Match) -> Option<String> {
    if m.is_empty() {
        return Some(
            "an empty match never matches; conditions on HTTP, which are not known here, may have stood in it".into(),
        );
    }
    let conditions = [
        ("namespaces", is_ruled_out(&m.namespaces, text_covers)),
        (
            "serviceAccounts",
            is_ruled_out(&m.service_accounts, ServiceAccount::eq),
        ),
        ("principals", is_ruled_out(&m.principals, text_covers)),
        ("sourceIps", is_ruled_out(&m.source_ips, net_covers)),
        ("destinationIps", is_ruled_out(&m.destination_ips, net_covers)),
        ("destinationPorts", is_ruled_out(&m.destination_ports, u16::eq)),
    ];
    if let Some((name, _)) = conditions.iter().find(|(_, ruled_out)| *ruled_out) {
        return Some(format!(
            "this never matches: what `{name}` asks for, its negation rules out"
        ));
    }
    if asks_identity(m) && rules_out_every_identity(m) {
        return Some("this never matches: it asks for an identity and rules every identity out".into());
    }
    disagreement(m)
        .map(|[one, other]| format!("this never matches: no source fits both `{one}` and `{other}`"))
}

/// Why this rule can never apply, although each of its matches could.
pub(super) fn never_applies(rule: &Rule) -> Option<&'static str> {
    let dead = |clause: &Clause| {
        !clause.matches.is_empty() && clause.matches.iter().all(|m| contradiction(m).is_some())
    };
    if rule.clauses.iter().any(dead) {
        return Some("this rule never applies: one of its clauses never does");
    }
    let asked: Vec<Vec<u16>> = rule.clauses.iter().filter_map(ports_asked).collect();
    let (first, others) = asked.split_first()?;
    let common = first
        .iter()
        .any(|port| others.iter().all(|asked| asked.contains(port)));
    (!common).then_some("this rule never applies: its clauses ask for different `destinationPorts`")
}

/// The only ports with which the clause applies; `None`: it applies with others, too.
fn ports_asked(clause: &Clause) -> Option<Vec<u16>> {
    let ports = || clause.matches.iter().map(|m| &m.destination_ports.any_of);
    let restricted = !clause.matches.is_empty() && ports().all(|asked| !asked.is_empty());
    restricted.then(|| ports().flatten().copied().collect())
}

/// The places of matches, clause and match, that plaintext passes because it is not what they rule out.
pub(super) fn lets_plaintext_in(rule: &Rule) -> Vec<(usize, usize)> {
    let open = |m: &Match| !asks_identity(m) && contradiction(m).is_none();
    let passes = |clause: &Clause| clause.matches.is_empty() || clause.matches.iter().any(open);
    if !rule.clauses.iter().all(passes) {
        return Vec::new();
    }
    let by_negation = |m: &Match| {
        let negated = [
            m.namespaces.none_of.len(),
            m.service_accounts.none_of.len(),
            m.principals.none_of.len(),
        ];
        open(m) && negated != [0; 3]
    };
    let clauses = rule.clauses.iter().enumerate();
    let matches = clauses.flat_map(|(c, clause)| {
        let matches = clause.matches.iter().enumerate();
        matches
            .filter(move |(_, m)| by_negation(m))
            .map(move |(n, _)| (c, n))
    });
    matches.collect()
}

fn asks_identity(m: &Match) -> bool {
    let asked = [
        m.namespaces.any_of.len(),
        m.service_accounts.any_of.len(),
        m.principals.any_of.len(),
    ];
    asked != [0; 3]
}

fn rules_out_every_identity(m: &Match) -> bool {
    let texts = m.namespaces.none_of.iter().chain(&m.principals.none_of);
    texts.into_iter().any(|text| *text == StringMatch::Presence)
}

/// Two positive conditions on the identity that no identity fits, as far as they name it in full.
fn disagreement(m: &Match) -> Option<[&'static str; 2]> {
    let namespace_fits = |namespace: &str| {
        m.namespaces.any_of.is_empty() || m.namespaces.any_of.iter().any(|wanted| wanted.fits(namespace))
    };
    let accounts = &m.service_accounts.any_of;
    if !accounts.is_empty() && !accounts.iter().any(|account| namespace_fits(&account.namespace)) {
        return Some(["namespaces", "serviceAccounts"]);
    }
    let exact = m.principals.any_of.iter().map(|wanted| match wanted {
        StringMatch::Exact(principal) => format!("spiffe://{principal}").parse::<SpiffeId>().ok(),
        _ => None,
    });
    let named: Vec<SpiffeId> = exact.collect::<Option<_>>()?;
    if named.is_empty() {
        return None;
    }
    if !named.iter().any(|id| namespace_fits(id.namespace())) {
        return Some(["namespaces", "principals"]);
    }
    let has_account = |id: &SpiffeId| {
        let mut accounts = accounts.iter();
        accounts.any(|account| account.namespace == id.namespace() && account.name == id.service_account())
    };
    if !accounts.is_empty() && !named.iter().any(has_account) {
        return Some(["serviceAccounts", "principals"]);
    }
    None
}

/// Is everything that the condition asks for ruled out by it?
fn is_ruled_out<T>(condition: &Condition<T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    let ruled_out = |asked: &T| condition.none_of.iter().any(|ruled_out| covers(ruled_out, asked));
    !condition.any_of.is_empty() && condition.any_of.iter().all(ruled_out)
}

/// Does all that fits `narrow` fit `wide`?
fn text_covers(wide: &StringMatch, narrow: &StringMatch) -> bool {
    use StringMatch::{Exact, Prefix, Presence, Suffix};
    match (wide, narrow) {
        (_, Exact(text)) => wide.fits(text),
        (Presence, _) => true,
        (Prefix(wide), Prefix(narrow)) => narrow.starts_with(wide.as_str()),
        (Suffix(wide), Suffix(narrow)) => narrow.ends_with(wide.as_str()),
        _ => false,
    }
}

fn net_covers(wide: &IpNet, narrow: &IpNet) -> bool {
    wide.contains(narrow)
}

#[cfg(test)]
mod tests;
