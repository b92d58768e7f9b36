//! A sidecar is asked to drain, as its own container may ask it. The one change that people can have this agent make.

use std::time::Duration;

use serde_json::json;

use super::client;
use super::memory::Pods;
use super::register::Register;
use crate::observe::Reply;

/// For its answer, which it gives before it begins to.
const PATIENCE: Duration = Duration::from_secs(3);

/// The newest of the pod: one before it drains already.
pub(super) async fn drain(register: &Register, query: &str) -> Reply {
    let pods = match Pods::of_query(query) {
        Ok(pods) => pods,
        Err(reason) => return Reply::Wrong(reason),
    };
    let Some(name) = pods.only() else {
        return Reply::Wrong("name one pod to drain: pod=NAMESPACE/NAME".into());
    };
    let pod = register.names.meant(name);
    let Some(sidecar) = register.sidecars(&Pods::named(&pod)).pop() else {
        return Reply::Wrong(format!(
            "no sidecar of {name} answers this agent, so there is none to drain: kubectl outrigger status says how its pod is"
        ));
    };
    match client::post(&sidecar.socket, "/drain", PATIENCE).await {
        Ok(_) => {
            tracing::info!(
                pod = name,
                "a sidecar drains, because somebody asked this agent for that"
            );
            Reply::Json(json!({ "pod": name, "sidecar": "draining" }).to_string())
        }
        Err(error) => Reply::Busy(format!("the sidecar of {name} was not drained: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::memory::Limits;
    use super::*;

    #[tokio::test]
    async fn the_sidecar_of_the_pod_is_asked_and_nobody_else() {
        let dir = std::env::temp_dir().join(format!("outrigger-{}-draining", std::process::id()));
        let register = Register::open(&dir, Limits::default()).unwrap();
        let other = register.questions("b").unwrap();
        other.set_nonblocking(true).unwrap();
        let listener = register.questions("a").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let sidecar = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in [
                "202 Accepted\r\n\r\ndraining\n",
                "403 Forbidden\r\n\r\nnot here\n",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 1024];
                let n = stream.read(&mut bytes).await.unwrap();
                asked.push(
                    String::from_utf8_lossy(&bytes[..n])
                        .lines()
                        .next()
                        .unwrap()
                        .to_owned(),
                );
                let answer = format!("HTTP/1.0 {answer}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let said = drain(&register, "pod=a").await;
        assert!(matches!(said, Reply::Json(text) if text.contains("\"draining\"")));
        // One of an older version answers questions alone.
        let said = drain(&register, "pod=a").await;
        assert!(matches!(said, Reply::Busy(why) if why.contains("403: not here")));
        assert_eq!(sidecar.await.unwrap(), ["POST /drain HTTP/1.0"; 2]);
        assert_eq!(
            other.accept().unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "nobody asked the other"
        );
        for query in ["pod=c", "", "pod=a&pod=b", "namespace=a"] {
            assert!(
                matches!(drain(&register, query).await, Reply::Wrong(_)),
                "{query}"
            );
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
