//! One entry of `policies`.

use std::num::NonZeroU16;

use ipnet::IpNet;

use super::{Place, Reader};
use crate::document::{Field, Object};
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
    let rules = rules.map(|field| read_rules(reader, &field)).unwrap_or_default();
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
fn read_rules(reader: &Reader, field: &Field<'_>) -> Vec<Rule> {
    items(field, "a list of rules", |rule| Rule {
        clauses: items(rule, "a rule, which is a list of clauses", |clause| Clause {
            matches: items(clause, "a clause, which is a list of matches", |m| {
                read_match(reader, m)
            }),
        }),
    })
}

fn items<T>(field: &Field<'_>, wanted: &str, read: impl Fn(&Field<'_>) -> T) -> Vec<T> {
    field.list(wanted).unwrap_or_default().iter().map(read).collect()
}

/// ztunnel ignores a misspelt key here, and so turns a rule into one that never matches; for us it is an error.
fn read_match(reader: &Reader, field: &Field<'_>) -> Match {
    let Some(object) = field.object(&MATCH_KEYS) else {
        return Match::default();
    };
    let m = Match {
        namespaces: condition(&object, ["namespaces", "notNamespaces"], read_string),
        service_accounts: condition(&object, ["serviceAccounts", "notServiceAccounts"], read_account),
        principals: condition(&object, ["principals", "notPrincipals"], read_principal),
        source_ips: condition(&object, ["sourceIps", "notSourceIps"], read_net),
        destination_ips: condition(&object, ["destinationIps", "notDestinationIps"], read_net),
        destination_ports: condition(&object, ["destinationPorts", "notDestinationPorts"], read_port),
    };
    if m.is_empty() {
        reader.warn(
            field,
            "an empty match never matches",
            "state a condition, or remove it",
        );
    }
    m
}

fn condition<'d, T>(
    object: &Object<'d>,
    [any_of, none_of]: [&str; 2],
    read: impl Fn(Field<'d>) -> Option<T>,
) -> Condition<T> {
    Condition {
        any_of: object.list_of(any_of, "a list", &read),
        none_of: object.list_of(none_of, "a list", &read),
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
    Some(kind(field.scalar()?.to_owned()))
}

fn read_presence(field: &Field<'_>) -> Option<StringMatch> {
    if !field.is_nothing() {
        field.problem("`!Presence` takes no value", "write !Presence []");
        return None;
    }
    Some(StringMatch::Presence)
}

/// Principals are compared without their scheme, so one written with it would never match.
fn read_principal(field: Field<'_>) -> Option<StringMatch> {
    let wanted = read_string(field.clone())?;
    if let StringMatch::Exact(text) | StringMatch::Prefix(text) = &wanted
        && text.starts_with("spiffe://")
    {
        field.problem(
            format!("`{text}` never matches: principals are written without their scheme"),
            format!("write \"{}\"", text.trim_start_matches("spiffe://")),
        );
    }
    Some(wanted)
}

fn read_account(field: Field<'_>) -> Option<ServiceAccount> {
    const FORM: &str = "write {namespace: n, serviceAccount: a}";
    let object = field.object(&["namespace", "serviceAccount"])?;
    let namespace = object.require("namespace", FORM)?.text()?;
    let name = object.require("serviceAccount", FORM)?.text()?;
    Some(ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn read_net(field: Field<'_>) -> Option<IpNet> {
    field.parse(
        "network",
        "write an address and a prefix length, such as 10.0.0.0/8 or 10.0.0.1/32",
    )
}

fn read_port(field: Field<'_>) -> Option<u16> {
    let port = field.parse::<NonZeroU16>("port", "write a number from 1 to 65535")?;
    Some(port.get())
}
