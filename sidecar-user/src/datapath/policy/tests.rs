//! What a text means, and that the flattened prefixes mean the same as the rules one by one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sidecar_ebpf::abi::MAX_RANGES;

use super::compile::{Key, MAX_PREFIXES};
use super::fuzz::{compiled, documented};
use super::*;

const EXAMPLE: &str = "outbound:
  - destinations: [10.0.0.0/8, \"fd00::/8\"]
    ports: [3306, 6000-6010]
    action: leave
  - destinations: [198.51.100.7]
    connect: optimistic
inbound:
  - sources: [10.1.0.0/16]
    ports: [22]
    action: leave
";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Few networks and ports, so that they meet.
pub(in super::super) struct Dice(fastrand::Rng);

impl Dice {
    pub(in super::super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// `None` when it does not fit.
    pub(in super::super) fn policy(&mut self) -> Option<Policy> {
        let outbound = (0..self.0.usize(..12)).map(|_| self.rule()).collect();
        let inbound = (0..self.0.usize(..4)).map(|_| self.rule()).collect();
        Policy::new(outbound, inbound).ok()
    }

    /// An address and a port; one that a rule names is likelier to be hit than any other.
    pub(in super::super) fn question(&mut self, rules: &[Rule]) -> (IpAddr, u16) {
        let rule = self.0.choice(rules).cloned();
        let ip = match rule.filter(|_| self.0.bool()) {
            Some(rule) => rule.nets[0].addr(),
            None => self.ip(),
        };
        (ip, self.port())
    }

    fn ip(&mut self) -> IpAddr {
        let mut bits = || self.0.u8(..) & 0b1100_0001;
        match [bits(), bits(), bits(), bits()] {
            [a, b, c, d] if d & 1 == 0 => Ipv4Addr::new(a, b, c, d).into(),
            [a, b, c, d] => Ipv6Addr::from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, c, d]).into(),
        }
    }

    fn net(&mut self) -> IpNet {
        let ip = self.ip();
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let length = *self.0.choice(&[0, 0, 1, 2, 8, 9, 16, 24, 31, 32, 128]).unwrap();
        IpNet::new(ip, longest.min(length)).unwrap().trunc()
    }

    fn ports(&mut self) -> Ports {
        let (a, b) = (self.port(), self.port());
        Ports {
            first: a.min(b),
            last: a.max(b),
        }
    }

    fn port(&mut self) -> u16 {
        *self
            .0
            .choice(&[1, 2, 3, 79, 80, 81, 443, 8079, 8080, 65534, 65535])
            .unwrap()
    }

    fn some<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.0.usize(1..3)).map(|_| one(self)).collect()
    }

    fn rule(&mut self) -> Rule {
        Rule {
            nets: self.some(Self::net),
            ports: match self.0.u8(..3) {
                0 => vec![Ports::ALL],
                _ => Ports::merged(self.some(Self::ports)),
            },
            action: *self
                .0
                .choice(&[
                    Action::Leave,
                    Action::Take { optimistic: false },
                    Action::Take { optimistic: true },
                ])
                .unwrap(),
            source: Source::Line(1),
        }
    }
}

#[test]
fn flattened_prefixes_mean_what_the_rules_mean() {
    let mut fit = 0;
    for seed in 0..2000 {
        let mut dice = Dice::new(seed);
        let Some(policy) = dice.policy() else {
            continue;
        };
        fit += 1;
        for direction in [Direction::Outbound, Direction::Inbound] {
            let rules = policy.rules(direction);
            for _ in 0..200 {
                let (ip, port) = dice.question(rules);
                assert_eq!(
                    compiled(&policy, direction, ip, port),
                    documented(rules, ip, port),
                    "seed {seed}: {direction} {ip} {port}\n{rules:#?}"
                );
            }
        }
    }
    assert!(fit > 1000, "only {fit} of the random policies fit");
}

#[test]
fn the_example_of_the_documentation_means_what_it_says() {
    assert!(
        include_str!("../../../../docs/configuration.md").contains(EXAMPLE),
        "the example is not that of the manual"
    );
    let policy = parse(EXAMPLE).unwrap();
    let take = |optimistic| Action::Take { optimistic };
    for (to, port, action, rule) in [
        ("10.2.3.4", 3306, Action::Leave, Some(0)),
        ("::ffff:10.2.3.4", 6010, Action::Leave, Some(0)),
        ("fd01::1", 6000, Action::Leave, Some(0)),
        ("10.2.3.4", 6011, take(false), None),
        ("198.51.100.7", 3306, take(true), Some(1)),
        ("198.51.100.8", 443, take(false), None),
        ("169.254.169.254", 80, Action::Leave, Some(2)),
        ("fd00:ec2::254", 80, Action::Leave, Some(3)),
    ] {
        assert_eq!(
            compiled(&policy, Direction::Outbound, ip(to), port),
            (action, rule),
            "{to} {port}"
        );
    }
    for (from, port, action) in [
        ("10.1.2.3", 22, Action::Leave),
        ("10.1.2.3", 23, take(false)),
        ("10.2.2.3", 22, take(false)),
        ("169.254.7.127", 8080, Action::Leave),
        ("169.254.7.126", 8080, take(false)),
    ] {
        assert_eq!(
            compiled(&policy, Direction::Inbound, ip(from), port).0,
            action,
            "{from} {port}"
        );
    }
    assert_eq!(policy.rules(Direction::Outbound)[1].source, Source::Line(5));
}

#[test]
fn a_users_rule_for_the_same_network_wins_over_a_built_in_one_and_a_wider_one_does_not() {
    let metadata = |text: &str| {
        let policy = parse(text).unwrap();
        compiled(&policy, Direction::Outbound, ip("169.254.169.254"), 80).0
    };
    assert_eq!(
        metadata("outbound: [{destinations: [169.254.0.0/16], action: take}]"),
        Action::Take { optimistic: false }
    );
    assert_eq!(metadata("outbound: [{action: take}]"), Action::Leave);
}

#[test]
fn a_rule_for_all_of_ipv6_says_nothing_about_ipv4() {
    let policy = parse("outbound: [{destinations: [\"::/0\"], action: leave}]").unwrap();
    assert_eq!(
        compiled(&policy, Direction::Outbound, ip("fd00::1"), 80).0,
        Action::Leave
    );
    assert_eq!(
        compiled(&policy, Direction::Outbound, ip("10.0.0.1"), 80).0,
        Action::Take { optimistic: false }
    );
    let roots = |of: &Policy| of.prefixes().iter().filter(|p| p.net.prefix_len() == 0).count();
    assert_eq!(roots(&policy), 4, "both families, in both directions");
}

#[test]
fn ipv4_stands_in_the_mapped_part_of_the_key() {
    let key = |net: &str| Key::new(7, Direction::Inbound, net.parse().unwrap());
    assert_eq!(key("10.0.0.0/8").bits, 32 + 96 + 8);
    assert_eq!(key("fd00::/8").bits, 32 + 8);
    let bytes: [u8; 24] = bytemuck::cast(key("10.0.0.0/8"));
    assert_eq!(bytes[4..8], [7, 2, 0, 0]);
    assert_eq!(bytes[18..], [255, 255, 10, 0, 0, 0]);
}

#[test]
fn every_mistake_is_named_with_its_place_and_remedy() {
    let problems = parse(
        "outbound:
- destinations: [10.0.0.1/8, nowhere, \"::ffff:10.0.0.0/104\"]
  ports: [0, 80-79, 70000, x]
  action: live
- {ports: [80]}
- {destinations: [], action: leave, connect: optimistic}
- {sources: [10.0.0.0/8], action: leave}
inbound:
- {sources: [10.0.0.0/8], connect: truthful}
",
    )
    .unwrap_err();
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let wanted = [
        "2:18: `outbound[0].destinations[0]`: `10.0.0.1/8` has bits set behind its first 8; write 10.0.0.0/8 if",
        "2:30: `outbound[0].destinations[1]`: `nowhere` is no address or CIDR; write an address",
        "3:11: `outbound[0].ports[0]`: `0` is no port; write a port from 1 to 65535",
        "3:14: `outbound[0].ports[1]`: `80-79` ends before it begins",
        "3:21: `outbound[0].ports[2]`: `70000` is no port",
        "3:28: `outbound[0].ports[3]`: `x` is no port",
        "4:11: `outbound[0].action`: `live` is not known here; ",
        "5:3: `outbound[1]`: the rule does nothing",
        "6:18: `outbound[2].destinations`: the list is empty",
        "6:46: `outbound[2].connect`: what is left alone connects as it would",
        "7:4: `outbound[3].sources`: unknown field",
        "9:3: `inbound[0]`: the rule does nothing",
        "9:27: `inbound[0].connect`: unknown field",
    ];
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted), "{found}\ninstead of\n{wanted}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
}

#[test]
fn an_empty_text_is_no_policy_and_an_empty_list_is_one() {
    assert!(parse("").unwrap_err().to_string().contains("the policy is empty"));
    assert_eq!(parse("outbound: []").unwrap().rules(Direction::Outbound).len(), 2);
}

#[test]
fn too_many_port_ranges_are_refused_where_the_narrowest_network_is_named() {
    let ports = |n: usize| {
        let ports: Vec<String> = (0..n).map(|n| (n * 2 + 1).to_string()).collect();
        ports.join(", ")
    };
    let policy = |wide: usize, narrow: usize| {
        parse(&format!(
            "outbound:\n- {{destinations: [10.0.0.0/8], ports: [{}], action: leave}}\n\
             - {{destinations: [10.1.0.0/16], ports: [{}], connect: optimistic}}\n",
            ports(wide),
            (0..narrow)
                .map(|n| (n * 2 + 30_000).to_string())
                .collect::<Vec<_>>()
                .join(", "),
        ))
    };
    assert!(policy(8, MAX_RANGES - 8).is_ok());
    let error = policy(8, MAX_RANGES - 7).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "3:3: `outbound[1]`: the rules for 10.1.0.0/16 and for the networks around it make 17 port ranges, and \
             there is room for 16; join port ranges"
        ),
        "{error}"
    );
}

#[test]
fn too_many_networks_are_refused() {
    let nets = |n: usize| {
        let nets: Vec<String> = (0..n)
            .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
            .collect();
        parse(&format!(
            "outbound: [{{destinations: [{}], action: leave}}]",
            nets.join(", ")
        ))
    };
    // The roots of two families in two directions, and the built-in rules.
    assert!(nets(MAX_PREFIXES - 7).is_ok());
    let error = nets(MAX_PREFIXES - 6).unwrap_err().to_string();
    assert!(
        error.contains("room for 8192; join neighbouring networks"),
        "{error}"
    );
}
