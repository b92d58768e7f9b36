//! The policy as one YAML text. Pure: text in, policy out. What each key means for a user is in
//! `docs/configuration.md`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::compile::roots;
use super::rule::host;
use super::{Action, Direction, Policy, Ports, Rule, Source};
use crate::document::{Field, Object, Position, Problem, Problems, Sink, load};

/// Reads a whole policy, or says everything that is wrong with it.
pub fn parse(text: &str) -> Result<Policy, Problems> {
    let node = load(text)?;
    let sink = Sink::default();
    let root = Field::root(&node, &sink);
    let mut read = Read::default();
    if let Some(object) = root.object(&["outbound", "inbound"]) {
        // A file that is being rewritten in place is empty for a moment, and that is no wish to take everything.
        if root.entries("a map").is_some_and(|entries| entries.is_empty()) {
            root.problem("the policy is empty", "write `outbound: []` if that is meant");
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            read.rules(&object, direction);
        }
    }
    let mut problems = sink.into_inner();
    // What is left out because it is wrong could make the rest fit.
    if problems.is_empty() {
        match Policy::new(read.outbound, read.inbound) {
            Ok(policy) => return Ok(policy),
            Err(misfits) => problems.extend(misfits.into_iter().map(|misfit| Problem {
                at: read.places.iter().find_map(|(direction, rule, at)| {
                    ((*direction, *rule) == (misfit.direction, misfit.rule)).then_some(*at)
                }),
                field: format!("{}[{}]", misfit.direction, misfit.rule),
                what: misfit.what,
                remedy: misfit.remedy,
            })),
        }
    }
    match Problems::new(problems) {
        Some(problems) => Err(problems),
        None => Ok(Policy::default()),
    }
}

#[derive(Default)]
struct Read {
    outbound: Vec<Rule>,
    inbound: Vec<Rule>,
    places: Vec<(Direction, usize, Position)>,
}

impl Read {
    fn rules(&mut self, root: &Object<'_>, direction: Direction) {
        let into = match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        };
        let name = direction.to_string();
        let fields = root.get(&name).and_then(|field| field.list("a list of rules"));
        for (number, field) in fields.unwrap_or_default().iter().enumerate() {
            self.places.push((direction, number, field.at()));
            into.extend(rule(field, direction));
        }
    }
}

fn rule(field: &Field<'_>, direction: Direction) -> Option<Rule> {
    let (nets_key, keys): (_, &[&str]) = match direction {
        Direction::Outbound => ("destinations", &["destinations", "ports", "action", "connect"]),
        Direction::Inbound => ("sources", &["sources", "ports", "action"]),
    };
    let object = field.object(keys)?;
    let (action, connect) = (object.get("action"), object.get("connect"));
    if action.is_none() && connect.is_none() {
        field.problem("the rule does nothing", "write `action: leave` or `action: take`");
    }
    let leave = action.is_some_and(|f| f.one_of(&[("take", false), ("leave", true)]) == Some(true));
    let optimistic = connect
        .as_ref()
        .is_some_and(|f| f.one_of(&[("truthful", false), ("optimistic", true)]) == Some(true));
    if let (true, Some(connect)) = (leave, &connect) {
        connect.problem(
            "what is left alone connects as it would without a proxy",
            "remove `connect`, or write `action: take`",
        );
    }
    let nets = some(&object, nets_key, net).unwrap_or_else(|| roots().into());
    let ports = some(&object, "ports", ports).unwrap_or_else(|| vec![Ports::ALL]);
    Some(Rule {
        nets,
        ports: Ports::merged(ports),
        action: if leave {
            Action::Leave
        } else {
            Action::Take { optimistic }
        },
        source: Source::Line(field.at().line),
    })
}

/// `None` when the key is not there, which means everything; so an empty list must not pass for that.
fn some<T>(object: &Object<'_>, key: &str, read: impl Fn(&Field<'_>) -> Option<T>) -> Option<Vec<T>> {
    let field = object.get(key)?;
    let items = field.list("a list").unwrap_or_default();
    if items.is_empty() && field.is_list() {
        field.problem(
            "the list is empty, so the rule would never hold",
            "remove the field if all are meant",
        );
    }
    Some(items.iter().filter_map(read).collect())
}

fn net(field: &Field<'_>) -> Option<IpNet> {
    const FORM: &str = "write an address or CIDR such as 10.0.0.0/8 or fd00::/8";
    let text = field.text()?;
    let parsed = match text.parse::<IpAddr>() {
        Ok(ip) => Some(host(ip)),
        Err(_) => field.parse::<IpNet>("address or CIDR", FORM).map(canonical),
    };
    if let Some(net) = parsed
        && net.addr() != net.network()
    {
        field.problem(
            format!("`{text}` has bits set behind its first {}", net.prefix_len()),
            format!(
                "write {} if the network is meant, {} if the host is",
                net.trunc(),
                net.addr()
            ),
        );
        return None;
    }
    parsed
}

/// A v4-mapped network is its IPv4 network.
fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(net, IpNet::V4),
            None => net,
        },
        net => net,
    }
}

fn ports(field: &Field<'_>) -> Option<Ports> {
    const FORM: &str = "write a port from 1 to 65535, or a range such as 6000-6010";
    let text = field.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<std::num::NonZeroU16>().ok().map(u16::from);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Some(Ports { first, last }),
        (Some(_), Some(_)) => {
            field.problem(format!("`{text}` ends before it begins"), FORM);
            None
        }
        _ => {
            field.problem(format!("`{text}` is no port"), FORM);
            None
        }
    }
}
