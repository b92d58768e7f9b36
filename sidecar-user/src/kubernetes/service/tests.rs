//! Services as the API server writes them.

use serde_json::{Value, json};

use super::*;

fn read(spec: Value, status: Value) -> Service {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "echo", "namespace": "demo", "managedFields": [{"manager": "kubectl"}]},
        "spec": spec, "status": status,
    });
    serde_json::from_value::<Object>(object).unwrap().read()
}

#[test]
fn addresses_of_both_families_are_read_and_none_is_no_address() {
    let both = read(
        json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
               "externalIPs": ["192.0.2.1"]}),
        json!({}),
    );
    assert_eq!(both.name, ObjectName::new("demo", "echo"));
    assert_eq!(
        both.cluster_ips,
        addresses(&["10.96.0.1".to_owned(), "fd00::1".to_owned()])
    );
    assert_eq!(both.external_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(both.ip_families, Families { v4: true, v6: true });
    let headless = read(json!({"clusterIP": "None", "clusterIPs": ["None"]}), json!({}));
    assert_eq!(headless.cluster_ips, Vec::<IpAddr>::new());
}

#[test]
fn only_tcp_ports_are_read_and_a_name_is_no_number() {
    let service = read(
        json!({"ports": [
            {"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"},
            {"name": "named", "port": 81, "targetPort": "http"},
            {"name": "same", "port": 82},
            {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
            {"name": "sig", "port": 54, "targetPort": 54, "protocol": "SCTP"}]}),
        json!({}),
    );
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|port| (&*port.name, port.port, port.target))
        .collect();
    assert_eq!(
        ports,
        [
            ("web", 80, Some(8080)),
            ("named", 81, None),
            ("same", 82, Some(82))
        ]
    );
    assert_eq!(service.ports[0].app_protocol.as_deref(), Some("http"));
}

#[test]
fn a_load_balancer_that_wants_to_be_passed_lends_no_address() {
    let ingress = json!({"loadBalancer": {"ingress": [
        {"ip": "198.51.100.1", "ipMode": "VIP"}, {"ip": "198.51.100.2"}, {"ip": "198.51.100.3", "ipMode": "Proxy"},
        {"hostname": "lb.example"}]}});
    let service = read(json!({"type": "LoadBalancer"}), ingress);
    let expected: Vec<IpAddr> = ["198.51.100.1", "198.51.100.2"]
        .map(|ip| ip.parse().unwrap())
        .into();
    assert_eq!(service.ingress_ips, expected);
}

#[test]
fn wishes_about_traffic_are_read_by_all_their_names() {
    for (spec, distribution) in [
        (json!({}), Distribution::Any),
        (
            json!({"trafficDistribution": "PreferClose"}),
            Distribution::SameZone,
        ),
        (
            json!({"trafficDistribution": "PreferSameZone"}),
            Distribution::SameZone,
        ),
        (
            json!({"trafficDistribution": "PreferSameNode"}),
            Distribution::SameNode,
        ),
        (json!({"trafficDistribution": "later"}), Distribution::Any),
    ] {
        assert_eq!(read(spec.clone(), json!({})).distribution, distribution, "{spec}");
    }
    let none = read(
        json!({"sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
        json!({}),
    );
    assert_eq!(
        (none.affinity, none.internal_local, none.publish_not_ready),
        (None, false, false)
    );
    let some = read(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
               "internalTrafficPolicy": "Local", "publishNotReadyAddresses": true}),
        json!({}),
    );
    assert_eq!(some.affinity, Some(Duration::from_secs(60)));
    assert_eq!((some.internal_local, some.publish_not_ready), (true, true));
    let unsaid = read(json!({"sessionAffinity": "ClientIP"}), json!({}));
    assert_eq!(unsaid.affinity, Some(Duration::from_secs(10_800)));
    assert!(
        read(
            json!({"type": "ExternalName", "externalName": "a.example"}),
            json!({})
        )
        .external_name
    );
}
