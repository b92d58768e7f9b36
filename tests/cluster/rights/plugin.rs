//! The rights by which agents answer `kubectl outrigger`, or refuse: of people with a role in one namespace, of the account whose token stands for client
//! certificates, and of those whom the chart's values let reach the agents.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use harness::chart::NAMESPACE;
use harness::cluster::{Mesh, Namespace};
use harness::process::Output;
use harness::wait::{self, SOON};
use serde_json::json;

use super::Where::{self, Everywhere, Here, In, Named};
use super::{Caller, Right, surprises};
use crate::common::cluster;
use crate::mesh::{mesh, mesh_alone};

const VIEWER: &str = "outrigger-viewer";

/// What agents ask about, and what nothing may come of: these resources have no objects.
const FLOWS: &str = "flows.outrigger.example";
const DRAINS: &str = "drains.outrigger.example";
const NODES: &str = "nodes.outrigger.example";

const VIEWER_MAY: [Right; 4] = [
    ("get", FLOWS, Everywhere),
    ("get", FLOWS, In("kube-system")),
    ("get", NODES, Everywhere),
    ("create", DRAINS, Everywhere),
];

/// Its token is for agents. It would be worth nothing to one who steals it from there.
const VIEWER_MAY_NOT: [Right; 14] = [
    ("get", "pods", Everywhere),
    ("list", "pods", Here),
    ("create", "pods/portforward", Here),
    ("get", "nodes", Everywhere),
    ("get", "secrets", Named("outrigger-ca")),
    ("get", "configmaps", Named("outrigger-ca")),
    ("create", "serviceaccounts/token", Named(VIEWER)),
    ("create", "tokenreviews.authentication.k8s.io", Everywhere),
    ("create", "subjectaccessreviews.authorization.k8s.io", Everywhere),
    ("list", FLOWS, Everywhere),
    ("create", FLOWS, Everywhere),
    ("get", DRAINS, Everywhere),
    ("create", NODES, Everywhere),
    ("*", "*.outrigger.example", Everywhere),
];

/// Of whoever is named by `plugin.subjects`.
const CONNECTED_MAY: [Right; 5] = [
    ("get", "pods", Here),
    ("list", "pods", Here),
    ("get", "pods/portforward", Here),
    ("create", "pods/portforward", Here),
    ("get", "configmaps", Named("outrigger-ca")),
];

/// Reaching an agent is not being answered, and the way to it is no way to anything else.
const CONNECTED_MAY_NOT: [Right; 19] = [
    ("get", FLOWS, Everywhere),
    ("get", FLOWS, Here),
    ("create", DRAINS, Everywhere),
    ("get", NODES, Everywhere),
    ("list", "pods", Everywhere),
    ("create", "pods/portforward", Everywhere),
    ("create", "pods/portforward", In("kube-system")),
    ("create", "pods/exec", Here),
    ("create", "pods/attach", Here),
    ("patch", "pods/ephemeralcontainers", Here),
    ("get", "pods/log", Here),
    ("create", "pods", Here),
    ("delete", "pods", Here),
    ("get", "secrets", Named("outrigger-ca")),
    ("list", "secrets", Here),
    ("list", "configmaps", Here),
    ("get", "configmaps", Named("outrigger-inject")),
    ("patch", "configmaps", Named("outrigger-ca")),
    ("create", "serviceaccounts/token", Named(VIEWER)),
];

#[test]
fn the_viewer_may_see_what_agents_tell_and_nothing_of_the_api_server() {
    let _installed = mesh();
    let viewer = Caller::account(VIEWER);
    assert_eq!(surprises(&viewer, &VIEWER_MAY, true), [""; 0]);
    assert_eq!(surprises(&viewer, &VIEWER_MAY_NOT, false), [""; 0]);
}

/// Binds one of Kubernetes' own roles to somebody in a namespace.
fn bind(namespace: &Namespace, role: &str, person: &str) {
    namespace
        .apply(&[json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": { "name": format!("{person}-{role}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": person }],
        })])
        .unwrap();
}

/// Waits, because roles are put together by a controller, and the API server follows bindings by a watch.
fn until_allowed(caller: &Caller, rights: &[Right]) {
    let mut wrong = Vec::new();
    let waited = wait::until("the roles are there", SOON, || {
        wrong = surprises(caller, rights, true);
        wrong.is_empty()
    });
    assert!(waited.is_ok(), "{}: {wrong:?}", caller.user);
}

#[test]
fn who_may_view_a_namespace_may_see_its_flows_and_who_may_edit_it_may_drain_its_pods() {
    let _installed = mesh();
    let namespace = Namespace::create(cluster().kubectl(), "people").unwrap();
    // A name in the table lives as long as the program.
    let own: &'static str = Box::leak(namespace.name().to_owned().into_boxed_str());
    let beyond = |what: &'static str, verb: &'static str| {
        let places: [Where; 3] = [Everywhere, Here, In("default")];
        places.map(|place| (verb, what, place))
    };
    for (role, may_drain) in [("view", false), ("edit", true), ("admin", true)] {
        let person = Caller::person(&format!("{role}er-of-people"));
        let nobody = [("get", FLOWS, In(own)), ("create", DRAINS, In(own))];
        assert_eq!(
            surprises(&person, &nobody, false),
            [""; 0],
            "before there is a binding"
        );
        bind(&namespace, role, &person.user);
        let mut may = vec![("get", FLOWS, In(own))];
        let mut may_not = [
            beyond(FLOWS, "get"),
            beyond(DRAINS, "create"),
            beyond(NODES, "get"),
        ]
        .concat();
        may_not.extend([
            ("get", NODES, In(own)),
            ("create", FLOWS, In(own)),
            ("create", "pods/portforward", Here),
            ("get", "pods", Here),
            ("create", "serviceaccounts/token", Named(VIEWER)),
        ]);
        match may_drain {
            true => may.push(("create", DRAINS, In(own))),
            false => may_not.push(("create", DRAINS, In(own))),
        }
        until_allowed(&person, &may);
        assert_eq!(surprises(&person, &may_not, false), [""; 0], "{role}");
    }
}

/// A command of kubectl as somebody else, whom the API server takes the administrator's word for.
fn run_as(person: &str, args: &[&str]) -> Output {
    let person = format!("--as={person}");
    let group = "--as-group=system:authenticated";
    cluster()
        .kubectl()
        .output(&[&[&person, group], args].concat())
        .unwrap()
}

#[test]
fn those_whom_the_values_name_reach_agents_and_others_do_not() {
    const MEMBER: &str = "member-of-mesh-users";
    let mesh = mesh_alone();
    let named = Caller::person("jane@example.com");
    let member = Caller {
        groups: vec!["mesh-users".to_owned(), "system:authenticated".to_owned()],
        ..Caller::person(MEMBER)
    };
    let stranger = Caller::person("stranger");
    for caller in [&named, &member, &stranger] {
        assert_eq!(
            surprises(caller, &CONNECTED_MAY, false),
            [""; 0],
            "before they are named"
        );
    }
    mesh.upgrade(&[
        "plugin.subjects[0].kind=User",
        "plugin.subjects[0].name=jane@example.com",
        "plugin.subjects[1].kind=Group",
        "plugin.subjects[1].name=mesh-users",
    ])
    .unwrap();
    for caller in [&named, &member] {
        until_allowed(caller, &CONNECTED_MAY);
        assert_eq!(
            surprises(caller, &CONNECTED_MAY_NOT, false),
            [""; 0],
            "{}",
            caller.user
        );
    }
    assert_eq!(surprises(&stranger, &CONNECTED_MAY, false), [""; 0]);
    forwarding_works_for("jane@example.com", "stranger", &mesh);
    mesh.upgrade(&[]).unwrap();
    wait::until("who is not named any more is refused", SOON, || {
        surprises(&named, &CONNECTED_MAY, false).is_empty()
    })
    .unwrap();
}

/// Not only by the table: the API server forwards, by the verbs that it asks for. The port is the kubelet's, which nodes serve on loopback.
fn forwarding_works_for(person: &str, stranger: &str, mesh: &Mesh) {
    let agent = mesh.agent("node-1").unwrap();
    let namespace = ["--namespace", NAMESPACE];
    // It ends by itself where it is refused; where not, it serves until a limit ends it.
    let forward = [&namespace[..], &["port-forward", &agent, ":10248"]].concat();
    let refused = run_as(stranger, &forward);
    assert!(
        !refused.status.success() && refused.stderr.contains("orbidden"),
        "{refused:?}"
    );
    let mut command = cluster().kubectl().command().unwrap();
    let person_flag = format!("--as={person}");
    command
        .args([&person_flag, "--as-group=system:authenticated"])
        .args(&forward);
    let mut serving = Serving::start(command);
    let line = serving.first_line();
    assert!(line.starts_with("Forwarding from"), "{line}");
    let token = [&namespace[..], &["create", "token", VIEWER]].concat();
    let refused = run_as(person, &token);
    assert!(
        !refused.status.success() && refused.stderr.contains("orbidden"),
        "{refused:?}"
    );
}

/// A program that serves until it is dropped.
struct Serving(Child);

impl Serving {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        Self(command.spawn().unwrap())
    }

    /// Nothing, where it ends without one.
    fn first_line(&mut self) -> String {
        let mut line = String::new();
        let out = self.0.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
