//! `drain POD`: has the agent of a pod's node ask the pod's sidecar to drain. The sidecar does what `outrigger drain` in its own container
//! asks for, and the agent wants the right to `create drains.outrigger.example` in the pod's namespace.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::access::AccessArgs;
use super::client::{self, ANSWER_TIMEOUT};
use super::error::{Error, unwritten};

#[derive(Debug, Args)]
pub(super) struct DrainPod {
    /// The pod; of another namespace as NAMESPACE/POD
    #[arg(value_name = "POD")]
    pod: String,
    #[command(flatten)]
    access: AccessArgs,
}

impl DrainPod {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let source = self.access.source_of(&self.pod)?;
        let answer = client::post(&source.target, &source.path("/drain"), Some(ANSWER_TIMEOUT))?.whole()?;
        // Whatever else it says, it has begun to.
        let said: Value = serde_json::from_str(&answer).unwrap_or_default();
        let pod = said["pod"].as_str().unwrap_or(&self.pod);
        writeln!(
            out,
            "{} is draining: open connections go on until they end or drain.deadline is over, and then its sidecar starts anew",
            super::columns::printable(pod)
        )
        .map_err(unwritten)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        drain: DrainPod,
    }

    /// What an agent that answers this is asked, and what is printed.
    fn against(name: &str, answer: &'static str, args: &[&str]) -> (String, Result<String, String>) {
        let path = std::env::temp_dir().join(format!("outrigger-drain-pod-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let agent = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut first = String::new();
            BufReader::new(&stream).read_line(&mut first).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            first.trim_end().to_owned()
        });
        let unix = path.to_str().unwrap().to_owned();
        let line = [&["drain", "--unix", &unix][..], args].concat();
        let mut out = Vec::new();
        let done = Line::try_parse_from(line).unwrap().drain.run(&mut out);
        let asked = agent.join().unwrap();
        std::fs::remove_file(path).unwrap();
        let said = done.map(|()| String::from_utf8(out).unwrap());
        (asked, said.map_err(|error| error.to_string()))
    }

    #[test]
    fn the_agent_is_asked_for_a_change_of_one_pod() {
        let answer = "HTTP/1.0 200 OK\r\n\r\n{\"pod\":\"shop/web-0\",\"sidecar\":\"draining\"}\n";
        let (asked, said) = against("asks", answer, &["web-0", "--namespace", "shop"]);
        assert_eq!(asked, "POST /drain?pod=shop/web-0 HTTP/1.0");
        assert!(said.unwrap().starts_with("shop/web-0 is draining: "));
    }

    #[test]
    fn what_the_agent_refuses_is_said_as_it_says_it() {
        let answer = "HTTP/1.0 400 Bad Request\r\n\r\nno sidecar of shop/web-0 answers this agent\n";
        let (_, said) = against("refused", answer, &["shop/web-0"]);
        let error = said.unwrap_err();
        assert!(
            error.ends_with("no sidecar of shop/web-0 answers this agent"),
            "{error}"
        );
        assert!(Line::try_parse_from(["drain"]).is_err(), "which pod?");
    }
}
