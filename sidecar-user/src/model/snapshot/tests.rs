//! Which entry of the registry a proxy is, and which addresses a peer has.

use super::*;
use crate::model::authorization::{Action, Scope};
use crate::model::{Locality, TunnelProtocol};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn workload(uid: &str, name: &str, account: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: uid.into(),
        name: name.into(),
        namespace: "t".into(),
        identity: SpiffeId::new("td", "t", account).unwrap(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        protocol: TunnelProtocol::Hbone,
        healthy: true,
        capacity: 1,
        locality: Locality::default(),
        node: String::new(),
    }
}

fn policy(namespace: &str, name: &str, scope: Scope) -> Policy {
    Policy {
        name: PolicyName {
            namespace: namespace.into(),
            name: name.into(),
        },
        scope,
        action: Action::Deny,
        rules: Vec::new(),
        dry_run: false,
    }
}

/// Each workload with the names of its policies, all of them in the registry as `t/…`.
fn world(workloads: &[(Workload, &[&str])], shared: &[&str], more: Vec<Policy>) -> Snapshot {
    let named: HashSet<&str> = workloads
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let policies = named
        .into_iter()
        .map(|name| policy("t", name, Scope::WorkloadSelector));
    let selects = workloads.iter().map(|(w, names)| {
        let names = names
            .iter()
            .map(|name| policy("t", name, Scope::WorkloadSelector).name);
        (w.uid.clone(), (w.namespace.clone(), names.collect()))
    });
    let (policies, selects) = (policies.chain(more).collect(), selects.collect());
    let workloads = workloads
        .iter()
        .map(|(w, _)| (w.clone(), Serves::new()))
        .collect();
    let before = Snapshot::default();
    Snapshot::build(&before, Vec::new(), workloads)
        .without_addresses(shared.iter().map(|text| ip(text)))
        .with_policies(&before, policies, selects)
}

/// We are `b`, at 10.0.0.2 and fd00::2.
fn own() -> Own {
    Own {
        name: "b".into(),
        identity: SpiffeId::new("td", "t", "b").unwrap(),
        addresses: vec![ip("10.0.0.2"), ip("fd00::2")],
        node: "n9".into(),
    }
}

/// The policies that hold for us, entry by entry; `None`: we are not listed.
fn selected(world: &Snapshot) -> Option<Vec<Vec<String>>> {
    match world.standing(&own(), ip("10.0.0.2")) {
        Standing::Listed(entries) => Some(entries.iter().map(names).collect()),
        Standing::Unlisted { .. } => None,
    }
}

fn names(applicable: &Applicable<'_>) -> Vec<String> {
    let mut names: Vec<String> = applicable.all().map(|p| p.name.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn an_entry_is_found_by_its_name_where_its_address_is_shared() {
    let b = workload("c//Pod/t/b", "b", "b", &["10.0.0.2"]);
    let c = workload("c//Pod/t/c", "c", "b", &["10.0.0.2"]);
    let world = world(&[(b, &["for-b"]), (c, &["for-c"])], &["10.0.0.2"], Vec::new());
    assert_eq!(selected(&world), Some(vec![vec!["for-b".into()]]));
}

#[test]
fn an_entry_is_found_by_the_name_in_its_uid() {
    let b = workload("c//Pod/t/b", "", "b", &["10.0.0.2"]);
    let world = world(&[(b, &["for-b"])], &["10.0.0.2"], Vec::new());
    assert_eq!(selected(&world), Some(vec![vec!["for-b".into()]]));
}

#[test]
fn an_entry_is_found_by_its_name_under_other_addresses() {
    let b = workload("b", "b", "b", &["10.9.9.9"]);
    assert_eq!(
        selected(&world(&[(b, &["for-b"])], &[], Vec::new())),
        Some(vec![vec!["for-b".into()]])
    );
}

#[test]
fn an_entry_is_found_by_any_address_under_another_name() {
    let b = workload("x", "deployment", "b", &["fd00::2"]);
    assert_eq!(
        selected(&world(&[(b, &["for-b"])], &[], Vec::new())),
        Some(vec![vec!["for-b".into()]])
    );
}

#[test]
fn where_two_entries_may_be_it_both_count() {
    // One has the name, another one the address.
    let named = workload("b", "b", "b", &["10.9.9.9"]);
    let placed = workload("x", "x", "b", &["10.0.0.2"]);
    let both = world(
        &[(named, &["by-name"]), (placed, &["by-address"])],
        &[],
        Vec::new(),
    );
    assert_eq!(
        selected(&both),
        Some(vec![vec!["by-name".into()], vec!["by-address".into()]])
    );
    // Of those that share the address, the ones of our identity.
    let shared = [("x", "b", "for-x"), ("y", "b", "for-y"), ("z", "other", "for-z")];
    let shared = shared.map(|(uid, account, _)| workload(uid, uid, account, &["10.0.0.2"]));
    let [x, y, z] = shared;
    let shared = world(
        &[(x, &["for-x"]), (y, &["for-y"]), (z, &["for-z"])],
        &["10.0.0.2"],
        Vec::new(),
    );
    assert_eq!(
        selected(&shared),
        Some(vec![vec!["for-x".into()], vec!["for-y".into()]])
    );
}

#[test]
fn name_and_address_together_leave_no_doubt() {
    let here = workload("here", "b", "b", &["10.0.0.2"]);
    let elsewhere = workload("elsewhere", "b", "b", &["10.9.9.9"]);
    let stale = workload("stale", "x", "x", &["fd00::2"]);
    let all = [
        (here, &["here"][..]),
        (elsewhere, &["elsewhere"]),
        (stale, &["stale"]),
    ];
    assert_eq!(
        selected(&world(&all, &[], Vec::new())),
        Some(vec![vec!["here".into()]])
    );
}

#[test]
fn an_entry_of_another_namespace_is_no_way_around_the_policies_of_its_own() {
    let mut moved = workload("x", "x", "x", &["10.0.0.2"]);
    moved.namespace = "u".into();
    let more = vec![
        policy("t", "all-of-t", Scope::Namespace),
        policy("u", "all-of-u", Scope::Namespace),
    ];
    assert_eq!(
        selected(&world(&[(moved, &[])], &[], more)),
        Some(vec![vec!["all-of-u".into()], vec!["all-of-t".into()]])
    );
}

#[test]
fn without_an_entry_the_policies_count_that_may_be_meant_for_it() {
    let other = || workload("c", "c", "c", &["10.0.0.3"]);
    let meant = |world: &Snapshot| match world.standing(&own(), ip("10.0.0.2")) {
        Standing::Unlisted { general, meant } => (names(&general), meant.map(|name| name.to_string())),
        listed @ Standing::Listed(_) => panic!("{listed:?}"),
    };
    // Policies about everybody hold, and close nothing else.
    let general = vec![
        policy("t", "all-of-t", Scope::Namespace),
        policy("u", "all-of-u", Scope::Namespace),
        policy("r", "all", Scope::Global),
    ];
    assert_eq!(
        meant(&world(&[(other(), &[])], &[], general)),
        (vec!["all".into(), "all-of-t".into()], None)
    );
    // One that selects in our namespace may be ours, whoever else names it.
    let ours = Some("t/chosen".to_owned());
    assert_eq!(meant(&world(&[(other(), &["chosen"])], &[], Vec::new())).1, ours);
    let orphan = vec![policy("t", "chosen", Scope::WorkloadSelector)];
    assert_eq!(meant(&world(&[], &[], orphan)).1, ours);
    // What another namespace has for its own workloads is not.
    let foreign = vec![policy("u", "chosen", Scope::WorkloadSelector)];
    assert_eq!(meant(&world(&[(other(), &[])], &[], foreign)).1, None);
    // One that selects across namespaces may be.
    let mut afar = other();
    afar.namespace = "u".into();
    assert_eq!(meant(&world(&[(afar, &["chosen"])], &[], Vec::new())).1, ours);
    // A rehearsal closes nothing.
    let mut rehearsal = policy("t", "chosen", Scope::WorkloadSelector);
    rehearsal.dry_run = true;
    assert_eq!(meant(&world(&[], &[], vec![rehearsal])).1, None);
}

#[test]
fn a_peer_has_the_addresses_that_the_registry_gives_to_its_identity_and_place() {
    let a = workload("a", "a", "a", &["10.0.0.1", "fd00::1"]);
    let [x, y, z] = [
        ("x", "a", ["10.0.0.9", "fd00::9"]),
        ("y", "a", ["10.0.0.9", "fd00::8"]),
        ("z", "z", ["10.0.0.9", "fd00::7"]),
    ]
    .map(|(uid, account, addresses)| workload(uid, uid, account, &addresses));
    let world = world(
        &[(a.clone(), &[]), (x, &[]), (y, &[]), (z, &[])],
        &["10.0.0.9", "fd00::9", "fd00::8", "fd00::7"],
        Vec::new(),
    );
    let of = |peer: Option<&SpiffeId>, from: &str| {
        let from = ip(from);
        let mut all: Vec<String> = world
            .addresses_of(peer, &from)
            .iter()
            .map(ToString::to_string)
            .collect();
        all.sort();
        all.dedup();
        all
    };
    let other = SpiffeId::new("td", "t", "z").unwrap();
    assert!(
        world.is_at("a", ip("fd00::1"))
            && world.is_at("x", ip("10.0.0.9"))
            && world.is_at("y", ip("fd00::8"))
    );
    assert!(!world.is_at("a", ip("10.0.0.9")) && !world.is_at("x", ip("10.0.0.1")));
    assert_eq!(of(Some(&a.identity), "fd00::1"), ["10.0.0.1", "fd00::1"]);
    assert_eq!(of(Some(&a.identity), "::ffff:10.0.0.1"), ["10.0.0.1", "fd00::1"]);
    assert_eq!(of(None, "fd00::1"), ["fd00::1"], "it has proven nothing");
    assert_eq!(
        of(Some(&other), "fd00::1"),
        ["fd00::1"],
        "the address is another's"
    );
    assert_eq!(
        of(Some(&a.identity), "10.5.5.5"),
        ["10.5.5.5"],
        "the address is nobody's"
    );
    assert_eq!(
        of(Some(&a.identity), "10.0.0.9"),
        ["10.0.0.9", "fd00::8", "fd00::9"],
        "of those on the node, the ones of this identity"
    );
}

#[test]
fn what_has_not_changed_is_the_same_and_what_has_is_not() {
    let b = || workload("b", "b", "b", &["10.0.0.2"]);
    let selects = || {
        HashMap::from([(
            "b".to_owned(),
            ("t".to_owned(), vec![policy("t", "p", Scope::Global).name]),
        )])
    };
    let build = |before: &Snapshot, policies| {
        Snapshot::build(before, Vec::new(), vec![(b(), Serves::new())]).with_policies(
            before,
            policies,
            selects(),
        )
    };
    let policies = || {
        vec![
            policy("t", "p", Scope::WorkloadSelector),
            policy("t", "q", Scope::Namespace),
        ]
    };
    let one = build(&Snapshot::default(), policies());
    let standing = |world: &Snapshot, same_as: &Snapshot| {
        let at = ip("10.0.0.2");
        world.standing(&own(), at).is_same(&same_as.standing(&own(), at))
    };
    assert!(standing(&build(&one, policies()), &one));
    for n in 0..2 {
        let mut changed = policies();
        changed[n].action = Action::Allow;
        assert!(!standing(&build(&one, changed), &one), "{n}");
        let mut removed = policies();
        removed.remove(n);
        assert!(!standing(&build(&one, removed), &one), "{n}");
    }
}

#[test]
fn services_at_one_address_are_told_apart_by_their_ports() {
    let service = |hostname: &str, vips: &[&str], ports: &[u16]| Service {
        name: ServiceName {
            namespace: "t".into(),
            hostname: hostname.into(),
        },
        vips: vips.iter().map(|vip| ip(vip)).collect(),
        ports: ports.iter().map(|port| (*port, 8080)).collect(),
        ..Service::default()
    };
    let services = vec![
        service("web", &["10.9.0.1", "10.9.0.2"], &[80, 443]),
        service("db", &["10.9.0.1"], &[5432]),
    ];
    let world = Snapshot::build(&Snapshot::default(), services, Vec::new());
    let at = |dst: &str| {
        let found = world.service_at(dst.parse().unwrap());
        found.map(|(service, _)| service.name.hostname.to_string())
    };
    for (dst, wanted) in [
        ("10.9.0.1:443", "web"),
        ("10.9.0.1:5432", "db"),
        ("[::ffff:10.9.0.1]:5432", "db"),
        ("10.9.0.2:80", "web"),
        ("10.9.0.2:81", "web"),
    ] {
        assert_eq!(at(dst).as_deref(), Some(wanted), "{dst}");
    }
    assert!(
        at("10.9.0.1:22").is_some(),
        "the address is known, and none of the ports"
    );
    assert_eq!(at("10.9.0.3:80"), None);
}

/// Where we run: zone and node.
fn location(world: &Snapshot) -> (String, String) {
    let own = own();
    let Location { locality, node } = world.location_of(&own);
    (locality.zone.clone(), node.to_owned())
}

#[test]
fn where_a_proxy_runs_is_what_its_own_entry_says_and_of_the_node_what_it_knows_itself() {
    let at = |mut workload: Workload, zone: &str, node: &str| {
        workload.locality.zone = zone.into();
        workload.node = node.into();
        workload
    };
    let b = || workload("c//Pod/t/b", "b", "b", &["10.0.0.2"]);
    let twin = at(workload("d//Pod/t/b", "b", "b", &["10.0.0.3"]), "other", "n3");
    let listed = world(
        &[(at(b(), "near", "n1"), &[]), (twin.clone(), &[])],
        &[],
        Vec::new(),
    );
    assert_eq!(location(&listed), ("near".into(), "n1".into()));
    let without_node = world(&[(at(b(), "near", ""), &[])], &[], Vec::new());
    assert_eq!(location(&without_node), ("near".into(), "n9".into()));
    let renamed = at(workload("c//Pod/t/x", "x", "b", &["10.0.0.2"]), "near", "n1");
    let by_address = world(&[(renamed, &[])], &[], Vec::new());
    assert_eq!(location(&by_address), ("near".into(), "n1".into()));
    let stranger = at(workload("c//Pod/t/x", "x", "x", &["10.0.0.2"]), "near", "n1");
    for unlisted in [vec![], vec![(twin, &[][..])], vec![(stranger, &[][..])]] {
        let world = world(&unlisted, &[], Vec::new());
        assert_eq!(location(&world), (String::new(), "n9".into()));
    }
}
