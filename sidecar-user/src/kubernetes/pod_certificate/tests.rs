//! Objects as the API server sends them, and the answers that it takes.

use super::super::certificates::Served;
use super::*;

fn object(spec: Value, status: Value) -> PodCertificateRequest {
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1beta1", "kind": "PodCertificateRequest",
        "metadata": { "name": "req-x", "namespace": "demo", "uid": "u1", "resourceVersion": "7" },
        "spec": spec, "status": status,
    });
    PodCertificateRequest::from_json(object)
}

#[test]
fn a_request_of_each_kubelet_is_read() {
    let spec = json!({
        "signerName": "outrigger.example/workload", "podName": "web-1", "podUID": "p", "serviceAccountName": "web",
        "serviceAccountUID": "s", "nodeName": "n1", "nodeUID": "n", "maxExpirationSeconds": 7200,
        "stubPKCS10Request": "AQID", "unverifiedUserAnnotations": { "a.example/b": "c" },
    });
    let request = object(spec.clone(), json!({}));
    assert_eq!((&*request.namespace, &*request.service_account), ("demo", "web"));
    assert_eq!((&*request.pod, &*request.node), ("web-1", "n1"));
    assert_eq!(request.longest, Duration::from_secs(7200));
    assert_eq!(request.key, RequestedKey::Request(vec![1, 2, 3]));
    assert_eq!(request.annotations, ["a.example/b"]);
    assert!(!request.is_settled);
    let older = json!({ "podName": "web-1", "pkixPublicKey": "BAU=", "proofOfPossession": "Bg==" });
    let request = object(older, Value::Object(Default::default()));
    assert_eq!(request.key, RequestedKey::Key(vec![4, 5]));
    assert_eq!(request.longest, DEFAULT_LIFE);
    for answer in ["Issued", "Denied", "Failed"] {
        let status = json!({ "conditions": [{ "type": answer, "status": "True" }] });
        assert!(object(spec.clone(), status).is_settled, "{answer}");
    }
}

#[test]
fn an_answer_names_its_version_of_the_request_and_nothing_of_its_spec() {
    let request = object(json!({}), json!({}));
    let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 999);
    let verdict = Verdict::Issued {
        chain: "PEM".into(),
        not_before: at(0),
        not_after: at(3600),
        refresh_at: at(2500),
    };
    let served = Served::of_requests("v1");
    let written = serde_json::to_value(answer(served.resource(), &request, &verdict, at(60))).unwrap();
    let wanted = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
        "metadata": { "name": "req-x", "namespace": "demo", "uid": "u1", "resourceVersion": "7" },
        "status": {
            "certificateChain": "PEM",
            "notBefore": "1970-01-01T00:00:00Z", "notAfter": "1970-01-01T01:00:00Z",
            "beginRefreshAt": "1970-01-01T00:41:40Z",
            "conditions": [{ "type": "Issued", "status": "True", "reason": "Issued", "message": "signed by Outrigger",
                             "lastTransitionTime": "1970-01-01T00:01:00Z" }],
        },
    });
    assert_eq!(written, wanted);
    let denied = Verdict::Denied {
        reason: "UnsupportedKeyType",
        message: "no".into(),
    };
    let written = serde_json::to_value(answer(served.resource(), &request, &denied, at(60))).unwrap();
    assert_eq!(
        written["status"].as_object().unwrap().len(),
        1,
        "conditions alone"
    );
    assert_eq!(written["status"]["conditions"][0]["type"], "Denied");
}
