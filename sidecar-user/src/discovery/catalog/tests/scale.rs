//! What a large cluster costs: 5,000 nodes and 100,000 endpoints as a feed, and an agent's stream for each node. Prints, asserts
//! no time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use prost::Message;
use serde_json::json;

use super::*;
use crate::kubernetes::slice_of;

use crate::xds::message::{DeltaRequest, Node as Sender};

use crate::xds::{Audience, Client, Kind as Type, Limits, ServerStream, Store, address_key};

const NODES: usize = 5_000;
const PODS: usize = 100_000;
const SERVICES: usize = 2_000;
const BEHIND: usize = PODS / SERVICES;
/// Services that the pods of one node dial.
const DIALLED: usize = 10;
const CHANGES: usize = 500;

fn vip(service: usize) -> IpAddr {
    IpAddr::from([10, 96, (service / 250) as u8, (service % 250) as u8])
}

fn pod_ip(pod: usize) -> IpAddr {
    IpAddr::from([
        10,
        (pod / 62_500) as u8,
        (pod / 250 % 250) as u8,
        (pod % 250) as u8,
    ])
}

fn numbered_pod(n: usize) -> WorkloadPod {
    let mut pod = pod(
        &format!("app-{}-5d4f8b9c7-{n:05}", n / BEHIND),
        &pod_ip(n).to_string(),
    );
    pod.node = format!("node-{}", n % NODES).into();
    pod.has_proxy = true;
    let labels = [
        ("app", format!("app-{}", n / BEHIND)),
        ("pod-template-hash", "5d4f8b9c7".to_owned()),
    ];
    pod.labels = labels
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect::<std::collections::BTreeMap<_, _>>()
        .into();
    pod.owner = Some(Owner {
        kind: "ReplicaSet".into(),
        name: format!("app-{}-5d4f8b9c7", n / BEHIND),
    });
    pod
}

fn numbered_service(n: usize) -> Service {
    let mut service = service(&format!("app-{n}"));
    service.cluster_ips = vec![vip(n)];
    service
}

/// All endpoints of a service; one may be not ready.
fn numbered_slice(n: usize, unready: Option<usize>) -> Slice {
    let pods = n * BEHIND..(n + 1) * BEHIND;
    let endpoints: Vec<SliceEndpoint> = pods
        .map(|pod| {
            let name = format!("app-{n}-5d4f8b9c7-{pod:05}");
            at(&pod_ip(pod).to_string()).of(&name).ready(unready != Some(pod))
        })
        .collect();
    slice(&format!("app-{n}-x7k2p"), &format!("app-{n}"), &endpoints)
}

/// As the API server sends it to a watch, with what its controller writes.
fn event_as_sent(n: usize) -> String {
    let endpoint = |pod: usize| {
        json!({"addresses": [pod_ip(pod)], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", pod % NODES), "zone": "zone-1", "targetRef": {"kind": "Pod", "namespace": "demo",
            "name": format!("app-{n}-5d4f8b9c7-{pod:05}"), "uid": "5d0e86fa-1d2c-4d83-8b6f-1f4b0c6a7c11"}})
    };
    let name = format!("app-{n}");
    json!({"type": "MODIFIED", "object": {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-x7k2p"), "generateName": format!("{name}-"), "namespace": "demo", "generation": 12,
            "resourceVersion": "123456789", "uid": "5d0e86fa-1d2c-4d83-8b6f-1f4b0c6a7c11",
            "creationTimestamp": "2026-11-28T12:00:00Z",
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-28T12:00:00Z"},
            "labels": {"app": name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": name},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "controller": true,
                "blockOwnerDeletion": true, "uid": "5d0e86fa-1d2c-4d83-8b6f-1f4b0c6a7c11"}]},
        "endpoints": (n * BEHIND..(n + 1) * BEHIND).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}]}})
    .to_string()
}

fn dialled(agent: usize) -> impl Iterator<Item = usize> {
    let mut random = fastrand::Rng::with_seed(agent as u64);
    (0..DIALLED).map(move |_| random.usize(..SERVICES))
}

fn megabytes(bytes: i64) -> f64 {
    bytes as f64 / 1e6
}

/// The store that control has, and what it took to fill it.
fn filled(catalog: &mut Catalog) -> Store {
    let mut store = Store::default();
    let nodes = (0..NODES).map(|n| node(&format!("node-{n}"), "zone-1")).collect();
    let pods = (0..PODS).map(numbered_pod).collect();
    let services = (0..SERVICES).map(numbered_service).collect();
    let slices = (0..SERVICES).map(|n| numbered_slice(n, None)).collect();
    let lists = [
        Event::Nodes(Change::All(nodes)),
        Event::Pods(Change::All(pods)),
        Event::Services(Change::All(services)),
        Event::Slices(Change::All(slices)),
        Event::Authorizations(Change::All(Vec::new())),
        Event::Peers(Change::All(Vec::new())),
    ];
    let (mut made, mut stored) = (Duration::ZERO, Duration::ZERO);
    let (mut known, mut served) = (0, 0);
    for list in lists {
        let (mut updates, begun) = (Vec::new(), Instant::now());
        // A list counts for what is kept of it.
        let lists = measure(|| drop(list.clone())).bytes_total as i64;
        known += lists + measure(|| updates = catalog.take(list)).bytes_current;
        made += begun.elapsed();
        let mut copy = Vec::new();
        let size = measure(|| copy = updates.clone()).bytes_current;
        drop(copy);
        known -= size;
        let begun = Instant::now();
        served += size + measure(|| drop(store.apply(updates))).bytes_current;
        stored += begun.elapsed();
    }
    println!(
        "first lists: {made:.2?} and {:.0} MB in the catalog, {stored:.2?} and {:.0} MB in the store of {} resources",
        megabytes(known),
        megabytes(served),
        store.len(),
    );
    for kind in Type::ALL {
        store.complete(kind);
    }
    store
}

fn subscribed(store: &Store, agent: usize) -> ServerStream {
    let mut stream = ServerStream::new(Audience::Everybody, Limits { names: 10_000 });
    let names = dialled(agent).map(|service| address_key("", vip(service)).to_string());
    let request = DeltaRequest {
        type_url: Type::Address.type_url().to_owned(),
        subscribe: names.collect(),
        ..DeltaRequest::default()
    };
    stream.request(request, store).unwrap();
    stream
}

/// Bytes of all that is due.
fn send(stream: &mut ServerStream, store: &Store) -> usize {
    std::iter::from_fn(|| stream.next(store))
        .map(|response| response.encoded_len())
        .sum()
}

#[test]
#[ignore = "a measurement: it prints and takes a minute"]
fn figures() {
    let mut catalog = Catalog::new(World::new().catalog.names);
    let mut store = filled(&mut catalog);
    relist(&mut catalog);
    let mut streams = Vec::new();
    let (mut first, begun) = (0, Instant::now());
    let taken = measure(|| {
        streams = (0..NODES).map(|agent| subscribed(&store, agent)).collect();
        first = streams
            .iter_mut()
            .map(|stream| send(stream, &store))
            .sum::<usize>();
    });
    println!(
        "{NODES} agents that dial {DIALLED} services each: {:.0} kB and {:.2?} of control for one, which is sent {:.0} kB once",
        megabytes(taken.bytes_current) * 1e3 / NODES as f64,
        begun.elapsed() / NODES as u32,
        first as f64 / 1e3 / NODES as f64,
    );
    agent(&store);
    changes(&mut catalog, &mut store, &mut streams);
    full_watch(&store);
}

/// A list of what is known already: after a restart of the API server, or 410 Gone.
fn relist(catalog: &mut Catalog) {
    let slices = (0..SERVICES).map(|n| numbered_slice(n, None)).collect();
    let pods = (0..PODS).map(numbered_pod).collect();
    let begun = Instant::now();
    let told = catalog.take(Event::Slices(Change::All(slices))).len()
        + catalog.take(Event::Pods(Change::All(pods))).len();
    println!(
        "a relist of all pods and slices: {:.2?}, {told} updates",
        begun.elapsed()
    );
    assert_eq!(told, 0);
}

/// What one agent holds.
fn agent(store: &Store) {
    let (mut client, mut held, mut stream) = (Client::default(), Store::default(), subscribed(store, 0));
    let taken = measure(|| {
        for service in dialled(0) {
            client.want(address_key("", vip(service)));
        }
        client.begin(&Sender::default(), &mut held);
        while let Some(response) = stream.next(store) {
            client.response(response, &mut held);
        }
    });
    assert!(held.len() > BEHIND * (DIALLED - 1));
    println!(
        "one agent: {:.2} MB for {} resources",
        megabytes(taken.bytes_current),
        held.len()
    );
}

/// One endpoint that is not ready any more, and the next time another one.
fn changes(catalog: &mut Catalog, store: &mut Store, streams: &mut [ServerStream]) {
    let (mut made, mut told, mut sent) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let (mut bytes, mut agents) = (0, 0);
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..CHANGES {
        let n = random.usize(..SERVICES);
        let is_back = black_box(numbered_slice(n, None));
        let leaves = numbered_slice(n, Some(n * BEHIND + random.usize(..BEHIND)));
        for version in [leaves, is_back] {
            let begun = Instant::now();
            let updates = catalog.take(Event::Slices(Change::Applied(version)));
            assert_eq!(updates.len(), 1);
            let touched = store.apply(updates);
            made += begun.elapsed();
            let begun = Instant::now();
            for stream in &mut *streams {
                stream.touched(&touched, store);
            }
            told += begun.elapsed();
            let begun = Instant::now();
            for stream in streams.iter_mut().filter(|stream| stream.is_due()) {
                bytes += send(stream, store);
                agents += 1;
            }
            sent += begun.elapsed();
        }
    }
    let all = 2 * CHANGES;
    println!(
        "one endpoint change: {:.0?} to make, {:.0?} to look at {NODES} streams, {:.0?} to write to the {:.1} agents that want it; \
         {:.0} bytes to each, {:.1} kB to all",
        made / all as u32,
        told / all as u32,
        sent / all as u32,
        agents as f64 / all as f64,
        bytes as f64 / agents as f64,
        bytes as f64 / 1e3 / all as f64,
    );
}

/// What each node would get and hold if its agent watched the API server as kube-proxy does.
fn full_watch(store: &Store) {
    let event = event_as_sent(7);
    let begun = Instant::now();
    const TIMES: u32 = 200;
    for _ in 0..TIMES {
        let read = slice_of(black_box(&event));
        assert_eq!(read.endpoints.len(), BEHIND);
    }
    let encoded: usize = store
        .of_kind(Type::Address)
        .map(|stored| stored.encoded.len())
        .sum();
    println!(
        "a full watch on each node: an endpoint change is {:.1} kB of JSON and {:.0?} to read, {:.0} MB for all nodes; a first list \
         is {:.0} MB, {:.0} GB for all nodes (as resources {:.0} MB)",
        event.len() as f64 / 1e3,
        begun.elapsed() / TIMES,
        (event.len() * NODES) as f64 / 1e6,
        (event.len() * SERVICES) as f64 / 1e6,
        (event.len() * SERVICES * NODES) as f64 / 1e9,
        encoded as f64 / 1e6,
    );
}
