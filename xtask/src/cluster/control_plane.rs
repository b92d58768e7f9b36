//! etcd, the API server, the controllers and the scheduler, on the first node. Restarts none of them.

use std::path::PathBuf;

use anyhow::Result;
use harness::cluster::{Cluster, Node};
use harness::wait;

use super::node;
use super::pki::{Authority, Subject};
use super::up::LIMIT;

/// Reached from the node itself only.
const ETCD: &str = "http://127.0.0.1:2379";

/// What identity by pod certificates needs; off by default in 1.36.
pub(super) const FEATURES: [&str; 3] = [
    "ClusterTrustBundle",
    "ClusterTrustBundleProjection",
    "PodCertificateRequest",
];

pub(super) fn server() -> String {
    format!("https://{}", node::ipv4(0))
}

/// The administrator's kubeconfig.
pub(super) fn administrator(authority: &Authority) -> Result<PathBuf> {
    let subject = Subject {
        name: "outrigger-administrator",
        group: Some("system:masters"),
        ..Subject::default()
    };
    authority.kubeconfig(&server(), "administrator", &subject)
}

/// What must be there for the API server to answer. The others follow in [`start_controllers`].
pub(super) fn start_api(cluster: &Cluster, authority: &Authority) -> Result<()> {
    let first = cluster.first();
    node::start(
        first,
        &cluster.programs.join("etcd"),
        [
            // In memory: nothing of a cluster is kept.
            "--data-dir=/run/etcd".to_owned(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--unsafe-no-fsync".into(),
        ],
    )?;
    node::start(
        first,
        &cluster.programs.join("kube-apiserver"),
        api_arguments(first, authority)?,
    )
}

fn api_arguments(first: &Node, authority: &Authority) -> Result<Vec<String>> {
    let serving = authority.issue(
        "api",
        &Subject {
            name: "kube-apiserver",
            addresses: &[first.ipv4.into(), node::API_SERVICE.into(), [127, 0, 0, 1].into()],
            hosts: &[
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
            ..Subject::default()
        },
    )?;
    let to_kubelets = authority.issue(
        "api-to-kubelets",
        &Subject {
            name: "kube-apiserver-kubelet-client",
            group: Some("system:masters"),
            ..Subject::default()
        },
    )?;
    let accounts = authority.account_key()?;
    let root = authority.own.certificate.display();
    let features: Vec<String> = FEATURES.iter().map(|name| format!("{name}=true")).collect();
    Ok(vec![
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={}", first.ipv4),
        "--secure-port=443".into(),
        format!("--service-cluster-ip-range={}", node::SERVICES),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!("--client-ca-file={root}"),
        format!("--tls-cert-file={}", serving.certificate.display()),
        format!("--tls-private-key-file={}", serving.key.display()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", accounts.certificate.display()),
        format!("--service-account-signing-key-file={}", accounts.key.display()),
        format!(
            "--kubelet-client-certificate={}",
            to_kubelets.certificate.display()
        ),
        format!("--kubelet-client-key={}", to_kubelets.key.display()),
        format!("--kubelet-certificate-authority={root}"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--runtime-config=certificates.k8s.io/v1beta1=true".into(),
        format!("--feature-gates={}", features.join(",")),
    ])
}

pub(super) fn await_api(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    wait::until("the API server is ready", LIMIT, || {
        let asked = kubectl.output(&["--request-timeout=5s", "get", "--raw=/readyz"]);
        asked.is_ok_and(|output| output.status.success())
    })
}

pub(super) fn start_controllers(cluster: &Cluster, authority: &Authority) -> Result<()> {
    let account_key = authority.own.key.with_file_name("accounts.key");
    let kubeconfig = |file: &str, user: &str| {
        let subject = Subject {
            name: user,
            ..Subject::default()
        };
        authority.kubeconfig(&server(), file, &subject)
    };
    let manager = kubeconfig("controller-manager", "system:kube-controller-manager")?;
    node::start(
        cluster.first(),
        &cluster.programs.join("kube-controller-manager"),
        [
            format!("--kubeconfig={}", manager.display()),
            "--leader-elect=false".into(),
            format!("--service-account-private-key-file={}", account_key.display()),
            format!("--root-ca-file={}", authority.own.certificate.display()),
            format!(
                "--cluster-signing-cert-file={}",
                authority.own.certificate.display()
            ),
            format!("--cluster-signing-key-file={}", authority.own.key.display()),
            // Else the bootstrap roles forbid every controller, and nodes keep their not-ready taint.
            "--use-service-account-credentials=true".into(),
            "--allocate-node-cidrs=false".into(),
        ],
    )?;
    let scheduler = kubeconfig("scheduler", "system:kube-scheduler")?;
    node::start(
        cluster.first(),
        &cluster.programs.join("kube-scheduler"),
        [
            format!("--kubeconfig={}", scheduler.display()),
            "--leader-elect=false".into(),
        ],
    )
}
