//! The agent's status port: metrics and probes for whoever reaches the node. It only reads, and knows no flow and no pod by name.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;
use nix::libc::EAFNOSUPPORT;

use crate::error_chain;
use crate::observe::{Observer, serve_status};

/// Answers until dropped. The conditions of readiness are there already.
pub(super) fn serve(
    address: SocketAddr,
    observer: &Observer,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let listener = listen(address)
        .with_context(|| format!("status: cannot listen on {address}; write another address, or none"))?;
    let observer = observer.clone();
    Ok(async move {
        if let Err(error) = serve_status(listener, observer).await {
            tracing::error!(error = error_chain(&error), "nobody is told this agent's metrics");
        }
    })
}

/// A host without IPv6 (`ipv6.disable=1`) has every address all the same: those of IPv4.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address) {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Nobody else's: loopback has an address for each process.
    fn own_address() -> SocketAddr {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        SocketAddr::from(([127, a.wrapping_add(65), b, c], 15_021))
    }

    async fn ask(path: &str) -> String {
        let mut stream = TcpStream::connect(own_address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_answers_metrics_and_probes_and_names_an_address_that_is_taken() {
        let observer = Observer::plain();
        let adopted = observer.readiness().condition("pods", "not looked at yet");
        let serving = tokio::spawn(serve(own_address(), &observer).unwrap());
        let waiting = ask("/readyz").await;
        assert!(
            waiting.contains(" 503 ") && waiting.contains("pods: not looked at yet"),
            "{waiting}"
        );
        adopted.met();
        assert!(ask("/readyz").await.contains(" 200 "));
        let metrics = ask("/metrics").await;
        for part in [
            " 200 ",
            "outrigger_condition_met{condition=\"pods\"} 1",
            "outrigger_admission_waiting{door=\"status\"}",
        ] {
            assert!(metrics.contains(part), "no {part} in {metrics}");
        }
        // What the admin socket tells is told nobody here.
        for path in ["/flows", "/pods", "/why", "/drain"] {
            assert!(ask(path).await.contains(" 404 "), "{path}");
        }

        let Err(refused) = serve(own_address(), &observer) else {
            panic!("two listen at one address");
        };
        let words = refused.to_string();
        assert!(
            words.contains("status: cannot listen on 127.") && words.contains("or none"),
            "{words}"
        );
        serving.abort();
    }
}
