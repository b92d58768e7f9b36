//! Who is given what, by the word of an API server.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::kubernetes::fake::Fake;

const POD: &str = "/api/v1/namespaces/demo/pods/client-1";
const AGENT: &str = "/api/v1/namespaces/outrigger-system/pods/agent-n1";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A cluster with one pod and the agents of two nodes.
struct Cluster {
    fake: Fake,
    review: Review,
    now: SystemTime,
}

/// Something of the form of a token, for that audience, which lives for an hour.
fn token(of: &str, audience: &str, now: SystemTime) -> String {
    let end = now.duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600;
    let payload = json!({ "aud": [audience], "exp": end, "sub": of }).to_string();
    format!("e30.{}.c2ln", base64url(payload.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    text
}

fn status(audience: &str, account: &str, pod: &str, uid: &str, node: &str) -> Value {
    let of = |name: &str| format!("authentication.kubernetes.io/{name}");
    json!({ "authenticated": true, "audiences": [audience], "user": {
        "username": format!("system:serviceaccount:{account}"),
        "extra": { of("pod-name"): [pod], of("pod-uid"): [uid], of("node-name"): [node] } } })
}

fn pod(uid: &str, account: &str, node: &str, phase: &str) -> Value {
    json!({ "metadata": { "name": "x", "uid": uid },
        "spec": { "nodeName": node, "serviceAccountName": account, "containers": [] },
        "status": { "phase": phase, "podIPs": [{ "ip": "10.0.1.7" }, { "ip": "fd00::7" }] } })
}

impl Cluster {
    async fn start() -> Self {
        let fake = Fake::start().await;
        let now = SystemTime::now();
        let cluster = Self {
            review: review(
                fake.client.clone(),
                Names {
                    trust_domain: "td.test".into(),
                    namespace: "outrigger-system".into(),
                    agent: "outrigger-agent".into(),
                },
            ),
            fake,
            now,
        };
        cluster.fake.put(POD, pod("u1", "client", "n1", "Running"));
        cluster.tell(
            &cluster.pod_token(),
            status("outrigger", "demo:client", "client-1", "u1", "n1"),
        );
        for node in ["n1", "n2"] {
            let path = AGENT.replace("n1", node);
            cluster
                .fake
                .put(&path, pod(node, "outrigger-agent", node, "Running"));
            let agent = "outrigger-system:outrigger-agent";
            let said = status("outrigger", agent, &format!("agent-{node}"), node, node);
            cluster.tell(&cluster.agent_token(node), said);
        }
        cluster
    }

    fn tell(&self, token: &str, status: Value) {
        self.fake.token(token, status);
    }

    fn pod_token(&self) -> String {
        token("client", "outrigger", self.now)
    }

    fn agent_token(&self, node: &str) -> String {
        token(node, "outrigger", self.now)
    }

    async fn ask(&self, token: &str, agent: Option<&str>, peer: &str) -> Result<Proved, Refused> {
        self.ask_at(self.now, token, agent, peer).await
    }

    async fn ask_at(
        &self,
        now: SystemTime,
        token: &str,
        agent: Option<&str>,
        peer: &str,
    ) -> Result<Proved, Refused> {
        let secret = |token: &str| Zeroizing::new(token.to_owned());
        let credentials = Credentials {
            token: secret(token),
            agent_token: agent.map(secret),
            peer: Some(peer.parse().unwrap()),
        };
        (self.review)(credentials, now).await.map_err(|doubt| {
            assert!(!doubt.message.contains(token), "{}", doubt.message);
            doubt.why
        })
    }
}

#[tokio::test]
async fn the_agent_of_the_same_node_asks_for_a_pod_and_that_of_another_node_is_refused() {
    let cluster = Cluster::start().await;
    let (pod, here, other) = (
        cluster.pod_token(),
        cluster.agent_token("n1"),
        cluster.agent_token("n2"),
    );
    let proved = cluster.ask(&pod, Some(&here), "192.0.2.1").await.unwrap();
    assert_eq!(
        proved.caller.identity.as_str(),
        "spiffe://td.test/ns/demo/sa/client"
    );
    assert_eq!(proved.through.unwrap().to_string(), "the agent of node n1");
    let refused = cluster.ask(&pod, Some(&other), "192.0.2.1").await;
    assert_eq!(refused, Err(Refused::OtherNode));
    // Also from the address of the pod: whoever shows an agent's token is judged as an agent.
    assert_eq!(
        cluster.ask(&pod, Some(&other), "10.0.1.7").await,
        Err(Refused::OtherNode)
    );
    assert_eq!(
        cluster.ask(&pod, Some(&pod), "10.0.1.7").await,
        Err(Refused::NoAgent)
    );
}

#[tokio::test]
async fn a_pod_asks_for_itself_from_its_own_addresses_and_from_no_other() {
    let cluster = Cluster::start().await;
    let pod = cluster.pod_token();
    for own in ["10.0.1.7", "fd00::7", "::ffff:10.0.1.7"] {
        let proved = cluster.ask(&pod, None, own).await.unwrap();
        assert_eq!((proved.caller.kind, proved.through), (CallerKind::Workload, None));
    }
    assert_eq!(cluster.ask(&pod, None, "10.0.1.8").await, Err(Refused::OtherNode));
}

#[tokio::test]
async fn an_agent_is_known_by_its_account_and_its_node() {
    let cluster = Cluster::start().await;
    let proved = cluster.ask(&cluster.agent_token("n2"), None, "192.0.2.2").await;
    let caller = proved.unwrap().caller;
    assert_eq!(
        (caller.kind, caller.node.as_deref()),
        (CallerKind::Agent, Some("n2"))
    );
    // The same account of another namespace is none.
    let token = token("false", "outrigger", cluster.now);
    let said = status("outrigger", "demo:outrigger-agent", "client-1", "u1", "n1");
    cluster.tell(&token, said);
    cluster
        .fake
        .put(POD, pod("u1", "outrigger-agent", "n1", "Running"));
    let pod = cluster.pod_token();
    let refused = cluster.ask(&token, None, "192.0.2.2").await;
    assert_eq!(refused, Err(Refused::OtherNode));
    cluster.fake.put(POD, self::pod("u1", "client", "n1", "Running"));
    assert!(cluster.ask(&pod, Some(&token), "192.0.2.2").await.is_err());
}

#[tokio::test]
async fn a_token_for_somebody_else_is_refused_whatever_it_says_of_itself() {
    let cluster = Cluster::start().await;
    let says_so = token("x", "https://kubernetes.default.svc", cluster.now);
    assert_eq!(
        cluster.ask(&says_so, None, "10.0.1.7").await,
        Err(Refused::OtherAudience)
    );
    assert_eq!(
        cluster.fake.asked(REVIEWS),
        0,
        "nobody need be asked about that one"
    );
    let lies = token("y", "outrigger", cluster.now);
    for audiences in [json!([]), json!(["vault"])] {
        let mut said = status("", "demo:client", "client-1", "u1", "n1");
        said["audiences"] = audiences;
        cluster.tell(&lies, said);
        assert_eq!(
            cluster.ask(&lies, None, "10.0.1.7").await,
            Err(Refused::OtherAudience)
        );
    }
    let istio = token("z", "istio-ca", cluster.now);
    cluster.tell(&istio, status("istio-ca", "demo:client", "client-1", "u1", "n1"));
    assert!(cluster.ask(&istio, None, "10.0.1.7").await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_bound_to_no_pod_is_refused() {
    let cluster = Cluster::start().await;
    let token = token("x", "outrigger", cluster.now);
    let mut said = status("outrigger", "demo:client", "client-1", "u1", "n1");
    said["user"]["extra"] = json!({});
    cluster.tell(&token, said);
    assert_eq!(cluster.ask(&token, None, "10.0.1.7").await, Err(Refused::Unbound));
    let person =
        json!({ "authenticated": true, "audiences": ["outrigger"], "user": { "username": "admin" } });
    cluster.tell(&token, person);
    assert_eq!(cluster.ask(&token, None, "10.0.1.7").await, Err(Refused::Unbound));
}

#[tokio::test]
async fn a_pod_that_is_gone_replaced_moved_or_finished_is_given_nothing() {
    let cluster = Cluster::start().await;
    let token = cluster.pod_token();
    for other in [
        pod("u2", "client", "n1", "Running"),
        pod("u1", "client", "n2", "Running"),
        pod("u1", "other", "n1", "Running"),
        pod("u1", "client", "n1", "Succeeded"),
        pod("u1", "client", "n1", "Failed"),
    ] {
        cluster.fake.put(POD, other.clone());
        let refused = cluster.ask(&token, None, "10.0.1.7").await;
        assert_eq!(refused, Err(Refused::NoPod), "{other}");
    }
    cluster.fake.remove(POD);
    assert_eq!(cluster.ask(&token, None, "10.0.1.7").await, Err(Refused::NoPod));
    cluster.fake.put(POD, pod("u1", "client", "n1", "Pending"));
    assert!(cluster.ask(&token, None, "10.0.1.7").await.is_ok());
}

#[tokio::test]
async fn what_is_good_is_remembered_for_ten_seconds_and_what_is_not_is_asked_again() {
    let cluster = Cluster::start().await;
    let token = cluster.pod_token();
    for _ in 0..3 {
        cluster.ask(&token, None, "10.0.1.7").await.unwrap();
    }
    assert_eq!((cluster.fake.asked(REVIEWS), cluster.fake.asked(POD)), (1, 1));
    cluster.fake.remove(POD);
    let later = cluster.now + Duration::from_secs(11);
    let refused = cluster.ask_at(later, &token, None, "10.0.1.7").await;
    assert_eq!(refused, Err(Refused::NoPod));
    // An address that the pod had not yet is no reason to refuse it for longer.
    cluster.fake.put(
        POD,
        json!({ "metadata": { "uid": "u1" },
        "spec": { "nodeName": "n1", "serviceAccountName": "client" } }),
    );
    let refused = cluster.ask_at(later, &token, None, "10.0.1.7").await;
    assert_eq!(refused, Err(Refused::OtherNode));
    cluster.fake.put(POD, pod("u1", "client", "n1", "Running"));
    assert!(cluster.ask_at(later, &token, None, "10.0.1.7").await.is_ok());
}

#[tokio::test]
async fn an_expired_token_and_junk_cost_the_api_server_nothing() {
    let cluster = Cluster::start().await;
    let token = cluster.pod_token();
    let later = cluster.now + Duration::from_secs(3600);
    let refused = cluster.ask_at(later, &token, None, "10.0.1.7").await;
    assert_eq!(refused, Err(Refused::ExpiredToken));
    assert_eq!(
        cluster.ask("ort_abc", None, "10.0.1.7").await,
        Err(Refused::UnknownToken)
    );
    assert_eq!(cluster.fake.asked(REVIEWS), 0);
    let unknown = self::token("nobody", "outrigger", cluster.now);
    assert_eq!(
        cluster.ask(&unknown, None, "10.0.1.7").await,
        Err(Refused::NotAuthentic)
    );
}

#[tokio::test]
async fn without_an_api_server_nobody_is_refused_for_good() {
    let cluster = Cluster::start().await;
    cluster.fake.away(true);
    let token = cluster.pod_token();
    assert_eq!(
        cluster.ask(&token, None, "10.0.1.7").await,
        Err(Refused::Unavailable)
    );
    cluster.fake.away(false);
    assert!(cluster.ask(&token, None, "10.0.1.7").await.is_ok());
}
