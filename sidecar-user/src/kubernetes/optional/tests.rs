//! Kinds that come and go, by a server of closures.

use std::sync::{Arc, Mutex};

use super::*;

type Answer = Result<Option<&'static str>, String>;

/// One follows another; the last one stays.
struct Server(Arc<Mutex<Vec<Answer>>>);

impl Server {
    fn new(answers: Vec<Answer>) -> Self {
        Self(Arc::new(Mutex::new(answers)))
    }

    fn ask(&self) -> impl Fn() -> Asked + Send + 'static {
        let answers = self.0.clone();
        move || {
            let mut answers = answers.lock().unwrap();
            let answer = if answers.len() > 1 {
                answers.remove(0)
            } else {
                answers[0].clone()
            };
            std::future::ready(answer).boxed()
        }
    }
}

fn away() -> Change<u8> {
    Change::Trouble("away".into())
}

async fn heard(answers: Vec<Answer>, changes: Vec<Change<u8>>) -> Vec<Change<u8>> {
    let server = Server::new(answers);
    let follow = move |_| stream::iter(changes.clone()).chain(stream::pending()).boxed();
    let stream = while_served(server.ask(), follow).take_until(tokio::time::sleep(AGAIN * 10));
    stream.collect().await
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_installed_has_no_objects_and_is_said_so_once() {
    assert_eq!(heard(vec![Ok(None)], vec![]).await, [Change::All(vec![])]);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_followed_then() {
    let answers = vec![Ok(None), Ok(None), Ok(Some("v1"))];
    let changes = vec![Change::All(vec![1]), Change::Applied(2)];
    let expected = [Change::All(vec![]), Change::All(vec![1]), Change::Applied(2)];
    assert_eq!(heard(answers, changes).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_has_not_said_that_there_are_none() {
    let answers = vec![Err("away".into()), Err("away".into()), Ok(Some("v1"))];
    let expected = [away(), away(), Change::All(vec![1])];
    assert_eq!(heard(answers, vec![Change::All(vec![1])]).await, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_for_a_moment_stays() {
    let answers = vec![
        Ok(Some("v1")),
        Ok(None),
        Ok(None),
        Ok(Some("v1")),
        Ok(None),
        Ok(None),
        Ok(Some("v1")),
    ];
    let changes = [vec![Change::All(vec![1])], vec![away(); 6]].concat();
    assert_eq!(heard(answers, changes.clone()).await, changes);
}

#[tokio::test(start_paused = true)]
async fn what_stays_missing_is_gone_and_is_looked_for_again() {
    let answers = vec![Ok(Some("v1")), Ok(None)];
    let changes = [vec![Change::All(vec![1])], vec![away(); 6]].concat();
    let expected = [
        vec![Change::All(vec![1])],
        vec![away(); 3],
        vec![Change::All(vec![])],
    ]
    .concat();
    assert_eq!(heard(answers, changes).await, expected);
}

#[test]
fn an_object_is_read_from_what_the_api_server_sends() {
    let object = json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "demo", "creationTimestamp": "2026-11-28T12:00:00Z", "labels": {"a": "b"}},
        "spec": {"mtls": {"mode": "STRICT"}}, "status": {}});
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let Some(Change::Applied(peer)) = read::<PeerAuthentication>(Change::Applied(object)) else {
        panic!("it is one");
    };
    assert_eq!(
        (&*peer.meta.namespace, &*peer.meta.creation_timestamp),
        ("demo", "2026-11-28T12:00:00Z")
    );
    assert_eq!(peer.spec.unwrap().mtls.mode, "STRICT");
}
