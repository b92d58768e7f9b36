//! Compares the evaluator with a slow and obvious reading of `docs/registry.md`, over random policies and connections from
//! so small a world that most conditions have a fair chance to hold.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fastrand::Rng;
use ipnet::IpNet;

use super::*;
use crate::model::authorization::{Condition, Scope, ServiceAccount, StringMatch};

const ROUNDS: u64 = 20_000;

#[test]
fn the_evaluator_decides_as_the_document_says() {
    // Another seed each time, which a failure prints.
    let seed = fastrand::u64(..);
    let [mut allowed, mut denied, mut by_rule] = [0_u32; 3];
    for round in 0..ROUNDS {
        let random = &mut Rng::with_seed(seed ^ round);
        let policies: Vec<Arc<Policy>> = (0..random.usize(..4))
            .map(|n| Arc::new(policy(random, n)))
            .collect();
        let (one, two) = (random.usize(..=policies.len()), random.usize(..=policies.len()));
        let missing = [name("gone")];
        let applicable = Applicable {
            global: &policies[..one.min(two)],
            namespace: &policies[one.min(two)..one.max(two)],
            selected: &policies[one.max(two)..],
            missing: &missing[..usize::from(random.u8(..20) == 0)],
        };
        let connection = Connection::any(random);
        for obeyed in [false, true] {
            let counts = |policy: &&Arc<Policy>| obeyed || !policy.dry_run;
            let counting: Vec<&Policy> = policies.iter().filter(counts).map(AsRef::as_ref).collect();
            let expected = applicable.missing.is_empty() && connection.may(&counting);
            let decision = match obeyed {
                false => evaluate(&applicable, &connection.facts()),
                true => match rehearse(&applicable, &connection.facts()) {
                    Some(decision) => decision,
                    None => continue,
                },
            };
            let told =
                || format!("seed {seed}, round {round}: {connection:?}, {applicable:#?}: {decision:?}");
            assert_eq!(matches!(decision, Decision::Allow(_)), expected, "{}", told());
            let (Decision::Allow(Some(by)) | Decision::Deny(Denial::Denied(by))) = &decision else {
                continue;
            };
            // The rule that is named is one that decides.
            let named = counting.iter().find(|policy| policy.name == by.policy);
            let named = named.unwrap_or_else(|| panic!("no such policy; {}", told()));
            assert!(connection.fits_rule(&named.rules[by.rule]), "{}", told());
            assert_eq!(named.action == Action::Allow, expected, "{}", told());
            by_rule += 1;
        }
        match connection.may(&policies.iter().map(AsRef::as_ref).collect::<Vec<_>>()) {
            true => allowed += 1,
            false => denied += 1,
        }
    }
    // A world in which everything or nothing is allowed would prove little.
    let rounds = u32::try_from(ROUNDS).unwrap();
    assert!(
        allowed > rounds / 10 && denied > rounds / 10 && by_rule > rounds / 10,
        "{allowed} allowed, {denied} denied, {by_rule} by a rule"
    );
}

/// What is known of a connection, as text.
#[derive(Debug)]
struct Connection {
    id: Option<SpiffeId>,
    ips: Vec<IpAddr>,
    to: SocketAddr,
}

impl Connection {
    fn any(random: &mut Rng) -> Self {
        let id = (random.u8(..4) > 0).then(|| {
            SpiffeId::new(
                pick(random, DOMAINS),
                pick(random, NAMESPACES),
                pick(random, ACCOUNTS),
            )
            .unwrap()
        });
        let ips = (0..random.usize(1..3)).map(|_| address(random)).collect();
        let to = SocketAddr::new(address(random), if random.bool() { 80 } else { 81 });
        Self { id, ips, to }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            source: self.id.as_ref(),
            source_ips: &self.ips,
            destination: self.to,
        }
    }

    fn may(&self, policies: &[&Policy]) -> bool {
        let fits = |action| {
            let policies = policies.iter().filter(move |policy| policy.action == action);
            policies
                .filter(|policy| policy.rules.iter().any(|rule| self.fits_rule(rule)))
                .count()
        };
        let allows = policies.iter().filter(|p| p.action == Action::Allow).count();
        fits(Action::Deny) == 0 && (allows == 0 || fits(Action::Allow) > 0)
    }

    fn fits_rule(&self, rule: &Rule) -> bool {
        for clause in &rule.clauses {
            let mut fits = clause.matches.is_empty();
            for m in &clause.matches {
                fits |= self.fits_match(m);
            }
            if !fits {
                return false;
            }
        }
        true
    }

    /// Each condition as the list of what it asks of the connection; an empty match asks for something impossible.
    fn fits_match(&self, m: &Match) -> bool {
        let part = |n: usize| {
            let id = self.id.as_ref()?;
            Some(id.as_str().split('/').nth(n).unwrap().to_owned())
        };
        let principal = self.id.as_ref().map(|id| id.as_str().replace("spiffe://", ""));
        let is = |wanted: &StringMatch, is: &Option<String>| match (wanted, is) {
            (_, None) => false,
            (StringMatch::Presence, Some(_)) => true,
            (StringMatch::Exact(text), Some(is)) => text == is,
            (StringMatch::Prefix(text), Some(is)) => is.chars().take(text.len()).eq(text.chars()),
            (StringMatch::Suffix(text), Some(is)) => is.chars().rev().take(text.len()).eq(text.chars().rev()),
        };
        let account = |wanted: &ServiceAccount| {
            part(4).is_some_and(|is| is == wanted.namespace) && part(6).is_some_and(|is| is == wanted.name)
        };
        let asks = [
            ask(&m.namespaces, |wanted| is(wanted, &part(4))),
            ask(&m.service_accounts, account),
            ask(&m.principals, |wanted| is(wanted, &principal)),
            ask(&m.source_ips, |net| self.ips.iter().any(|ip| is_in(*ip, *net))),
            ask(&m.destination_ips, |net| is_in(self.to.ip(), *net)),
            ask(&m.destination_ports, |port| self.to.port() == *port),
        ];
        let asked: Vec<bool> = asks.into_iter().flatten().collect();
        !asked.is_empty() && asked.iter().all(|holds| *holds)
    }
}

/// `None`: it asks for nothing.
fn ask<T>(condition: &Condition<T>, fits: impl Fn(&T) -> bool) -> Option<bool> {
    let (any, none) = (&condition.any_of, &condition.none_of);
    if any.is_empty() && none.is_empty() {
        return None;
    }
    let fitting = |items: &Vec<T>| items.iter().filter(|item| fits(item)).count();
    Some((any.is_empty() || fitting(any) > 0) && fitting(none) == 0)
}

/// Bit by bit.
fn is_in(ip: IpAddr, net: IpNet) -> bool {
    let bits = |ip: IpAddr| -> Vec<bool> {
        let octets = match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        octets
            .iter()
            .flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1))
            .collect()
    };
    let mapped = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    };
    let length = usize::from(net.prefix_len());
    mapped.is_ipv4() == net.addr().is_ipv4() && bits(mapped)[..length] == bits(net.addr())[..length]
}

const DOMAINS: &[&str] = &["td", "td.test"];
const NAMESPACES: &[&str] = &["n", "nn", "m"];
const ACCOUNTS: &[&str] = &["a", "b"];
const ADDRESSES: &[&str] = &["10.0.0.1", "10.0.1.1", "::ffff:10.0.0.1", "fd00::1", "fd00:1::1"];

fn pick(random: &mut Rng, of: &[&'static str]) -> &'static str {
    of[random.usize(..of.len())]
}

fn address(random: &mut Rng) -> IpAddr {
    pick(random, ADDRESSES).parse().unwrap()
}

fn name(name: &str) -> PolicyName {
    PolicyName {
        namespace: "n".into(),
        name: name.into(),
    }
}

fn policy(random: &mut Rng, n: usize) -> Policy {
    Policy {
        name: name(&format!("p{n}")),
        scope: Scope::Namespace,
        action: if random.bool() {
            Action::Allow
        } else {
            Action::Deny
        },
        rules: some(random, |random| Rule {
            clauses: some(random, |random| Clause {
                matches: some(random, any_match),
            }),
        }),
        dry_run: random.u8(..4) == 0,
    }
}

fn some<T>(random: &mut Rng, one: impl Fn(&mut Rng) -> T) -> Vec<T> {
    (0..random.usize(..3)).map(|_| one(random)).collect()
}

fn any_match(random: &mut Rng) -> Match {
    Match {
        namespaces: condition(random, |random| {
            let namespace = pick(random, NAMESPACES);
            text(random, namespace)
        }),
        service_accounts: condition(random, |random| ServiceAccount {
            namespace: pick(random, NAMESPACES).into(),
            name: pick(random, ACCOUNTS).into(),
        }),
        principals: condition(random, |random| {
            let (domain, namespace) = (pick(random, DOMAINS), pick(random, NAMESPACES));
            let principal = format!("{domain}/ns/{namespace}/sa/{}", pick(random, ACCOUNTS));
            text(random, &principal)
        }),
        source_ips: condition(random, net),
        destination_ips: condition(random, net),
        destination_ports: condition(random, |random| if random.bool() { 80 } else { 81 }),
    }
}

/// Most conditions ask for nothing, or a match would never hold.
fn condition<T>(random: &mut Rng, one: impl Fn(&mut Rng) -> T) -> Condition<T> {
    let mut items = |often: u8| match random.u8(..10) < often {
        true => (0..random.usize(1..3)).map(|_| one(random)).collect(),
        false => Vec::new(),
    };
    Condition {
        any_of: items(2),
        none_of: items(1),
    }
}

/// Also empty parts, which the reader refuses: no source without identity may fit them.
fn text(random: &mut Rng, whole: &str) -> StringMatch {
    let cut = random.usize(..=whole.len());
    match random.u8(..4) {
        0 => StringMatch::Exact(if random.u8(..8) == 0 { "" } else { whole }.into()),
        1 => StringMatch::Prefix(whole[..cut].into()),
        2 => StringMatch::Suffix(whole[cut..].into()),
        _ => StringMatch::Presence,
    }
}

fn net(random: &mut Rng) -> IpNet {
    let ip = address(random).to_canonical();
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let length = [0, 8, 24, bits][random.usize(..4)];
    IpNet::new(ip, length).unwrap()
}
