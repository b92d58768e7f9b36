//! What a stream is sent, as a ztunnel asks for it and as our own clients do. No socket.

use super::*;
use crate::model::authorization::Scope;
use crate::xds::message::ErrorDetail;
use crate::xds::testing::{policy, service, workload};
use crate::xds::{Key, Resource, Update};

fn request(kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaRequest {
    DeltaRequest {
        type_url: kind.type_url().to_owned(),
        subscribe: subscribe.iter().map(ToString::to_string).collect(),
        unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        ..DeltaRequest::default()
    }
}

fn world() -> Store {
    let mut store = Store::default();
    store.apply([
        Update::Put(service("web", &["10.96.0.1"])),
        Update::Put(workload("web-1", "10.0.0.1", &["web"])),
        Update::Put(workload("web-2", "10.0.0.2", &["web"])),
        Update::Put(policy("demo", "p", Scope::Namespace)),
    ]);
    for kind in Kind::ALL {
        store.complete(kind);
    }
    store
}

fn stream() -> ServerStream {
    ServerStream::new(Audience::Everybody, Limits { names: 8 })
}

/// All that is sent, with `-` before what is gone and `|` between responses.
fn sent(stream: &mut ServerStream, store: &Store) -> String {
    let mut responses = Vec::new();
    while let Some(response) = stream.next(store) {
        let mut names: Vec<String> = response.removed.iter().map(|name| format!("-{name}")).collect();
        names.extend(response.resources.into_iter().map(|named| named.name));
        let short = |name: String| {
            let name = name.replace("cluster//Pod/demo/", "");
            name.replace(".demo.svc.cluster.local", "")
        };
        let mut names: Vec<String> = names.into_iter().map(short).collect();
        names.sort();
        responses.push(names.join(" "));
    }
    responses.join("|")
}

#[test]
fn a_first_request_without_names_is_the_wildcard_and_is_answered_with_everything() {
    let (store, mut stream) = (world(), stream());
    stream.request(request(Kind::Address, &[], &[]), &store).unwrap();
    stream
        .request(request(Kind::Authorization, &[], &[]), &store)
        .unwrap();
    assert_eq!(sent(&mut stream, &store), "demo/web web-1 web-2|demo/p");
}

/// ztunnel is ready only when both types have been answered.
#[test]
fn the_wildcard_is_answered_where_there_is_nothing() {
    let (mut store, mut stream) = (Store::default(), stream());
    stream.request(request(Kind::Address, &[], &[]), &store).unwrap();
    assert!(!stream.is_due());
    let touched = store.complete(Kind::Address);
    stream.touched(&touched, &store);
    let response = stream.next(&store).unwrap();
    assert!(response.resources.is_empty() && response.removed.is_empty());
    assert_eq!(response.type_url, Kind::Address.type_url());
    assert_eq!(stream.next(&store), None);
}

/// `*` and `-*` in one request: nothing, until something is asked for.
#[test]
fn a_ztunnel_on_demand_starts_with_nothing_and_finds_its_answer_under_the_name_that_it_asked_for() {
    let (store, mut stream) = (world(), stream());
    stream
        .request(request(Kind::Address, &["*"], &["*"]), &store)
        .unwrap();
    assert_eq!(sent(&mut stream, &store), "");
    let asked = stream
        .request(request(Kind::Address, &["/10.0.0.1"], &[]), &store)
        .unwrap();
    assert_eq!(asked.subscribed, ["/10.0.0.1".into()]);
    assert!(stream.is_urgent());
    assert_eq!(sent(&mut stream, &store), "/10.0.0.1 web-1");
    stream
        .request(request(Kind::Address, &["/10.96.0.1"], &[]), &store)
        .unwrap();
    assert_eq!(
        sent(&mut stream, &store),
        "/10.96.0.1 demo/web web-2",
        "what it holds is not sent again"
    );
    stream
        .request(request(Kind::Address, &["/10.9.9.9"], &[]), &store)
        .unwrap();
    assert_eq!(sent(&mut stream, &store), "-/10.9.9.9");
}

/// A ztunnel on demand that reconnects names what it holds, and subscribes to nothing.
#[test]
fn what_a_client_brings_without_subscribing_is_what_it_wants() {
    let (store, mut stream) = (world(), stream());
    let version = store
        .get(&Key::address("cluster//Pod/demo/web-1"))
        .unwrap()
        .version
        .to_string();
    let mut first = request(Kind::Address, &["*"], &["*"]);
    first.initial_versions.extend([
        ("cluster//Pod/demo/web-1".to_owned(), version.clone()),
        ("cluster//Pod/demo/gone".to_owned(), version),
    ]);
    stream.request(first, &store).unwrap();
    let told = sent(&mut stream, &store);
    assert!(told.contains("-gone"), "{told}");
    assert!(!told.contains("web-2"), "{told}");
}

#[test]
fn what_is_gone_is_told_before_what_has_come() {
    let (mut store, mut stream) = (world(), stream());
    stream
        .request(request(Kind::Address, &["/10.96.0.1"], &[]), &store)
        .unwrap();
    sent(&mut stream, &store);
    // The address moves to another pod.
    let touched = store.apply([
        Update::Put(workload("web-3", "10.0.0.1", &["web"])),
        Update::Remove(Key::address("cluster//Pod/demo/web-1")),
    ]);
    stream.touched(&touched, &store);
    assert!(!stream.is_urgent() && stream.is_due());
    assert_eq!(sent(&mut stream, &store), "-web-1|web-3");
}

#[test]
fn what_changes_often_is_sent_once_in_its_last_state() {
    let (mut store, mut stream) = (world(), stream());
    stream
        .request(request(Kind::Address, &["/10.96.0.1"], &[]), &store)
        .unwrap();
    sent(&mut stream, &store);
    for n in 3..200 {
        let touched = store.apply([Update::Put(workload("web-2", &format!("10.0.0.{n}"), &["web"]))]);
        stream.touched(&touched, &store);
    }
    let touched = store.apply([Update::Put(workload("elsewhere", "10.0.3.3", &[]))]);
    stream.touched(&touched, &store);
    let response = stream.next(&store).unwrap();
    assert_eq!(response.resources.len(), 1);
    assert_eq!(response.resources[0].aliases, ["/10.0.0.199"]);
    assert_eq!(stream.next(&store), None);
}

#[test]
fn a_service_that_gains_or_loses_an_address_brings_and_takes_its_workloads() {
    let (mut store, mut stream) = (world(), stream());
    stream
        .request(request(Kind::Address, &["/10.96.0.7"], &[]), &store)
        .unwrap();
    assert_eq!(sent(&mut stream, &store), "-/10.96.0.7");
    let touched = store.apply([Update::Put(service("web", &["10.96.0.7"]))]);
    stream.touched(&touched, &store);
    assert_eq!(sent(&mut stream, &store), "demo/web web-1 web-2");
    let touched = store.apply([Update::Put(service("web", &["10.96.0.1"]))]);
    stream.touched(&touched, &store);
    let told = sent(&mut stream, &store);
    for gone in ["-demo/web", "-web-1", "-web-2"] {
        assert!(told.contains(gone), "{told}");
    }
}

#[test]
fn a_refusal_is_told_by_its_presence_and_not_by_its_code() {
    let (store, mut stream) = (world(), stream());
    stream.request(request(Kind::Address, &[], &[]), &store).unwrap();
    let nonce = stream.next(&store).unwrap().nonce;
    let mut answer = request(Kind::Address, &[], &[]);
    answer.response_nonce = nonce;
    assert_eq!(stream.request(answer.clone(), &store).unwrap(), Asked::default());
    answer.error = Some(ErrorDetail {
        code: 0,
        message: "no".to_owned(),
    });
    assert_eq!(
        stream.request(answer, &store).unwrap().refused.as_deref(),
        Some("no")
    );
    assert_eq!(
        stream.next(&store),
        None,
        "an acknowledgement is no first request"
    );
}

#[test]
fn an_answer_to_a_stream_before_this_one_begins_nothing() {
    let (store, mut stream) = (world(), stream());
    let mut answer = request(Kind::Address, &[], &[]);
    answer.response_nonce = "9".to_owned();
    stream.request(answer, &store).unwrap();
    assert!(!stream.is_due());
}

#[test]
fn a_stream_that_asks_for_too_much_or_for_nonsense_is_refused() {
    let (store, mut stream) = (world(), stream());
    let mut unknown = request(Kind::Address, &[], &[]);
    unknown.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    assert!(matches!(
        stream.request(unknown, &store),
        Err(BadRequest::UnknownType(_))
    ));
    let long = "x".repeat(513);
    let asked = stream.request(request(Kind::Address, &[&long], &[]), &store);
    assert_eq!(asked, Err(BadRequest::LongName(513)));
    let names: Vec<String> = (0..9).map(|n| format!("/10.0.0.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(
        stream.request(request(Kind::Address, &names, &[]), &store),
        Err(BadRequest::TooMany(8))
    );
}

/// A response is of bounded size, and all but the last say that more follows.
#[test]
fn a_large_world_is_sent_in_parts() {
    let (mut store, mut stream) = (world(), stream());
    let many = (0..4000).map(|n| {
        let address = format!("10.{}.{}.1", 1 + n / 250, n % 250);
        Update::Put(workload(&format!("pod-{n}"), &address, &[]))
    });
    store.apply(many);
    stream.request(request(Kind::Address, &[], &[]), &store).unwrap();
    let (mut parts, mut all) = (Vec::new(), 0);
    while let Some(response) = stream.next(&store) {
        let size: usize = response
            .resources
            .iter()
            .map(|r| r.resource.as_ref().unwrap().value.len())
            .sum();
        assert!(size <= 256 << 10, "{size}");
        all += response.resources.len();
        parts.push(response.system_version == MORE);
    }
    assert_eq!(all, 4003);
    assert!(parts.len() > 3);
    let (last, others) = parts.split_last().unwrap();
    assert!(!last && others.iter().all(|more| *more), "{parts:?}");
}

#[test]
fn a_pod_sees_the_policies_that_can_be_meant_for_it_and_no_others() {
    let mut store = world();
    store.apply([
        Update::Put(policy("root", "everywhere", Scope::Global)),
        Update::Put(policy("root", "by-name", Scope::WorkloadSelector)),
        Update::Put(policy("other", "theirs", Scope::Namespace)),
        Update::Put(policy("other", "one-of-theirs", Scope::WorkloadSelector)),
    ]);
    let audience = Audience::Pod {
        namespace: "demo".into(),
        own: vec!["/10.0.0.1".into()],
    };
    let mut stream = ServerStream::new(audience, Limits { names: 8 });
    stream
        .request(request(Kind::Authorization, &[], &[]), &store)
        .unwrap();
    assert_eq!(sent(&mut stream, &store), "demo/p root/everywhere");
    // Its workload names one of the root namespace, which holds for it from then on.
    let Resource::Workload(mut named) = workload("web-1", "10.0.0.1", &["web"]) else {
        unreachable!("it is one");
    };
    named.authorization_policies = vec!["root/by-name".to_owned()];
    let touched = store.apply([Update::Put(Resource::Workload(named))]);
    stream.touched(&touched, &store);
    assert_eq!(sent(&mut stream, &store), "root/by-name");
    let touched = store.apply([Update::Put(workload("web-1", "10.0.0.1", &["web"]))]);
    stream.touched(&touched, &store);
    assert_eq!(sent(&mut stream, &store), "-root/by-name");
}
