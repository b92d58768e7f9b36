//! EndpointSlices as the API server writes them.

use serde_json::{Value, json};

use super::*;

fn read(object: Value) -> Slice {
    let mut object = object;
    let labels = json!({"kubernetes.io/service-name": "echo"});
    let annotations = object["annotations"].take();
    object["metadata"] =
        json!({"name": "echo-1", "namespace": "demo", "labels": labels, "annotations": annotations});
    serde_json::from_value::<Object>(object).unwrap().read()
}

#[test]
fn what_is_not_said_of_an_endpoint_is_no_reason_to_leave_it_out() {
    for (written, ready, serving, terminating) in [
        (json!({}), true, true, false),
        (json!({"ready": false}), false, false, false),
        (
            json!({"ready": false, "serving": true, "terminating": true}),
            false,
            true,
            true,
        ),
        (json!({"ready": null}), true, true, false),
    ] {
        let slice = read(
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": written}]}),
        );
        let conditions = Conditions {
            ready,
            serving,
            terminating,
        };
        assert_eq!(slice.endpoints[0].conditions, conditions, "{written}");
    }
}

#[test]
fn a_pod_is_named_only_within_its_namespace() {
    for (target, pod) in [
        (
            json!({"kind": "Pod", "namespace": "demo", "name": "a"}),
            Some("a"),
        ),
        (json!({"kind": "Pod", "namespace": "other", "name": "a"}), None),
        (json!({"kind": "Node", "name": "a"}), None),
        (json!(null), None),
    ] {
        let slice = read(
            json!({"endpoints": [{"addresses": ["10.0.0.1"], "targetRef": target, "zone": "z", "nodeName": "n"}]}),
        );
        let endpoint = &slice.endpoints[0];
        assert_eq!(endpoint.pod.as_deref(), pod, "{target}");
        assert_eq!(endpoint.place.is_none(), pod.is_some(), "{target}");
    }
}

#[test]
fn names_and_ports_that_are_not_tcp_are_left_out() {
    let slice = read(json!({
        "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}, {"addresses": []}],
        "ports": [{"name": "web", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"},
                  {"name": "all"}, {"port": 81}],
    }));
    assert_eq!(slice.endpoints, []);
    assert_eq!(slice.ports, [("web".to_owned(), 80), (String::new(), 81)]);
    assert_eq!(slice.service.as_deref(), Some("echo"));
}

#[test]
fn hints_are_there_or_not() {
    for (written, zones, nodes) in [
        (json!(null), false, false),
        (json!({"forZones": []}), false, false),
        (json!({"forZones": [{"name": "z"}]}), true, false),
        (
            json!({"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]}),
            true,
            true,
        ),
    ] {
        let slice =
            read(json!({"endpoints": [{"addresses": ["10.0.0.1"], "hints": written}], "ports": null}));
        assert_eq!(slice.endpoints[0].hints, Hints { zones, nodes }, "{written}");
    }
    assert_eq!(read(json!({"endpoints": null})).endpoints, []);
}

#[test]
fn a_slice_says_when_what_it_tells_of_happened() {
    const NAME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
    let at = |text: &str| read(json!({"annotations": {NAME: text}})).triggered;
    let expected = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_500);
    assert_eq!(at("1970-01-01T00:00:01.5Z"), Some(expected));
    assert_eq!((at("soon"), read(json!({})).triggered), (None, None));
}
