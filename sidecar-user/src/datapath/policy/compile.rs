//! Rules to prefixes: the kernel finds the longest prefix and asks no other, so each prefix carries what the ones
//! around it say, too.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use sidecar_ebpf::abi::{self, MAX_RANGES, POLICY_ENTRIES, PolicyKey, Range};

use super::super::ip::kernel_ip;
use super::rule::{Action, Direction, Ports, Rule};

/// Two generations are in the kernel's map while the policy changes.
pub(super) const MAX_PREFIXES: usize = POLICY_ENTRIES / 2;
/// The kernel knows a rule by a number of 16 bits, of which the highest means none.
const MAX_RULES: usize = 32_768;

/// A rule that the kernel has no room for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Misfit {
    pub direction: Direction,
    /// Its place among the rules of its direction.
    pub rule: usize,
    pub what: String,
    pub remedy: String,
}

/// One entry of the kernel's map, but for the generation.
#[derive(Clone, Debug)]
pub(in super::super) struct Prefix {
    pub(in super::super) direction: Direction,
    pub(in super::super) net: IpNet,
    pub(in super::super) policy: abi::Policy,
}

/// The entry's key as the kernel has it: how many bits of it count, then its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
pub(in super::super) struct Key {
    pub(super) bits: u32,
    pub(in super::super) key: PolicyKey,
}

impl Key {
    /// IPv4 stands in the v4-mapped part of the address space.
    pub(in super::super) fn new(generation: u8, direction: Direction, net: IpNet) -> Self {
        const MAPPED: u32 = 96;
        let before = if net.addr().is_ipv4() { MAPPED } else { 0 };
        Self {
            bits: PolicyKey::HEAD + before + u32::from(net.prefix_len()),
            key: PolicyKey {
                generation,
                direction: match direction {
                    Direction::Outbound => abi::Direction::OUTBOUND,
                    Direction::Inbound => abi::Direction::INBOUND,
                },
                reserved: 0,
                ip: kernel_ip(net.network()),
            },
        }
    }
}

pub(super) fn compile(outbound: &[Rule], inbound: &[Rule]) -> Result<Vec<Prefix>, Vec<Misfit>> {
    let mut prefixes = Vec::new();
    let mut misfits = Vec::new();
    for (direction, rules) in [(Direction::Outbound, outbound), (Direction::Inbound, inbound)] {
        if rules.len() > MAX_RULES {
            misfits.push(Misfit {
                direction,
                rule: MAX_RULES,
                what: format!("this is one rule more than the {MAX_RULES} that there is room for"),
                remedy: "put destinations that are treated alike into one rule".into(),
            });
            continue;
        }
        let tree = Tree::new(rules);
        for net in tree.nets() {
            match flatten(rules, &tree.chain(net)) {
                Ok(policy) => prefixes.push(Prefix {
                    direction,
                    net,
                    policy,
                }),
                Err(ranges) => misfits.push(Misfit {
                    direction,
                    rule: tree.first_rule(net),
                    what: format!(
                        "the rules for {net} and for the networks around it make {ranges} port ranges, and there is \
                         room for {MAX_RANGES}"
                    ),
                    remedy: "join port ranges, or leave ports that matter little to another rule".into(),
                }),
            }
        }
        if prefixes.len() > MAX_PREFIXES && misfits.is_empty() {
            misfits.push(Misfit {
                direction,
                rule: tree.first_rule(prefixes[MAX_PREFIXES].net),
                what: format!(
                    "the policy names {} networks, and there is room for {MAX_PREFIXES}",
                    prefixes.len()
                ),
                remedy: "join neighbouring networks".into(),
            });
        }
    }
    if misfits.is_empty() {
        Ok(prefixes)
    } else {
        Err(misfits)
    }
}

/// The networks of one direction, each with the rules that name it, in their order.
struct Tree {
    rules_of: HashMap<IpNet, Vec<usize>>,
}

impl Tree {
    fn new(rules: &[Rule]) -> Self {
        // The roots are always there, or an IPv4 address without a rule would match a rule for `::/0`.
        let mut rules_of: HashMap<IpNet, Vec<usize>> = roots().map(|root| (root, Vec::new())).into();
        for (number, rule) in rules.iter().enumerate() {
            for net in &rule.nets {
                let of = rules_of.entry(net.trunc()).or_default();
                if of.last() != Some(&number) {
                    of.push(number);
                }
            }
        }
        Self { rules_of }
    }

    fn nets(&self) -> BTreeSet<IpNet> {
        self.rules_of.keys().copied().collect()
    }

    /// The rules that hold for a network, by precedence.
    fn chain(&self, net: IpNet) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut around = Some(net);
        while let Some(net) = around {
            chain.extend(self.rules_of.get(&net).into_iter().flatten());
            around = net.supernet();
        }
        chain
    }

    fn first_rule(&self, net: IpNet) -> usize {
        let of = self.rules_of.get(&net).and_then(|rules| rules.first());
        of.copied().unwrap_or_default()
    }
}

pub(super) fn roots() -> [IpNet; 2] {
    let root = |ip: IpAddr| IpNet::new(ip, 0).expect("no prefix is shorter");
    [
        root(std::net::Ipv4Addr::UNSPECIFIED.into()),
        root(std::net::Ipv6Addr::UNSPECIFIED.into()),
    ]
}

/// The ranges in the order in which the kernel asks them; one that those before it hold is left out. `Err`: how many
/// there are, when they are too many.
fn flatten(rules: &[Rule], chain: &[usize]) -> Result<abi::Policy, usize> {
    let mut ranges = Vec::new();
    let mut held: Vec<Ports> = Vec::new();
    for (number, rule) in chain.iter().map(|number| (*number, &rules[*number])) {
        for ports in &rule.ports {
            if held
                .iter()
                .any(|h| h.first <= ports.first && ports.last <= h.last)
            {
                continue;
            }
            ranges.push(range(*ports, rule.action, number));
        }
        held.extend(&rule.ports);
        held = Ports::merged(held);
    }
    let mut policy = abi::Policy {
        ranges: [bytemuck::Zeroable::zeroed(); MAX_RANGES],
    };
    match policy.ranges.get_mut(..ranges.len()) {
        Some(room) => {
            room.copy_from_slice(&ranges);
            Ok(policy)
        }
        None => Err(ranges.len()),
    }
}

fn range(ports: Ports, action: Action, number: usize) -> Range {
    Range {
        first: ports.first,
        last: ports.last,
        action: match action {
            Action::Take { .. } => abi::Action::TAKE,
            Action::Leave => abi::Action::LEAVE,
        },
        optimistic: (action == Action::Take { optimistic: true }).into(),
        rule: u16::try_from(number).expect("at most MAX_RULES"),
    }
}
