//! What a registry file becomes, and what is said of a bad one. Watches no file.

use super::*;
use crate::model::authorization::{Action, PolicyName, StringMatch};
use crate::model::balancing::Scope as Near;
use crate::model::{BalanceMode, Balancing, Endpoint, HealthPolicy, Locality, TunnelProtocol};

const EXAMPLE: &str = r#"
workloads:
- {uid: c1//Pod/t/a, name: a, namespace: t, serviceAccount: a, trustDomain: td.test, protocol: HBONE, workloadIps: ["10.77.0.1"], services: {}}
- {uid: c1//Pod/t/b, name: b, namespace: t, serviceAccount: b, trustDomain: td.test, protocol: HBONE, workloadIps: ["10.77.0.2"],
   services: {"t/echo.t.svc.cluster.local": {80: 8080}}}
services:
- {name: echo, namespace: t, hostname: echo.t.svc.cluster.local, vips: ["/10.96.0.10"], ports: {80: 8080}, canonical: true}
policies:
- {name: only-a, namespace: t, scope: Namespace, action: Allow, dryRun: false, rules: [[[{principals: [!Exact "td.test/ns/t/sa/a"]}]]]}
"#;

/// Every key that ztunnel knows.
const EVERYTHING: &str = r#"
workloads:
- uid: c//v1/Pod/n/w
  name: w
  namespace: n
  serviceAccount: sa
  trustDomain: ""
  workloadIps: [10.0.0.1, "fd00::1"]
  services: {n/svc.example: {80: 8080}}
  protocol: TCP
  status: Unhealthy
  capacity: 3
  authorizationPolicies: [n/p]
  network: ""
  networkMode: Standard
  waypoint: {destination: /10.0.0.9, hboneMtlsPort: 15008}
  networkGateway: {destination: istio-system/gw.example, hboneMtlsPort: 15008}
  applicationTunnel: {protocol: PROXY, port: 15088}
  hostname: w.example
  nativeTunnel: true
  node: node1
  clusterId: c
  workloadName: w
  workloadType: deployment
  canonicalName: w
  canonicalRevision: 1.10
  locality: {region: r, zone: z, subzone: s}
services:
- name: svc
  namespace: n
  hostname: svc.example
  vips: ["remote/10.96.0.1", "/fd00:96::1"]
  cidrVips: [{network: "", cidr: 10.97.0.0/16}]
  ports: {80: 0}
  subjectAltNames: ["spiffe://td/ns/n/sa/x", svc.example]
  waypoint: {destination: n/wp.example, hboneMtlsPort: 15008}
  weightedWaypoints: [{destination: {destination: /10.0.0.8, hboneMtlsPort: 15008}, weight: 1}]
  loadBalancer: {routingPreferences: [Region, Zone], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
  endpoints: []
policies:
- name: p
  namespace: n
  scope: WorkloadSelector
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [!Presence []]
        notNamespaces: [!Prefix kube-]
        serviceAccounts: [{namespace: n, serviceAccount: a}]
        principals: [!Suffix /sa/a]
        sourceIps: [10.0.0.0/8]
        notSourceIps: [10.1.0.0/16, "fd00::/8"]
        destinationIps: [10.0.0.1/32]
        destinationPorts: [80, 443]
        notDestinationPorts: [22]
"#;

fn good(text: &str) -> Registry {
    parse(text, &Snapshot::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn bad(text: &str) -> String {
    parse(text, &Snapshot::default())
        .expect_err("the text is accepted")
        .to_string()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn ztunnels_example_loads_and_means_the_same() {
    let registry = good(EXAMPLE);
    let snapshot = &registry.snapshot;
    assert_eq!(registry.warnings, []);
    assert_eq!(registry.counts.to_string(), "2 workloads, 1 services, 1 policies");
    let (service, endpoints) = snapshot.service_at("10.96.0.10:80".parse().unwrap()).unwrap();
    assert_eq!(service.name.to_string(), "t/echo.t.svc.cluster.local");
    let [Endpoint { workload, ports, .. }] = endpoints else {
        panic!("{endpoints:?}")
    };
    assert_eq!(ports[&80], 8080);
    assert_eq!(workload.identity.as_str(), "spiffe://td.test/ns/t/sa/b");
    assert_eq!(workload.protocol, TunnelProtocol::Hbone);
    let policies = snapshot.policies_for(workload);
    assert_eq!(policies.namespace[0].action, Action::Allow);
    assert_eq!(
        policies.namespace[0].rules[0].clauses[0].matches[0]
            .principals
            .any_of,
        [StringMatch::Exact("td.test/ns/t/sa/a".into())]
    );
}

#[test]
fn every_key_of_ztunnel_loads_and_what_is_not_acted_on_is_told() {
    let registry = good(EVERYTHING);
    let warned: Vec<&str> = registry.warnings.iter().map(|w| w.field.as_str()).collect();
    for field in [
        "workloads[0].waypoint",
        "workloads[0].networkGateway",
        "workloads[0].applicationTunnel",
        "services[0].vips[0]",
        "services[0].cidrVips[0]",
        "services[0].subjectAltNames[1]",
        "services[0].waypoint",
        "services[0].weightedWaypoints",
        "services[0].visibility",
    ] {
        assert!(warned.contains(&field), "{field} is not in {warned:?}");
    }
    assert_eq!(warned.len(), 9, "{warned:?}");
}

#[test]
fn what_lies_behind_a_waypoint_is_marked() {
    let snapshot = good(EVERYTHING).snapshot;
    for address in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "10.96.0.1"] {
        assert!(snapshot.is_behind_waypoint(ip(address)), "{address}");
    }
    assert!(!good(EXAMPLE).snapshot.is_behind_waypoint(ip("10.96.0.10")));
}

#[test]
fn defaults_are_filled_in() {
    let registry = good("workloads: [{namespace: n, workloadIps: [10.0.0.1]}]");
    let (workload, _) = registry.snapshot.workload_by_address(ip("10.0.0.1")).unwrap();
    assert_eq!(
        workload.identity.as_str(),
        "spiffe://cluster.local/ns/n/sa/default"
    );
    assert_eq!(workload.protocol, TunnelProtocol::None);
    assert!(workload.healthy);
    assert_eq!(workload.capacity, 1);
}

#[test]
fn an_empty_trust_domain_is_cluster_local() {
    let (workload, _) = {
        let snapshot = good(EVERYTHING).snapshot;
        let (w, l) = snapshot.workload_by_address(ip("fd00::1")).unwrap();
        (w.clone(), l.clone())
    };
    assert_eq!(workload.identity.as_str(), "spiffe://cluster.local/ns/n/sa/sa");
    assert!(!workload.healthy);
}

#[test]
fn several_problems_are_found_at_once_each_with_line_column_field_and_remedy() {
    let text = "workloads:\n- name: a\n  namespace: n\n  workloadIps: [10.0.0.300]\n  protocl: HBONE\n  \
                services: {n/gone: {0: 80}}\n";
    let found = bad(text);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(
        lines,
        [
            "4:17: `workloads[0].workloadIps[0]`: `10.0.0.300` is no IP address; write one such as 10.0.0.1 or fd00::1",
            "5:3: `workloads[0].protocl`: unknown field; did you mean `protocol`?",
            "6:14: `workloads[0].services[\"n/gone\"]`: there is no service `n/gone`; add it to `services`, or remove it here",
            "6:23: `workloads[0].services[\"n/gone\"].0`: port 0 cannot be dialled; write a number from 1 to 65535",
        ]
    );
}

#[test]
fn each_mistake_is_refused_and_says_what_to_do() {
    let w = |rest: &str| format!("workloads: [{{namespace: n, workloadIps: [10.0.0.1], {rest}}}]");
    let s = |rest: &str| format!("services: [{{name: s, namespace: n, hostname: h, {rest}}}]");
    let m = |m: &str| {
        format!("policies: [{{name: p, namespace: n, scope: Global, action: Deny, rules: [[[{{{m}}}]]]}}]")
    };
    for (text, expected) in [
        (String::new(), "the registry is empty"),
        ("- a".into(), "a list stands here; write a map"),
        ("workload: []".into(), "did you mean `workloads`?"),
        ("workloads: {}".into(), "write a list of workloads"),
        ("workloads: [{namespace: n}]".into(), "`workloadIps` is missing"),
        (
            "workloads: [{workloadIps: [10.0.0.1]}]".into(),
            "`namespace` is missing",
        ),
        (
            "workloads: [{namespace: n, workloadIps: []}]".into(),
            "cannot be reached",
        ),
        (
            "workloads: [{namespace: n, workloadIps: [0.0.0.0]}]".into(),
            "not the address of one host",
        ),
        (w("protocol: hbone"), "did you mean `HBONE`?"),
        (
            w("serviceAccount: a/b"),
            "`trustDomain`, `namespace` or `serviceAccount`",
        ),
        (w("capacity: -1"), "`-1` is no weight"),
        (w("services: {noslash: {80: 80}}"), "write \"namespace/hostname\""),
        (w("authorizationPolicies: [p]"), "write \"namespace/policy\""),
        (
            w("waypoint: {destination: x, hboneMtlsPort: 1}"),
            "names no gateway",
        ),
        (
            w("waypoint: {destination: /10.0.0.2}"),
            "`hboneMtlsPort` is missing",
        ),
        (w("uid: 1, uid: 2"), "a second time"),
        (s("vips: [10.0.0.1], ports: {}"), "write \"/10.0.0.1\""),
        (s("vips: [/10.0.0.1]"), "`ports` is missing"),
        (s("vips: [/10.0.0], ports: {}"), "`10.0.0` is no IP address"),
        (s("ports: {70000: 1}"), "`70000` is no port"),
        (s("ports: {0: 1}"), "port 0"),
        (s("ports: {80: 1, 80: 2}"), "a second time"),
        (
            s("ports: {}, cidrVips: [{network: '', cidr: 10.0.0.0/33}]"),
            "`10.0.0.0/33` is no network",
        ),
        (s("ports: {}, endpoints: [x]"), "endpoints come from workloads"),
        (m("principal: [!Exact a]"), "did you mean `principals`?"),
        (m("principals: [a]"), "write !Exact \"v\""),
        (m("principals: [!Exakt a]"), "`!Exakt` is no way to match text"),
        (
            m("principals: [!Exact spiffe://td/ns/a/sa/b]"),
            "write \"td/ns/a/sa/b\"",
        ),
        (m("sourceIps: [10.0.0.1]"), "a prefix length"),
        (m("destinationPorts: [0]"), "`0` is no port"),
        (
            "policies: [{name: p, namespace: n, scope: Global, action: Deny, rules: [[{}]]}]".into(),
            "a clause",
        ),
        (
            "policies: [{name: p, namespace: n, scope: global, action: Deny, rules: []}]".into(),
            "`Global`?",
        ),
        (
            "policies: [{name: p, namespace: n, scope: Global, rules: []}]".into(),
            "`action` is missing",
        ),
        ("a: *b".into(), "this is not YAML"),
    ] {
        let found = bad(&text);
        assert!(
            found.contains(expected),
            "{text}\nexpected: {expected}\nfound: {found}"
        );
    }
}

#[test]
fn whatever_must_be_unique_is_refused_the_second_time_and_names_the_first() {
    let text = r#"
workloads:
- {uid: u, namespace: n, workloadIps: [10.0.0.1]}
- {uid: u, namespace: n, workloadIps: ["::ffff:10.0.0.1"]}
services:
- {name: a, namespace: n, hostname: h, vips: [/10.9.0.1, /10.9.0.2, /10.9.0.2], ports: {80: 80}}
- {name: b, namespace: n, hostname: h, vips: [/10.9.0.1], ports: {80: 80}}
policies:
- {name: p, namespace: n, scope: Global, action: Deny, rules: []}
- {name: p, namespace: n, scope: Global, action: Deny, rules: []}
"#;
    let found = bad(text);
    for expected in [
        "`workloads[1].uid`: `u` stands already at line 3",
        "`10.0.0.1` stands already at line 3 (`workloads[0].workloadIps[0]`)",
        "`services[1]`: `n/h` stands already at line 6",
        "`services[1].vips[0]`: `10.9.0.1` stands already, with port 80, too, at line 6",
        "`services[0].vips[2]`: `10.9.0.2` stands already at line 6 (`services[0].vips[1]`)",
        "`policies[1]`: `n/p` stands already at line 9",
    ] {
        assert!(found.contains(expected), "{expected}\n{found}");
    }
}

#[test]
fn pods_on_the_node_network_share_its_address() {
    let text = r#"
workloads:
- {uid: a, namespace: n, workloadIps: [10.0.0.1], networkMode: HostNetwork, services: {n/h: {80: 80}}}
- {uid: b, namespace: n, workloadIps: [10.0.0.1], networkMode: HostNetwork}
services: [{name: s, namespace: n, hostname: h, vips: [/10.9.0.1], ports: {80: 80}}]
"#;
    let snapshot = good(text).snapshot;
    assert!(snapshot.workload_by_address(ip("10.0.0.1")).is_none());
    let (_, endpoints) = snapshot.service_at("10.9.0.1:80".parse().unwrap()).unwrap();
    assert_eq!(endpoints.len(), 1);
    let open = endpoints[0].load.enter();
    let next = parse(text, &snapshot).unwrap().snapshot;
    assert_eq!(
        next.service_at("10.9.0.1:80".parse().unwrap()).unwrap().1[0]
            .load
            .open(),
        1
    );
    drop(open);
}

#[test]
fn an_unknown_policy_loads_with_a_warning_and_is_told_to_be_missing() {
    let registry =
        good("workloads: [{namespace: n, workloadIps: [10.0.0.1], authorizationPolicies: [n/gone]}]");
    assert!(
        registry.warnings[0]
            .what
            .contains("every connection to this workload is denied")
    );
    let (workload, _) = registry.snapshot.workload_by_address(ip("10.0.0.1")).unwrap();
    let gone = PolicyName {
        namespace: "n".into(),
        name: "gone".into(),
    };
    assert_eq!(registry.snapshot.policies_for(workload).missing, [gone]);
}

#[test]
fn a_selected_policy_counts_for_the_workload_that_names_it_only() {
    let text = r#"
workloads:
- {uid: a, namespace: n, workloadIps: [10.0.0.1], authorizationPolicies: [m/p]}
- {uid: b, namespace: n, workloadIps: [10.0.0.2]}
policies:
- {name: p, namespace: m, scope: WorkloadSelector, action: Deny, rules: []}
- {name: q, namespace: m, scope: Namespace, action: Deny, rules: []}
"#;
    let snapshot = good(text).snapshot;
    let of = |address| snapshot.policies_for(snapshot.workload_by_address(ip(address)).unwrap().0);
    assert_eq!(of("10.0.0.1").selected.len(), 1);
    assert_eq!(of("10.0.0.2").selected.len(), 0);
    assert_eq!(of("10.0.0.1").namespace.len(), 0, "a policy of another namespace");
}

#[test]
fn services_whose_ports_differ_may_share_an_address() {
    let registry = good(
        r#"
services:
- {name: a, namespace: n, hostname: a, vips: [/10.9.0.1], ports: {80: 80}}
- {name: b, namespace: n, hostname: b, vips: [/10.9.0.1], ports: {81: 80}}
"#,
    );
    for (dst, hostname) in [("10.9.0.1:80", "a"), ("10.9.0.1:81", "b")] {
        let (service, _) = registry.snapshot.service_at(dst.parse().unwrap()).unwrap();
        assert_eq!(&*service.name.hostname, hostname);
    }
}

#[test]
fn what_makes_an_endpoint_near_is_read_as_ztunnel_spells_it() {
    let registry = good(EVERYTHING);
    let (service, endpoints) = registry.snapshot.services().next().unwrap();
    let wanted = Balancing {
        scopes: vec![Near::Region, Near::Zone],
        mode: BalanceMode::Failover,
        health: HealthPolicy::AllowAll,
    };
    assert_eq!(service.balancing, wanted);
    let workload = &endpoints[0].workload;
    let Locality {
        region,
        zone,
        subzone,
    } = &workload.locality;
    assert_eq!([region, zone, subzone, &workload.node], ["r", "z", "s", "node1"]);
}

#[test]
fn a_preference_that_prefers_nobody_is_told() {
    let with = |balancer: &str| {
        let text = format!(
            "services: [{{name: a, namespace: n, hostname: a, ports: {{}}, loadBalancer: {balancer}}}]"
        );
        let warnings = good(&text).warnings;
        warnings.into_iter().map(|w| w.field).collect::<Vec<_>>()
    };
    assert_eq!(with("{mode: Strict}"), ["services[0].loadBalancer.mode"]);
    assert_eq!(
        with("{mode: Strict, routingPreferences: [Zone, Cluster]}"),
        ["services[0].loadBalancer.routingPreferences[1]"]
    );
    assert!(with("{mode: Passthrough}").is_empty());
}

#[test]
fn a_session_lasts_as_long_as_in_kubernetes_and_no_longer_than_a_day() {
    let with = |affinity: &str| {
        format!(
            "services: [{{name: a, namespace: n, hostname: a, ports: {{}}, sessionAffinity: {affinity}}}]"
        )
    };
    for (affinity, seconds) in [("{}", 10_800), ("{timeoutSeconds: 600}", 600)] {
        let registry = good(&with(affinity));
        let (service, _) = registry.snapshot.services().next().unwrap();
        assert_eq!(service.affinity.unwrap().timeout.as_secs(), seconds);
    }
    for wrong in ["0", "86401"] {
        let found = bad(&with(&format!("{{timeoutSeconds: {wrong}}}")));
        assert!(
            found.contains("`services[0].sessionAffinity.timeoutSeconds`")
                && found.contains("from 1 to 86400"),
            "{found}"
        );
    }
}
