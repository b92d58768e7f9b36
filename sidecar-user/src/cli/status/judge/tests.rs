//! What the command says to which facts.

use super::super::facts::{Cgroup, NamedNetns, Netns, Proxy, Told};
use super::*;

const CGROUP: u64 = 700;
const NETNS: u32 = 4_026_532_000;

fn hook(program: &'static str, place: Place) -> Hook {
    Hook {
        program,
        place,
        since: None,
        loaded: None,
    }
}

/// One hook of each kind, where they should be, and a proxy that is ready.
fn well() -> Facts {
    Facts {
        pins: "/pins".into(),
        attached: Ok(Attached {
            hooks: vec![
                hook("or_connect4", Place::Cgroup(CGROUP)),
                hook("or_sk_lookup", Place::Netns(NETNS)),
            ],
            control: hook("or_setsockopt", Place::Absent),
            abi: Some(ABI_VERSION),
        }),
        cgroup: Some(Cgroup {
            path: "/cgroup/shop".into(),
            id: Some(CGROUP),
        }),
        attached_to: Some("/cgroup/shop".into()),
        named_netns: None,
        netns: Some(Netns {
            inode: NETNS,
            of: "the proxy (7)".into(),
        }),
        proxy: Some(Proxy {
            socket: "/admin.sock".into(),
            answer: Ok(Told::default()),
        }),
        addresses: None,
    }
}

/// The only problem of well-ordered facts after a change.
fn wrong(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = well();
    change(&mut facts);
    let findings = judge(&facts);
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert!(finding.is_problem && !finding.remedy.is_empty(), "{finding:?}");
    finding.what.clone()
}

fn place_all(facts: &mut Facts, place: Place) {
    let attached = facts.attached.as_mut().unwrap();
    for hook in &mut attached.hooks {
        hook.place = place.clone();
    }
}

#[test]
fn nothing_is_found_where_all_is_as_it_says() {
    assert_eq!(judge(&well()), []);
}

#[test]
fn pins_that_hold_nothing_are_one_problem_and_some_that_are_missing_are_named() {
    let said = wrong(|facts| place_all(facts, Place::Absent));
    assert!(said.contains("no connection is intercepted"), "{said}");
    let said = wrong(|facts| facts.attached.as_mut().unwrap().hooks[1].place = Place::Absent);
    assert_eq!(said, "not pinned in /pins: or_sk_lookup");
    let said = wrong(|facts| facts.attached = Err("pins: /pins is not on a bpffs; mount one".into()));
    assert!(said.contains("not on a bpffs"), "{said}");
}

#[test]
fn a_link_that_the_kernel_has_cut_is_detached() {
    let said = wrong(|facts| facts.attached.as_mut().unwrap().hooks[0].place = Place::Gone);
    assert!(
        said.starts_with("detached: or_connect4: the cgroup is gone"),
        "{said}"
    );
    let said = wrong(|facts| facts.attached.as_mut().unwrap().hooks[1].place = Place::Gone);
    assert!(
        said.starts_with("detached: or_sk_lookup: the network namespace is gone"),
        "{said}"
    );
}

#[test]
fn a_cgroup_that_was_made_anew_is_another_one() {
    let said = wrong(|facts| {
        facts.cgroup.as_mut().unwrap().id = Some(701);
        facts.attached_to = None;
    });
    assert!(
        said.contains("inode 700 (which has been removed), and /cgroup/shop is another one, with inode 701"),
        "{said}"
    );
    // Nobody has said which one it should be, and it is nowhere.
    let said = wrong(|facts| {
        facts.cgroup = None;
        facts.attached_to = None;
    });
    assert!(said.contains("inode 700, which has been removed"), "{said}");
}

#[test]
fn a_cgroup_that_is_not_there_and_another_namespace_are_said() {
    let said = wrong(|facts| facts.cgroup.as_mut().unwrap().id = None);
    assert_eq!(said, "the cgroup /cgroup/shop is not there");
    let said = wrong(|facts| facts.netns.as_mut().unwrap().inode += 1);
    assert!(
        said.contains("inode 4026532000, and the proxy (7) is in the one with inode 4026532001"),
        "{said}"
    );
    let named = |inode| {
        Some(NamedNetns {
            path: "/run/netns/shop".into(),
            inode,
        })
    };
    let said = wrong(|facts| facts.named_netns = named(Some(NETNS + 1)));
    assert!(
        said.contains("and /run/netns/shop is the one with inode 4026532001"),
        "{said}"
    );
    let said = wrong(|facts| facts.named_netns = named(None));
    assert_eq!(said, "the network namespace /run/netns/shop is not there");
    let mut facts = well();
    facts.named_netns = named(Some(NETNS));
    assert_eq!(judge(&facts), []);
}

#[test]
fn a_proxy_that_is_not_there_or_not_ready_is_said() {
    let said = wrong(|facts| facts.proxy.as_mut().unwrap().answer = Err("connection refused".into()));
    assert_eq!(said, "no proxy answers at /admin.sock: connection refused");
    let said = wrong(|facts| {
        let told = Told {
            missing: vec!["identity: no valid certificate".into()],
            ..Told::default()
        };
        facts.proxy.as_mut().unwrap().answer = Ok(told);
    });
    assert_eq!(said, "the proxy is not ready: identity: no valid certificate");
}

#[test]
fn an_address_that_went_is_a_problem_and_one_that_came_is_worth_a_note() {
    let ip = |text: &str| text.parse().unwrap();
    let said = wrong(|facts| {
        facts.addresses = Some(Addresses {
            known: vec![ip("10.0.0.2")],
            there: Vec::new(),
        });
    });
    assert!(
        said.contains("10.0.0.2") && said.contains("no interface has it"),
        "{said}"
    );
    let mut facts = well();
    facts.addresses = Some(Addresses {
        known: vec![ip("10.0.0.2")],
        there: vec![ip("10.0.0.2"), ip("fd00::2")],
    });
    let findings = judge(&facts);
    assert!(
        !findings[0].is_problem && findings[0].what.contains("fd00::2"),
        "{findings:?}"
    );
}

#[test]
fn programs_of_another_version_are_worth_a_note() {
    let mut facts = well();
    facts.attached.as_mut().unwrap().abi = Some(ABI_VERSION + 1);
    let findings = judge(&facts);
    assert!(
        !findings[0].is_problem && findings[0].what.contains("ABI"),
        "{findings:?}"
    );
}
