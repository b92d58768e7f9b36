//! A stand-in for the API server of Kubernetes, for an agent without a cluster: the pods of one node, listed and watched, and the
//! events that are written. Checks nothing; answers what the agent asks, over plain HTTP, in the network namespace of its caller.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use anyhow::Result;
use serde_json::{Value, json};

use crate::pod::Pod;

/// Closed when dropped, with all of its connections.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    pods: Vec<Value>,
    events: Vec<Value>,
    requests: Vec<String>,
    /// Of watches.
    open: Vec<TcpStream>,
    is_away: bool,
}

impl ApiServer {
    pub fn start(place: &Pod) -> Result<Self> {
        let listener = place.run_in(|| TcpListener::bind("127.0.0.1:0"))??;
        let server = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let state = Arc::downgrade(&server.state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(state) = state.upgrade() else { return };
                thread::spawn(move || answer(&stream, &state));
            }
        });
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// This pod is there, or is another one than before.
    pub fn put(&self, mut pod: Value) {
        let mut state = self.lock();
        state.version += 1;
        pod["metadata"]["resourceVersion"] = state.version.to_string().into();
        let uid = pod["metadata"]["uid"].clone();
        let is_new = !state.pods.iter().any(|known| known["metadata"]["uid"] == uid);
        state.pods.retain(|known| known["metadata"]["uid"] != uid);
        state.pods.push(pod.clone());
        state.tell(if is_new { "ADDED" } else { "MODIFIED" }, &pod);
    }

    pub fn delete(&self, uid: &str) {
        let mut state = self.lock();
        state.version += 1;
        let at = state.pods.iter().position(|pod| pod["metadata"]["uid"] == uid);
        if let Some(at) = at {
            let mut pod = state.pods.swap_remove(at);
            pod["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.tell("DELETED", &pod);
        }
    }

    /// From now on it answers 503 and closes its watches, or does not.
    pub fn set_away(&self, is_away: bool) {
        let mut state = self.lock();
        state.is_away = is_away;
        for stream in state.open.drain(..).filter(|_| is_away) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// That were written.
    pub fn events(&self) -> Vec<Value> {
        self.lock().events.clone()
    }

    /// Method and path of each.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.set_away(true);
    }
}

impl State {
    fn tell(&mut self, kind: &str, pod: &Value) {
        let line = format!("{}\n", json!({"type": kind, "object": pod}));
        self.open
            .retain_mut(|stream| stream.write_all(line.as_bytes()).is_ok());
    }
}

/// One request for each connection.
fn answer(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut lines = String::new();
    let mut length = 0;
    while !lines.ends_with("\r\n\r\n") {
        let from = lines.len();
        if reader.read_line(&mut lines).ok()? == 0 {
            return None;
        }
        let header = lines[from..].to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = lines.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let mut state = state.lock().ok()?;
    state.requests.push(format!("{method} {path}"));
    let mut to = stream;
    if state.is_away {
        let body = json!({"kind": "Status", "status": "Failure", "code": 503, "message": "away", "reason": "ServiceUnavailable"});
        return respond(to, "503 Service Unavailable", &body);
    }
    if method == "POST" {
        let event: Value = serde_json::from_slice(&body).ok()?;
        state.events.push(event.clone());
        return respond(to, "201 Created", &event);
    }
    if path.contains("watch=") {
        // Until it is closed. A watch begins where its list ended: what has come since is told again.
        write!(
            to,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let since = path
            .split("resourceVersion=")
            .nth(1)?
            .split('&')
            .next()?
            .parse::<u64>()
            .ok()?;
        for pod in &state.pods {
            let version = pod["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok()?;
            if version > since {
                writeln!(to, "{}", json!({"type": "ADDED", "object": pod})).ok()?;
            }
        }
        state.open.push(stream.try_clone().ok()?);
        return Some(());
    }
    let list = json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string()}, "items": state.pods,
    });
    respond(to, "200 OK", &list)
}

fn respond(mut to: &TcpStream, status: &str, body: &Value) -> Option<()> {
    let body = body.to_string();
    write!(
        to,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}
