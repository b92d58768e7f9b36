//! Connections that are made all the time while something happens, by unmodified clients in a pod, and what became of them.

use harness::cluster::Namespace;
use harness::wait::{self, SOON};
use serde_json::Value;

use super::{client, deployment, meshed};
use crate::common::redis;

/// A namespace of the mesh with Services `web` and `redis`, and with clients: each a name and its node.
pub(super) fn served(stem: &str, web: Value, clients: &[(&str, &str)]) -> Namespace<'static> {
    let namespace = meshed(stem);
    namespace.apply(&deployment("web", 2, web, 80)).unwrap();
    namespace.apply(&deployment("redis", 1, redis(), 6379)).unwrap();
    for (name, node) in clients {
        namespace.apply(&[client(name, node)]).unwrap();
    }
    for ready in ["deployment/web", "deployment/redis"] {
        namespace.wait(ready, "condition=Available").unwrap();
    }
    for (name, _) in clients {
        namespace.wait(&format!("pod/{name}"), "condition=Ready").unwrap();
    }
    namespace
}

/// New connections by curl, one after another, and one connection that stays open, by redis-cli.
pub(super) struct Load<'a> {
    namespace: &'a Namespace<'a>,
    pod: &'a str,
}

/// What has become of them.
#[derive(Debug)]
struct Account {
    answered: usize,
    failed: Vec<String>,
}

impl<'a> Load<'a> {
    /// Starts in a pod that has curl and redis-cli, against Services `web` and `redis`.
    pub(super) fn start(namespace: &'a Namespace<'a>, pod: &'a str) -> Self {
        let script = "cd /tmp && rm -f stop new kept; \
            (while [ ! -e stop ]; do curl -sS -m 10 -o /dev/null -w '%{http_code}\\n' http://web/ >>new 2>&1; done; echo end >>new) & \
            (while [ ! -e stop ]; do echo PING; sleep 0.05; done | stdbuf -oL redis-cli -h redis >>kept 2>&1; echo end >>kept) & \
            exit 0";
        let script = format!("({script}) </dev/null >/dev/null 2>&1");
        namespace.exec(pod, &["sh", "-c", &script]).unwrap().ok().unwrap();
        let load = Self { namespace, pod };
        load.goes_on();
        load
    }

    /// Waits until more of both are answered than now.
    pub(super) fn goes_on(&self) {
        let before = self.counts();
        wait::until("the load goes on", SOON * 3, || {
            let now = self.counts();
            now.0 >= before.0 + 5 && now.1 >= before.1 + 5
        })
        .unwrap();
    }

    fn counts(&self) -> (usize, usize) {
        let count = |file: &str, good: &str| self.said(file).lines().filter(|line| *line == good).count();
        (count("new", "200"), count("kept", "PONG"))
    }

    /// Ends it, once it has gone on for a while. None of it may have failed.
    pub(super) fn demand_all(self) {
        self.goes_on();
        let (new, kept) = self.stop();
        new.demand_all("new connections");
        kept.demand_all("the connection that was kept");
    }

    /// The connection that is kept has not failed so far.
    pub(super) fn demand_kept(&self) {
        self.goes_on();
        self.account("kept", "PONG")
            .demand_all("the connection that is kept");
    }

    /// As [`Self::demand_all`], of new connections alone.
    pub(super) fn demand_new(self) {
        self.goes_on();
        self.stop().0.demand_all("new connections");
    }

    fn account(&self, file: &str, good: &str) -> Account {
        let said = self.said(file);
        let lines = || said.lines().filter(|line| *line != "end" && !line.is_empty());
        Account {
            answered: lines().filter(|line| *line == good).count(),
            failed: lines().filter(|line| *line != good).map(str::to_owned).collect(),
        }
    }

    fn said(&self, file: &str) -> String {
        let path = format!("/tmp/{file}");
        self.namespace.exec(self.pod, &["cat", &path]).unwrap().stdout
    }

    /// Ends it: new connections, and requests on the one that was kept.
    fn stop(self) -> (Account, Account) {
        self.namespace
            .exec(self.pod, &["touch", "/tmp/stop"])
            .unwrap()
            .ok()
            .unwrap();
        let account = |file: &str, good: &str| {
            wait::until("the load ends", SOON * 2, || self.said(file).ends_with("end\n")).unwrap();
            self.account(file, good)
        };
        (account("new", "200"), account("kept", "PONG"))
    }
}

impl Account {
    fn demand_all(&self, what: &str) {
        assert!(self.answered > 10, "{what}: {self:?}");
        assert!(self.failed.is_empty(), "{what}: {self:?}");
    }
}
