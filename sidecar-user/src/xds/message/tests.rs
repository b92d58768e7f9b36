//! Messages of Istio's discovery, with every field, and those that mean nothing.

use std::time::Duration;

use super::*;
use crate::model::TunnelProtocol;
use crate::model::authorization::{
    Action, Clause, Condition, Match, Policy, PolicyName, Rule, Scope, ServiceAccount, StringMatch,
};
use crate::model::balancing::{Affinity, BalanceMode, Balancing, HealthPolicy, Scope as Near};
use crate::model::workload::Locality;
use crate::xds::testing::service_name;
use crate::xds::*;

fn both_ways(resource: &Resource) {
    let kind = resource.key().kind;
    assert_eq!(decode(kind, &encode(resource)).as_ref(), Ok(resource));
}

fn gateway() -> Gateway {
    Gateway {
        destination: GatewayDestination::Address(NetworkAddress {
            network: "n2".into(),
            address: "fd00::1".parse().unwrap(),
            length: Some(64),
        }),
        hbone_mtls_port: 15008,
    }
}

#[test]
fn a_workload_with_every_field_is_the_same_after_the_wire() {
    let port = Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: AppProtocol::Grpc,
    };
    both_ways(&Resource::Workload(WorkloadResource {
        uid: "c//Pod/demo/web".into(),
        name: "web".into(),
        namespace: "demo".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::7".parse().unwrap()],
        hostname: "web.example".into(),
        network: "n1".into(),
        tunnel_protocol: TunnelProtocol::Hbone,
        trust_domain: "td.test".into(),
        service_account: "web".into(),
        waypoint: Some(gateway()),
        network_gateway: Some(Gateway {
            destination: GatewayDestination::Hostname(service_name("gateway")),
            hbone_mtls_port: 1,
        }),
        node: "n1".into(),
        canonical_name: "web".into(),
        canonical_revision: "v1".into(),
        workload_name: "web".into(),
        workload_type: WorkloadType::Job,
        native_tunnel: true,
        application_tunnel: Some(ApplicationTunnel { proxy: true, port: 9 }),
        services: [(service_name("web"), vec![port])].into(),
        authorization_policies: vec!["demo/p".into()],
        unhealthy: true,
        cluster_id: "c".into(),
        locality: Locality {
            region: "r".into(),
            zone: "z".into(),
            subzone: "s".into(),
        },
        host_network: true,
        capacity: Some(0),
    }));
}

#[test]
fn a_service_with_every_field_is_the_same_after_the_wire() {
    both_ways(&Resource::Service(ServiceResource {
        name: "web".into(),
        namespace: "demo".into(),
        hostname: "web.demo.svc.cluster.local".into(),
        addresses: vec![NetworkAddress::of("10.96.0.1".parse().unwrap())],
        ports: vec![Port::default()],
        subject_alt_names: vec!["spiffe://td.test/ns/demo/sa/web".into()],
        waypoint: Some(gateway()),
        load_balancing: Balancing {
            scopes: vec![Near::Node, Near::Zone],
            mode: BalanceMode::Failover,
            health: HealthPolicy::AllowAll,
        },
        ip_families: IpFamilies::Dual,
        canonical: true,
        ingress_use_waypoint: true,
        weighted_waypoints: vec![(gateway(), 3)],
        private: true,
        affinity: Some(Affinity {
            timeout: Duration::from_secs(10800),
        }),
    }));
}

#[test]
fn a_policy_with_every_condition_is_the_same_after_the_wire() {
    let texts = Condition {
        any_of: vec![StringMatch::Exact("a".into()), StringMatch::Presence],
        none_of: vec![StringMatch::Prefix("b".into()), StringMatch::Suffix("c".into())],
    };
    let nets = Condition {
        any_of: vec!["10.0.0.0/8".parse().unwrap()],
        none_of: vec!["fd00::/64".parse().unwrap()],
    };
    both_ways(&Resource::Policy(Policy {
        name: PolicyName {
            namespace: "demo".into(),
            name: "p".into(),
        },
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule {
            clauses: vec![
                Clause::default(),
                Clause {
                    matches: vec![
                        Match::default(),
                        Match {
                            namespaces: texts.clone(),
                            service_accounts: Condition {
                                any_of: vec![ServiceAccount {
                                    namespace: "demo".into(),
                                    name: "web".into(),
                                }],
                                none_of: Vec::new(),
                            },
                            principals: texts,
                            source_ips: nets.clone(),
                            destination_ips: nets,
                            destination_ports: Condition {
                                any_of: vec![80],
                                none_of: vec![443],
                            },
                        },
                    ],
                },
            ],
        }],
        dry_run: true,
    }));
}

/// Bytes as a server in another language writes them: field 1 of Address is a workload, and its fields stand in any order.
#[test]
fn the_numbers_of_the_fields_are_those_of_istio() {
    let workload =
        b"\x1a\x04\x0a\x00\x00\x01\xa2\x01\x03uid\x28\x01\x12\x01n\x88\x01\x01\xda\x01\x02\x08\x05";
    let mut encoded = vec![0x0a, u8::try_from(workload.len()).unwrap()];
    encoded.extend(workload);
    let Ok(Resource::Workload(workload)) = decode(Kind::Address, &encoded) else {
        panic!("it is a workload");
    };
    assert_eq!(workload.uid, "uid");
    assert_eq!(workload.namespace, "n");
    assert_eq!(
        workload.addresses,
        ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(workload.tunnel_protocol, TunnelProtocol::Hbone);
    assert!(workload.unhealthy);
    assert_eq!(workload.capacity, Some(5));
}

#[test]
fn what_cannot_be_meant_is_rejected_with_its_field() {
    let why = |kind, bytes: &[u8]| decode(kind, bytes).expect_err("it means nothing").to_string();
    for (bytes, field) in [
        // No oneof at all, no uid, an address of 3 bytes, the protocol LEGACY_ISTIO_MTLS, a gateway without a destination.
        (&b""[..], "`type`"),
        (b"\x0a\x03\x0a\x01n", "`uid`"),
        (
            b"\x0a\x09\xa2\x01\x01u\x1a\x03\x01\x02\x03",
            "`addresses`: an address has 4 or 16 bytes, and this has 3",
        ),
        (b"\x0a\x06\xa2\x01\x01u\x28\x02", "`tunnel_protocol`"),
        (b"\x0a\x06\xa2\x01\x01u\x42\x00", "`destination`"),
        // A service without a hostname, and one that prefers a scope of a later version.
        (b"\x12\x03\x0a\x01n", "`hostname`"),
        (
            b"\x12\x08\x1a\x01h\x42\x03\x0a\x01\x63",
            "`routing_preference`: 99",
        ),
        (b"\xff", "no message of its type"),
    ] {
        let why = why(Kind::Address, bytes);
        assert!(why.contains(field), "{}: {why}", bytes.escape_ascii());
    }
    for (bytes, field) in [
        (&b""[..], "`name`"),
        // An action of a later version may be one that denies.
        (b"\x0a\x01p\x20\x02", "`action`"),
        // A length beyond the address.
        (
            b"\x0a\x01p\x2a\x0e\x0a\x0c\x12\x0a\x2a\x08\x0a\x04\x0a\x00\x00\x01\x10\x21",
            "`length`",
        ),
        // A condition that does not say what fits.
        (b"\x0a\x01p\x2a\x06\x0a\x04\x12\x02\x0a\x00", "`match`"),
    ] {
        let why = why(Kind::Authorization, bytes);
        assert!(why.contains(field), "{}: {why}", bytes.escape_ascii());
    }
}
