//! Both families of addresses: what a Service asks for is what its clients reach it by, in TLS over IPv4 and over IPv6.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use harness::cluster::{LinkCapture, Namespace, Node};
use harness::pcap::TLS13;
use harness::wait::{self, SOON};
use serde_json::{Value, json};

use super::{client, deployment, mesh, meshed};
use crate::common::{NGINX, answered, cluster, container, dual_stack_server, named_server, pod, pod_ips};

const MESH_PORT: u16 = 15008;

/// Of a node, where nobody else listens.
const HOST_PORT: u16 = 18080;

/// nginx in the network of a node, which answers with the node's name.
const HOST_SERVER: &str = "echo \"events { } http { server { listen 18080; listen [::]:18080; \
    location / { return 200 '$NODE\\n'; } } }\" >/tmp/nginx.conf; exec nginx -g 'daemon off;' -c /tmp/nginx.conf";

/// What curl ends with where nobody listens.
const REFUSED: i32 = 7;

/// For a choice among two never to be the other one has a chance of one in half a million.
const TIMES: usize = 20;

/// One of the Deployment `web`, with these words about families.
fn service(name: &str, words: Value) -> Value {
    let mut spec = json!({ "selector": { "app": "web" }, "ports": [{ "port": 80 }] });
    for (key, value) in words.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec })
}

fn both_families() -> Value {
    json!({ "ipFamilyPolicy": "RequireDualStack" })
}

/// nginx of both families on both nodes without its Service, and a client on the first one.
fn servers_and_client(stem: &str) -> Namespace<'static> {
    let namespace = meshed(stem);
    let web = deployment("web", 2, dual_stack_server(), 80);
    namespace
        .apply(&[web[0].clone(), client("client", "node-1")])
        .unwrap();
    namespace.wait("deployment/web", "condition=Available").unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    namespace
}

fn cluster_ips(namespace: &Namespace, service: &str) -> Vec<IpAddr> {
    let service = namespace.get(&["service", service]).unwrap();
    let ips = service["spec"]["clusterIPs"].as_array().unwrap().iter();
    ips.map(|ip| ip.as_str().unwrap().parse().unwrap()).collect()
}

fn families(ips: &[IpAddr]) -> Vec<&'static str> {
    let family = |ip: &IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    ips.iter().map(family).collect()
}

fn url(ip: IpAddr) -> String {
    format!("http://{}/", SocketAddr::new(ip, 80))
}

/// Who answers a client that asks many times, once it is answered at all. That it is not, even once, is nobody's name.
fn who_answers(namespace: &Namespace, arguments: &str) -> BTreeSet<String> {
    let curl = format!("curl -sS -m 10 {arguments}");
    answered(namespace, "client", &["sh", "-c", &curl]);
    let script = format!("for n in $(seq {TIMES}); do {curl} || echo \"failed: $?\"; done");
    let said = namespace.exec("client", &["sh", "-c", &script]).unwrap();
    said.ok().unwrap().lines().map(str::to_owned).collect()
}

fn curl_ends_with(namespace: &Namespace, arguments: &[&str]) -> Option<i32> {
    let curl = [&["curl", "-sS", "-m", "10"], arguments].concat();
    namespace.exec("client", &curl).unwrap().code()
}

#[test]
fn a_service_of_both_families_is_spread_by_each_in_tls_and_both_ends_are_known_by_name() {
    let mesh = mesh();
    let namespace = servers_and_client("dual");
    namespace.apply(&[service("web", both_families())]).unwrap();
    let virtual_ips = cluster_ips(&namespace, "web");
    assert_eq!(families(&virtual_ips), ["IPv4", "IPv6"]);

    let capture = LinkCapture::start(cluster()).unwrap();
    let by_address = virtual_ips.iter().map(|ip| url(*ip));
    let by_name = ["-4 http://web/", "-6 http://web/"].map(str::to_owned);
    for way in by_address.chain(by_name) {
        let who = who_answers(&namespace, &way);
        assert_eq!(who.len(), 2, "both replicas answer {way}: {who:?}");
        assert!(who.iter().all(|name| name.starts_with("web-")), "{way}: {who:?}");
    }
    let recording = capture.stop().unwrap();

    let pods = namespace.get(&["pods"]).unwrap();
    let pods = pods["items"].as_array().unwrap();
    let far = pods
        .iter()
        .find(|pod| pod["spec"]["nodeName"] == "node-2")
        .unwrap();
    for ip in pod_ips(far) {
        let versions = recording.tls_versions_of(|server| *server == SocketAddr::new(ip, MESH_PORT));
        assert!(!versions.is_empty(), "no tunnel to {ip} crosses the link");
        assert!(
            versions.iter().all(|version| *version == TLS13),
            "{ip}: {versions:?}"
        );
    }
    let client = namespace.get(&["pod", "client"]).unwrap();
    let own = pod_ips(&client);
    let asked = recording.who_sent(b"GET / HTTP/1.1");
    let ours = asked.iter().filter(|(from, _)| own.contains(&from.ip()));
    assert_eq!(ours.count(), 0, "a request crosses the link in plaintext");

    let name = namespace.name();
    let identity = format!("spiffe://cluster.local/ns/{name}/sa/default");
    let flows = mesh.flows("node-1").unwrap();
    for ip in virtual_ips {
        let dialled = SocketAddr::new(ip, 80).to_string();
        let is_ours =
            |flow: &&Value| flow["direction"] == "outbound" && flow["originalDst"] == dialled.as_str();
        let ours: Vec<&Value> = flows.iter().filter(is_ours).collect();
        assert!(ours.len() >= 2 * TIMES, "{} flows to {dialled}", ours.len());
        for flow in ours {
            assert_eq!(flow["pod"], format!("{name}/client"), "{flow}");
            assert_eq!(
                flow["service"],
                format!("{name}/web.{name}.svc.cluster.local"),
                "{flow}"
            );
            assert_eq!(flow["transport"], "hbone", "{flow}");
            assert_eq!(flow["sourceIdentity"], identity.as_str(), "{flow}");
            assert_eq!(flow["destinationIdentity"], identity.as_str(), "{flow}");
            let chosen: SocketAddr = flow["chosenDst"].as_str().unwrap().parse().unwrap();
            assert_eq!(chosen.is_ipv4(), ip.is_ipv4(), "{flow}");
        }
    }
}

#[test]
fn a_service_is_of_one_family_until_it_asks_for_the_other() {
    let _mesh = mesh();
    let namespace = servers_and_client("families");
    let only_ipv6 = json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] });
    namespace
        .apply(&[service("four", json!({})), service("six", only_ipv6)])
        .unwrap();
    assert_eq!(families(&cluster_ips(&namespace, "four")), ["IPv4"]);
    assert_eq!(families(&cluster_ips(&namespace, "six")), ["IPv6"]);
    for (name, missing) in [("four", "-6"), ("six", "-4")] {
        let url = format!("http://{name}/");
        assert_eq!(who_answers(&namespace, &url).len(), 2, "{url}");
        let ended = curl_ends_with(&namespace, &[missing, &url]);
        assert!(ended.is_some_and(|code| code != 0), "{missing} {url}: {ended:?}");
    }
    let patch = json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } }).to_string();
    let args = ["--namespace", namespace.name(), "patch", "service"];
    namespace
        .kubectl()
        .run(&[&args[..], &["four", "--patch", &patch]].concat())
        .unwrap();
    assert_eq!(families(&cluster_ips(&namespace, "four")), ["IPv4", "IPv6"]);
    assert_eq!(who_answers(&namespace, "-6 http://four/").len(), 2);
    assert_eq!(who_answers(&namespace, "-4 http://four/").len(), 2);
}

#[test]
fn pods_behind_a_headless_service_are_reached_by_their_addresses_of_both_families() {
    let mesh = mesh();
    let namespace = servers_and_client("headless-dual");
    let mut words = both_families();
    words["clusterIP"] = "None".into();
    namespace.apply(&[service("web", words)]).unwrap();
    for family in ["-4", "-6"] {
        let who = who_answers(&namespace, &format!("{family} http://web/"));
        assert!(
            who.iter().all(|name| name.starts_with("web-")),
            "{family}: {who:?}"
        );
    }
    let pods = namespace.get(&["pods", "--selector=app=web"]).unwrap();
    let mut dialled = BTreeSet::new();
    for pod in pods["items"].as_array().unwrap() {
        let ips = pod_ips(pod);
        assert_eq!(families(&ips), ["IPv4", "IPv6"], "{pod}");
        for ip in ips {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            assert_eq!(who_answers(&namespace, &url(ip)), BTreeSet::from([name]));
            dialled.insert(SocketAddr::new(ip, 80).to_string());
        }
    }
    assert_eq!(dialled.len(), 4);
    let flows = mesh.flows("node-1").unwrap();
    for dialled in dialled {
        let ours = flows.iter().filter(|flow| {
            flow["pod"] == format!("{}/client", namespace.name()) && flow["originalDst"] == dialled.as_str()
        });
        let ways: BTreeSet<&str> = ours.map(|flow| flow["transport"].as_str().unwrap()).collect();
        assert_eq!(ways, BTreeSet::from(["hbone"]), "{dialled}");
    }
}

/// Two servers behind one name, of which one does not speak IPv6: by that, the other one serves. Without it there is nobody.
#[test]
fn where_an_endpoint_has_lost_a_family_the_others_serve_it_and_without_them_it_is_refused() {
    let _mesh = mesh();
    let namespace = meshed("one-family");
    let server = |name: &str, node: &str, container: Value| {
        let spec = json!({ "nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1 });
        let mut pod = pod(name, spec);
        pod["metadata"]["labels"] = json!({ "app": "web" });
        pod
    };
    namespace
        .apply(&[
            server("one", "node-1", named_server()),
            server("both", "node-2", dual_stack_server()),
            client("client", "node-1"),
            service("web", both_families()),
        ])
        .unwrap();
    for name in ["one", "both", "client"] {
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
    }
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(who_answers(&namespace, "-6 http://web/"), names(&["both"]));
    assert_eq!(who_answers(&namespace, "-4 http://web/"), names(&["both", "one"]));

    let gone = ["--namespace", namespace.name(), "delete", "pod", "both"];
    namespace.kubectl().run(&gone).unwrap();
    wait::until("IPv6 is refused", SOON * 3, || {
        curl_ends_with(&namespace, &["-6", "http://web/"]) == Some(REFUSED)
    })
    .unwrap();
    assert_eq!(who_answers(&namespace, "-4 http://web/"), names(&["one"]));
}

#[test]
fn a_strict_pod_refuses_plaintext_by_either_family_but_from_its_own_node() {
    let _mesh = mesh();
    let namespace = meshed("strict-dual");
    let outside = Namespace::create(cluster().kubectl(), "outside-dual").unwrap();
    let server = |name| {
        pod(
            name,
            json!({ "nodeName": "node-2", "containers": [dual_stack_server()] }),
        )
    };
    let mut strict = server("strict");
    strict["metadata"]["annotations"] = json!({ "outrigger.example/mode": "strict" });
    namespace.apply(&[strict, client("client", "node-1")]).unwrap();
    outside
        .apply(&[server("plain"), client("client", "node-1")])
        .unwrap();
    for name in ["strict", "client"] {
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
    }
    for name in ["plain", "client"] {
        outside.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
    }
    let of = |namespace: &Namespace, name| pod_ips(&namespace.get(&["pod", name]).unwrap());
    // Where the kubelet's probes come from; another node is a stranger like any.
    let from_node = |node: &str, url: &str| {
        let node = cluster().node(node).unwrap();
        let mut curl = node.network_command(std::path::Path::new("curl")).unwrap();
        curl.args(["-sS", "-m", "5", url]).output().unwrap()
    };
    for (strict, plain) in of(&namespace, "strict").into_iter().zip(of(&outside, "plain")) {
        assert_eq!(strict.is_ipv4(), plain.is_ipv4());
        assert_eq!(
            answered(&outside, "client", &["curl", "-sS", &url(plain)]),
            "plain\n"
        );
        let url = url(strict);
        assert_eq!(answered(&namespace, "client", &["curl", "-sS", &url]), "strict\n");
        let refused = outside.exec("client", &["curl", "-sS", "-m", "5", &url]).unwrap();
        assert!(!refused.status.success(), "{url}: {refused:?}");
        assert_eq!(from_node("node-2", &url).stdout, b"strict\n", "{url}");
        let refused = from_node("node-1", &url);
        assert!(!refused.status.success(), "{url}: {refused:?}");
    }
}

/// A Service without a selector, whose slices name addresses of nodes: one node by IPv4, the other one by IPv6.
#[test]
fn endpoints_that_are_no_pods_are_reached_by_the_family_that_they_have() {
    let _mesh = mesh();
    let namespace = meshed("foreign-dual");
    let outside = Namespace::create(cluster().kubectl(), "hosts").unwrap();
    let nodes = &cluster().nodes;
    let on_host = |node: &Node| {
        let mut container = container("nginx", NGINX, &["sh", "-c", HOST_SERVER]);
        container["env"] = json!([{ "name": "NODE", "value": node.name }]);
        let spec = json!({ "nodeName": node.name, "hostNetwork": true, "containers": [container], "terminationGracePeriodSeconds": 1 });
        pod(&node.name, spec)
    };
    outside.apply(&[on_host(&nodes[0]), on_host(&nodes[1])]).unwrap();
    let slice = |family: &str, ip: IpAddr| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": { "name": format!("hosts-{}", family.to_lowercase()), "labels": { "kubernetes.io/service-name": "hosts" } },
            "ports": [{ "port": HOST_PORT }],
            "endpoints": [{ "addresses": [ip] }],
        })
    };
    let mut hosts = service("hosts", both_families());
    hosts["spec"].as_object_mut().unwrap().remove("selector");
    namespace
        .apply(&[
            hosts,
            slice("IPv4", nodes[0].ipv4.into()),
            slice("IPv6", nodes[1].ipv6.into()),
            client("client", "node-1"),
        ])
        .unwrap();
    namespace.wait("pod/client", "condition=Ready").unwrap();
    for (family, node) in [("-4", &nodes[0]), ("-6", &nodes[1])] {
        let who = who_answers(&namespace, &format!("{family} http://hosts/"));
        assert_eq!(who, BTreeSet::from([node.name.clone()]), "{family}");
    }
}
