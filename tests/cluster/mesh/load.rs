//! Connections that are made all the time while something happens, by unmodified clients in a pod, and what became of them.

use harness::cluster::Namespace;
use harness::wait::{self, SOON};

/// New connections by curl, one after another, and one connection that stays open, by redis-cli.
pub(super) struct Load<'a> {
    namespace: &'a Namespace<'a>,
    pod: &'a str,
}

/// What has become of them.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) answered: usize,
    pub(super) failed: Vec<String>,
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
        let count = |file: &str, good: &str| {
            let path = format!("/tmp/{file}");
            let said = self.namespace.exec(self.pod, &["cat", &path]).unwrap();
            said.stdout.lines().filter(|line| *line == good).count()
        };
        (count("new", "200"), count("kept", "PONG"))
    }

    /// Ends it: new connections, and requests on the one that was kept.
    pub(super) fn stop(self) -> (Account, Account) {
        self.namespace
            .exec(self.pod, &["touch", "/tmp/stop"])
            .unwrap()
            .ok()
            .unwrap();
        let account = |file: &str, good: &str| {
            let path = format!("/tmp/{file}");
            let said = wait::until_some("the load ends", SOON * 2, || {
                let said = self.namespace.exec(self.pod, &["cat", &path])?.stdout;
                Ok(said.ends_with("end\n").then_some(said))
            })
            .unwrap();
            let lines = || said.lines().filter(|line| *line != "end" && !line.is_empty());
            Account {
                answered: lines().filter(|line| *line == good).count(),
                failed: lines().filter(|line| *line != good).map(str::to_owned).collect(),
            }
        };
        (account("new", "200"), account("kept", "PONG"))
    }
}

impl Account {
    pub(super) fn demand_all(&self, what: &str) {
        assert!(self.answered > 10, "{what}: {self:?}");
        assert!(self.failed.is_empty(), "{what}: {self:?}");
    }
}
