//! Where the kubelet asks the containers of a pod by itself: the ports of probes and of HTTP hooks, for a sidecar that attaches by itself and
//! has nobody to ask. Written twice, for JSON and in the API server's own language, with the same answer, in the same order.

use serde_json::Value;

use super::pod::containers;
use super::refusals::CONTAINERS;

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HOOKS: [&str; 2] = ["postStart", "preStop"];
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// With commas between them.
pub(super) fn of(pod: &Value) -> String {
    let ports: Vec<String> = containers(pod).flat_map(of_container).collect();
    ports.join(",")
}

fn of_container(container: &Value) -> Vec<String> {
    let probes = PROBES.iter().map(|probe| &container[probe]);
    let hooks = HOOKS.iter().map(|hook| &container["lifecycle"][hook]);
    let handlers = probes
        .chain(hooks)
        .flat_map(|asked| HANDLERS.iter().map(move |handler| &asked[handler]));
    // One that names another host is not the pod's.
    let own = handlers
        .filter(|handler| handler.is_object() && handler["host"].as_str().unwrap_or_default().is_empty());
    own.filter_map(|handler| number(container, &handler["port"]))
        .collect()
}

/// By the name of a port of the container, or by its number, as text too.
fn number(container: &Value, port: &Value) -> Option<String> {
    let Some(name) = port.as_str() else {
        return port.as_u64().map(|port| port.to_string());
    };
    let named = container["ports"].as_array().into_iter().flatten();
    let mut named = named.filter(|port| port["name"] == name);
    match named.next() {
        Some(port) => port["containerPort"].as_u64().map(|port| port.to_string()),
        None => is_number(name).then(|| name.to_owned()),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The same of the object, in CEL.
pub(super) fn cel() -> String {
    let probes = PROBES.iter().map(|probe| format!("c.?{probe}"));
    let hooks = HOOKS.iter().map(|hook| format!("c.?lifecycle.?{hook}"));
    let handlers: Vec<String> = probes
        .chain(hooks)
        .flat_map(|asked| HANDLERS.map(|handler| format!("{asked}.?{handler}")))
        .collect();
    let named = "c.?ports.orValue([]).filter(p, p.?name.orValue('') == h.value().port)";
    let number = format!(
        "type(h.value().port) != string ? string(h.value().port) : \
         ({named}.size() > 0 ? string({named}[0].containerPort) : (h.value().port.matches('^[0-9]+$') ? h.value().port : ''))"
    );
    format!(
        "{CONTAINERS}.map(c, [{}].filter(h, h.hasValue() && h.value().?host.orValue('') == '').map(h, {number})\
         .filter(port, port != '').join(',')).filter(ports, ports != '').join(',')",
        handlers.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_probe_and_hook_is_asked_at_its_port_by_number_or_name() {
        let pod = json!({ "spec": {
            "initContainers": [
                { "name": "outrigger-proxy", "startupProbe": { "httpGet": { "port": 15020 } } },
                { "name": "logs", "startupProbe": { "grpc": { "port": 3 } } },
            ],
            "containers": [
                { "name": "a", "ports": [{ "name": "web", "containerPort": 8080 }],
                  "livenessProbe": { "httpGet": { "port": "web" } }, "readinessProbe": { "tcpSocket": { "port": 81 } },
                  "lifecycle": { "postStart": { "httpGet": { "port": "82" } }, "preStop": { "exec": {} } } },
                { "name": "b", "livenessProbe": { "httpGet": { "port": 83, "host": "10.0.0.1" } },
                  "readinessProbe": { "httpGet": { "port": "other" } } },
            ],
        } });
        assert_eq!(of(&pod), "8080,81,82,3");
        assert_eq!(of(&json!({ "spec": { "containers": [{ "name": "a" }] } })), "");
    }
}
