//! Pods reach each other by the addresses that they see themselves, over the link between the nodes where they must.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use harness::cluster::{LinkCapture, Namespace};
use serde_json::{Value, json};

use crate::common::{cluster, dual_stack_server, idle, pod, pod_ips, service, spread};

/// A Deployment of two replicas, one a node, and its Service, which has no address.
fn servers(name: &str) -> [Value; 2] {
    let mut headless = service(name, 80);
    headless["spec"]["clusterIP"] = "None".into();
    [spread(name, 2, dual_stack_server(), "DoNotSchedule"), headless]
}

#[test]
fn a_deployment_over_both_nodes_is_reached_from_pod_to_pod_across_the_link_by_both_families() {
    let namespace = Namespace::create(cluster().kubectl(), "spread").unwrap();
    namespace.apply(&servers("server")).unwrap();
    let client = json!({ "nodeName": "node-1", "containers": [idle("main")] });
    namespace.apply(&[pod("client", client)]).unwrap();
    namespace
        .wait("deployment/server", "condition=Available")
        .unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();

    let pods = namespace.get(&["pods", "--selector=app=server"]).unwrap();
    let servers: BTreeMap<&str, (&str, Vec<IpAddr>)> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap();
            (pod["spec"]["nodeName"].as_str().unwrap(), (name, pod_ips(pod)))
        })
        .collect();
    assert_eq!(servers.keys().copied().collect::<Vec<_>>(), ["node-1", "node-2"]);

    let capture = LinkCapture::start(cluster()).unwrap();
    for (name, ips) in servers.values() {
        for ip in ips {
            let url = format!("http://{}/", SocketAddr::new(*ip, 80));
            let answer = namespace.exec("client", &["curl", "-sS", &url]);
            assert_eq!(answer.unwrap().ok().unwrap().trim(), *name);
        }
    }
    let recording = capture.stop().unwrap();
    let (far, near) = (&servers["node-2"], &servers["node-1"]);
    // The server sees the pod's own address of the family. Pods of other tests ask others meanwhile.
    let own = pod_ips(&namespace.get(&["pod", "client"]).unwrap());
    let asked = recording.who_sent(b"GET / HTTP/1.1").into_iter();
    let crossed: Vec<(IpAddr, SocketAddr)> = asked
        .map(|(from, to)| (from.ip(), to))
        .filter(|(from, to)| own.contains(from) || far.1.contains(&to.ip()) || near.1.contains(&to.ip()))
        .collect();
    let to_far = far.1.iter().map(|ip| SocketAddr::new(*ip, 80));
    let expected: Vec<_> = own.iter().copied().zip(to_far).collect();
    assert_eq!(expected.len(), 2, "one of each family");
    assert_eq!(crossed, expected, "only what is for the other node crosses");
    assert!(recording.holds(far.0.as_bytes()) && !recording.holds(near.0.as_bytes()));
}

#[test]
fn a_service_without_an_address_of_its_own_is_found_by_name() {
    let namespace = Namespace::create(cluster().kubectl(), "headless").unwrap();
    namespace.apply(&servers("server")).unwrap();
    let client = json!({ "nodeName": "node-2", "containers": [idle("main")] });
    namespace.apply(&[pod("client", client)]).unwrap();
    namespace
        .wait("deployment/server", "condition=Available")
        .unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    harness::wait::until("the client reaches a server by name", harness::wait::SOON, || {
        let answer = namespace
            .exec("client", &["curl", "-sS", "http://server/"])
            .unwrap();
        answer.stdout.starts_with("server-")
    })
    .unwrap();
}
