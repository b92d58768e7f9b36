//! One entry of `policies`.

use std::num::NonZeroU16;

use ipnet::{IpNet, Ipv4Net};

use super::lint;
use super::reader::{Place, Reader};
use crate::document::{Field, Object};
use crate::model::SpiffeId;
use crate::model::authorization::{
    Action, Clause, Condition, Match, Policy, PolicyName, Rule, Scope, ServiceAccount, StringMatch,
};

pub(super) struct Entry {
    pub policy: Policy,
    pub place: Place,
}

const KEYS: [&str; 6] = ["name", "namespace", "scope", "action", "rules", "dryRun"];

const MATCH_KEYS: [&str; 12] = [
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "principals",
    "notPrincipals",
    "sourceIps",
    "notSourceIps",
    "destinationIps",
    "notDestinationIps",
    "destinationPorts",
    "notDestinationPorts",
];

pub(super) fn read(reader: &Reader, field: &Field<'_>) -> Option<Entry> {
    let object = field.object(&KEYS)?;
    let name = object.require("name", "name the policy").and_then(|f| f.text());
    let namespace = object
        .require("namespace", "name the policy's namespace")
        .and_then(|f| f.text());
    let scope = object
        .require("scope", "write Global, Namespace or WorkloadSelector")
        .and_then(|f| {
            f.one_of(&[
                ("Global", Scope::Global),
                ("Namespace", Scope::Namespace),
                ("WorkloadSelector", Scope::WorkloadSelector),
            ])
        });
    let action = object
        .require("action", "write Allow or Deny")
        .and_then(|f| f.one_of(&[("Allow", Action::Allow), ("Deny", Action::Deny)]));
    let rules = object.require("rules", "write a list of rules; [] matches nothing");
    let rules = rules
        .map(|field| read_rules(reader, &field, action))
        .unwrap_or_default();
    let dry_run = object.get("dryRun").and_then(|f| f.bool()).unwrap_or(false);
    Some(Entry {
        policy: Policy {
            name: PolicyName {
                namespace: namespace?.into(),
                name: name?.into(),
            },
            scope: scope?,
            action: action?,
            rules,
            dry_run,
        },
        place: Place::from(field),
    })
}

/// Three lists deep: rules, each of clauses, each of matches.
fn read_rules(reader: &Reader, field: &Field<'_>, action: Option<Action>) -> Vec<Rule> {
    let rules = field.list("a list of rules").unwrap_or_default();
    // An Allow without rules is how one lets nobody in.
    if rules.is_empty() && field.is_list() && action == Some(Action::Deny) {
        reader.warn(
            field,
            "a Deny without rules never applies, so it denies nobody",
            "write [[]] to deny everybody, or remove the policy",
        );
    }
    rules.iter().map(|rule| read_rule(reader, rule, action)).collect()
}

fn read_rule(reader: &Reader, field: &Field<'_>, action: Option<Action>) -> Rule {
    let (mut rule, mut fields) = (Rule::default(), Vec::new());
    for clause in field
        .list("a rule, which is a list of clauses")
        .unwrap_or_default()
    {
        let matches = clause
            .list("a clause, which is a list of matches")
            .unwrap_or_default();
        rule.clauses.push(Clause {
            matches: matches.iter().map(|m| read_match(reader, m)).collect(),
        });
        fields.push(matches);
    }
    if let Some(what) = lint::never_applies(&rule) {
        reader.warn(field, what, "correct or remove it");
    }
    if action == Some(Action::Allow) {
        for (clause, n) in lint::lets_plaintext_in(&rule) {
            reader.warn(
                &fields[clause][n],
                "plaintext has no identity, so it is none of those that are ruled out here, and this lets it in",
                "add `principals: [!Presence []]` to let in proven identities only",
            );
        }
    }
    rule
}

/// ztunnel ignores a misspelt key here, and so turns a rule into one that never matches; for us it is an error.
fn read_match(reader: &Reader, field: &Field<'_>) -> Match {
    let Some(object) = field.object(&MATCH_KEYS) else {
        return Match::default();
    };
    let m = Match {
        namespaces: condition(reader, &object, ["namespaces", "notNamespaces"], read_namespace),
        service_accounts: condition(
            reader,
            &object,
            ["serviceAccounts", "notServiceAccounts"],
            read_account,
        ),
        principals: condition(reader, &object, ["principals", "notPrincipals"], read_principal),
        source_ips: condition(reader, &object, ["sourceIps", "notSourceIps"], read_net),
        destination_ips: condition(reader, &object, ["destinationIps", "notDestinationIps"], read_net),
        destination_ports: condition(
            reader,
            &object,
            ["destinationPorts", "notDestinationPorts"],
            read_port,
        ),
    };
    if let Some(what) = lint::contradiction(&m) {
        reader.warn(field, what, "state conditions that can hold, or remove it");
    }
    m
}

fn condition<'d, T>(
    reader: &Reader,
    object: &Object<'d>,
    [any_of, none_of]: [&str; 2],
    read: impl Fn(&Reader, Field<'d>) -> Option<T>,
) -> Condition<T> {
    let list = |name| {
        if let Some(field) = object.get(name)
            && field.list("a list").is_some_and(|items| items.is_empty())
        {
            reader.warn(
                &field,
                "an empty list is no condition, so everything fits",
                "name what has to fit, or remove it",
            );
        }
        object.list_of(name, "a list", |item| read(reader, item))
    };
    Condition {
        any_of: list(any_of),
        none_of: list(none_of),
    }
}

fn read_string(field: Field<'_>) -> Option<StringMatch> {
    const FORM: &str = "write !Exact \"v\", !Prefix \"v\", !Suffix \"v\" or !Presence []";
    let kind = match field.tag() {
        Some("Presence") => return read_presence(&field),
        Some("Exact") => StringMatch::Exact,
        Some("Prefix") => StringMatch::Prefix,
        Some("Suffix") => StringMatch::Suffix,
        Some(other) => {
            field.problem(format!("`!{other}` is no way to match text"), FORM);
            return None;
        }
        None => {
            field.problem("the tag is missing that says how to match", FORM);
            return None;
        }
    };
    let text = field.scalar()?;
    if text.is_empty() {
        field.problem(
            "an empty text says nothing",
            "write what has to fit, or !Presence [] for anybody with an identity",
        );
        return None;
    }
    Some(kind(text.to_owned()))
}

fn read_presence(field: &Field<'_>) -> Option<StringMatch> {
    if !field.is_nothing() {
        field.problem("`!Presence` takes no value", "write !Presence []");
        return None;
    }
    Some(StringMatch::Presence)
}

fn read_namespace(reader: &Reader, field: Field<'_>) -> Option<StringMatch> {
    let wanted = read_string(field.clone())?;
    if let Some(text) = text_of(&wanted)
        && !text.bytes().all(is_of_segment)
    {
        warn_never(reader, &field, text, "no namespace has such a name");
    }
    Some(wanted)
}

/// Principals are compared without their scheme, so one written with it would never match.
fn read_principal(reader: &Reader, field: Field<'_>) -> Option<StringMatch> {
    let wanted = read_string(field.clone())?;
    let text = text_of(&wanted).unwrap_or_default();
    if text.contains("://") {
        let (_, bare) = text.split_once("://").unwrap_or_default();
        field.problem(
            format!("`{text}` never matches: principals are written without their scheme"),
            format!("write \"{bare}\""),
        );
    } else if let StringMatch::Exact(_) = &wanted
        && let Err(error) = format!("spiffe://{text}").parse::<SpiffeId>()
    {
        warn_never(reader, &field, text, error.reason);
    } else if !text.bytes().all(|b| is_of_segment(b) || b == b'/') {
        warn_never(reader, &field, text, "no identity has such a character");
    }
    Some(wanted)
}

fn warn_never(reader: &Reader, field: &Field<'_>, text: &str, reason: &str) {
    reader.warn(
        field,
        format!("`{text}` never fits: {reason}"),
        "correct or remove it",
    );
}

fn text_of(wanted: &StringMatch) -> Option<&str> {
    match wanted {
        StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => Some(text),
        StringMatch::Presence => None,
    }
}

/// What SPIFFE allows in a segment of a path, and more than it allows in a trust domain.
fn is_of_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

fn read_account(_: &Reader, field: Field<'_>) -> Option<ServiceAccount> {
    const FORM: &str = "write {namespace: n, serviceAccount: a}";
    let object = field.object(&["namespace", "serviceAccount"])?;
    let part = |name| {
        let field = object.require(name, FORM)?;
        let text = field.text()?;
        if text.is_empty() {
            field.problem("this is empty, and nobody's", FORM);
        }
        Some(text.to_owned())
    };
    let (namespace, name) = (part("namespace"), part("serviceAccount"));
    Some(ServiceAccount {
        namespace: namespace?,
        name: name?,
    })
}

/// Addresses are compared in their canonical form, in which a v4-mapped network is one of IPv4.
fn read_net(_: &Reader, field: Field<'_>) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    let net: IpNet = field.parse(
        "network",
        "write an address and a prefix length, such as 10.0.0.0/8 or 10.0.0.1/32",
    )?;
    let IpNet::V6(v6) = net else {
        return Some(net);
    };
    let Some(v4) = v6.addr().to_ipv4_mapped() else {
        return Some(net);
    };
    let Some(length) = v6.prefix_len().checked_sub(MAPPED_BITS) else {
        field.problem(
            format!("`{net}` is wider than all v4-mapped addresses, and has IPv6 addresses beside them"),
            "write the IPv4 network and the IPv6 network apart",
        );
        return None;
    };
    // At most 32, for that was at most 128.
    Ipv4Net::new(v4, length).ok().map(IpNet::V4)
}

fn read_port(_: &Reader, field: Field<'_>) -> Option<u16> {
    let port = field.parse::<NonZeroU16>("port", "write a number from 1 to 65535")?;
    Some(port.get())
}
