//! Questions that only the proxy of one pod can answer: they go to its sidecar, and what it says comes back under the pod's name.
//! Decides nothing, and trusts no sidecar to answer in time, or what was asked.

use std::time::Duration;

use serde_json::Value;

use super::client::{self, Error};
use super::memory::Pods;
use super::register::Register;
use crate::observe::{EndpointList, IdentityReport, OfPod, PolicyReport, Reply};

/// For what a sidecar says.
const PATIENCE: Duration = Duration::from_secs(3);

/// `path` is one of the sidecar's own endpoint.
pub(super) async fn answer(register: &Register, path: &'static str, query: &str) -> Reply {
    let OfPod { pod, rest } = OfPod::parse(query);
    let Some(pod) = pod else {
        return Reply::Wrong(format!(
            "`pod` is missing: {path} is answered by the proxy of one pod; GET /pods lists them"
        ));
    };
    let uid = register.names.meant(&pod);
    let called = register.names.of(&uid);
    let Some(sidecar) = register.sidecars(&Pods::named(&uid)).pop() else {
        return Reply::Missing(match register.pods().contains_key(&uid) {
            true => format!(
                "pod {called}: no sidecar holds this pod; start its sidecar, or look into its log: until then its \
                 connections are refused"
            ),
            false => format!("pod {called}: no such pod is on this node; GET /pods lists those that are"),
        });
    };
    match client::ask(&sidecar.socket, &format!("{path}?{rest}"), PATIENCE).await {
        Ok(answer) => match named(path, &answer, &called) {
            Ok(text) => Reply::Json(text),
            Err(_) => Reply::Missing(older(&called, path)),
        },
        Err(Error::Refused { status: 400, words }) => Reply::Wrong(words),
        Err(Error::Refused { status: 404, .. }) => Reply::Missing(older(&called, path)),
        Err(error) => Reply::Missing(format!(
            "pod {called}: {error}; look into its log, or restart it: connections do not wait for this"
        )),
    }
}

/// The answer of a sidecar under the name of its pod, without what this version does not know.
fn named(path: &str, answer: &[u8], pod: &str) -> serde_json::Result<String> {
    let mut value: Value = match path {
        "/identity" => serde_json::to_value(serde_json::from_slice::<IdentityReport>(answer)?)?,
        "/endpoints" => serde_json::to_value(serde_json::from_slice::<EndpointList>(answer)?)?,
        _ => serde_json::to_value(serde_json::from_slice::<PolicyReport>(answer)?)?,
    };
    value["pod"] = pod.into();
    serde_json::to_string(&value)
}

fn older(pod: &str, path: &str) -> String {
    format!(
        "pod {pod}: its sidecar is of a version that does not answer {path}; restart the pod for the present one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: &str = r#"{"pod": null, "identity": "spiffe://td/ns/demo/sa/web", "state": "none", "summary": "",
        "source": {"kind": "agent", "from": null, "signer": null}, "obtained": null, "notAfter": null,
        "lifeSeconds": null, "remainingSeconds": null, "nextRenewal": null, "failures": 1, "lastError": "refused",
        "chain": [], "roots": [], "of a later version": 1}"#;

    #[test]
    fn an_answer_comes_under_the_pod_s_name_and_another_document_is_none() {
        let told = named("/identity", IDENTITY.as_bytes(), "demo/web-0").unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(
            (&told["pod"], &told["failures"]),
            (&"demo/web-0".into(), &1.into())
        );
        assert!(named("/endpoints", IDENTITY.as_bytes(), "demo/web-0").is_err());
        assert!(named("/policies", b"[]", "demo/web-0").is_err());
    }
}
