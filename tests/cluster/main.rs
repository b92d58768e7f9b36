//! What is true on a real Kubernetes of two nodes, in reading order. `cargo xtask cluster test` brings one up and runs these; they
//! share it, each in a namespace of its own, and run in parallel.

#[path = "nodes.rs"]
mod nodes; // the cluster itself

#[path = "traffic.rs"]
mod traffic; // pods reach each other, across the link too

#[path = "pods.rs"]
mod pods; // what a pod can be: sidecars, exec, logs, its cgroup

#[path = "programs.rs"]
mod programs; // our image, and those of third-party programs

#[path = "image.rs"]
mod image; // the image that users build is the one that these tests run

#[path = "injection.rs"]
mod injection; // sidecars come into pods

#[path = "chart.rs"]
mod chart; // our chart: what it renders and refuses

#[path = "pod_certificates.rs"]
mod pod_certificates; // identities by the API server's own requests

#[path = "rights.rs"]
mod rights; // what Outrigger may ask of the API server, and may not

#[path = "mesh/mod.rs"]
mod mesh; // Outrigger, installed: connections, failures, upgrades, its end

#[path = "bookstore.rs"]
mod bookstore;
#[path = "prometheus/mod.rs"]
mod prometheus; // the dashboard and the rules, against what a Prometheus scrapes // the example application, as a user would install it

#[path = "kinds.rs"]
mod kinds; // Istio's kinds, while a test needs them

#[path = "common.rs"]
mod common; // the objects that these tests make
