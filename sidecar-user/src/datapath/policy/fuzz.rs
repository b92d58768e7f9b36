//! What has to hold of an interception policy, whatever its text: the prefixes that the kernel is given mean what the rules
//! mean one by one.

use std::net::IpAddr;

use sidecar_ebpf::abi;
use sidecar_ebpf::addr::Port;
use sidecar_ebpf::verdict;

use super::{Action, Direction, Policy, Ports, Rule, parse};

/// Rules whose edges are compared; each is compared with every port of every other.
const COMPARED: usize = 8;

pub(crate) fn policy(text: &str) -> Result<String, String> {
    let policy = parse(text).map_err(|problems| problems.to_string())?;
    for direction in [Direction::Outbound, Direction::Inbound] {
        let rules = policy.rules(direction);
        let some = || rules.iter().take(COMPARED);
        let edges = some()
            .flat_map(|rule| rule.nets.iter().take(COMPARED))
            .flat_map(|net| [net.network(), net.broadcast()]);
        let ports: Vec<u16> = some()
            .flat_map(|rule| rule.ports.iter().take(COMPARED))
            .flat_map(around)
            .collect();
        for ip in edges {
            for port in &ports {
                let (wanted, found) = (
                    documented(rules, ip, *port),
                    compiled(&policy, direction, ip, *port),
                );
                assert_eq!(found, wanted, "{direction} {ip} {port}");
            }
        }
    }
    Ok(String::new())
}

fn around(ports: &Ports) -> [u16; 4] {
    [
        ports.first.saturating_sub(1),
        ports.first,
        ports.last,
        ports.last.saturating_add(1),
    ]
}

/// What the kernel would answer: the longest prefix, and the first of its ranges that holds the port.
pub(super) fn compiled(
    policy: &Policy,
    direction: Direction,
    ip: IpAddr,
    port: u16,
) -> (Action, Option<usize>) {
    let prefixes = policy.prefixes().iter();
    let matching = prefixes.filter(|p| p.direction == direction && p.net.contains(&ip.to_canonical()));
    let longest = matching.max_by_key(|p| p.net.prefix_len());
    let range = verdict::of_port(longest.map(|p| &p.policy), Port::new(port));
    let action = match range.action {
        abi::Action::LEAVE => Action::Leave,
        _ => Action::Take {
            optimistic: range.optimistic != 0,
        },
    };
    let rule = (range.rule != abi::Range::DEFAULT).then_some(range.rule.into());
    (action, rule)
}

/// The rules as they are documented, each looked at by itself.
pub(in crate::datapath) fn documented(rules: &[Rule], ip: IpAddr, port: u16) -> (Action, Option<usize>) {
    let mut best: Option<(u8, usize)> = None;
    for (number, rule) in rules.iter().enumerate() {
        if !rule.ports.iter().any(|ports| ports.holds(port)) {
            continue;
        }
        for net in rule.nets.iter().filter(|net| net.contains(&ip)) {
            if best.is_none_or(|(length, _)| net.prefix_len() > length) {
                best = Some((net.prefix_len(), number));
            }
        }
    }
    match best {
        Some((_, number)) => (rules[number].action, Some(number)),
        None => (Action::Take { optimistic: false }, None),
    }
}
