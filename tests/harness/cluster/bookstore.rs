//! The example application, `deploy/examples/bookstore`, as this cluster can run it: the same objects, with images of this machine
//! that hold the same programs. Changes nothing else, and asserts nothing.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Kubectl;
use crate::chart;

/// The namespace of the example, where nobody needs another one.
pub const NAME: &str = "bookstore";

/// A published image and the one of this machine that has its programs.
struct Replacement {
    /// Up to the version.
    published: &'static str,
    ours: &'static str,
    /// What the published image runs by itself. Ours run nothing.
    command: &'static [&'static str],
    /// Of whom the programs of ours want to be run, and where they are, if not where everybody looks.
    user: Option<u32>,
    path: Option<&'static str>,
}

const REPLACEMENTS: [Replacement; 4] = [
    Replacement {
        published: "docker.io/library/nginx:",
        ours: "outrigger.example/test/nginx:local",
        // Debian's configuration has its servers in the same directory.
        command: &["nginx", "-g", "daemon off;"],
        user: None,
        path: None,
    },
    Replacement {
        published: "docker.io/library/redis:",
        ours: "outrigger.example/test/redis:local",
        // The published image turns the protected mode off, too.
        command: &["redis-server", "--bind", "*", "-::*", "--protected-mode", "no"],
        user: None,
        path: None,
    },
    Replacement {
        published: "docker.io/library/postgres:",
        ours: "outrigger.example/test/postgres:local",
        command: &["sh", "-c", POSTGRES],
        user: Some(102),
        path: Some("/usr/lib/postgresql/15/bin:/usr/bin:/bin"),
    },
    Replacement {
        published: "docker.io/curlimages/curl:",
        ours: "outrigger.example/test/client:local",
        command: &["curl"],
        user: None,
        path: None,
    },
];

/// What the published image's entry point does with POSTGRES_HOST_AUTH_METHOD.
const POSTGRES: &str = "initdb --pgdata=/tmp/data --no-locale --auth=trust --no-sync >/dev/null && \
    echo \"host all all all $POSTGRES_HOST_AUTH_METHOD\" >>/tmp/data/pg_hba.conf && \
    exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories= -c jit=off";

pub fn directory() -> PathBuf {
    chart::root().join("deploy/examples/bookstore")
}

/// The namespace alone.
pub fn namespace(kubectl: Kubectl<'_>) -> Result<Value> {
    let mut objects = read(kubectl, "00-namespace.yaml")?;
    ensure!(objects.len() == 1, "00-namespace.yaml has one object");
    Ok(objects.remove(0))
}

/// Everything that is in the namespace but policies.
pub fn workloads(kubectl: Kubectl<'_>) -> Result<Vec<Value>> {
    let mut objects = read(kubectl, "")?;
    objects.retain(|object| object["kind"] != "Namespace");
    for object in &mut objects {
        replace(object)?;
    }
    Ok(objects)
}

/// The policies, of Istio's kinds, which have to be there.
pub fn policies(kubectl: Kubectl<'_>) -> Result<Vec<Value>> {
    read(kubectl, "policies")
}

/// A file or directory as kubectl reads it.
fn read(kubectl: Kubectl<'_>, name: &str) -> Result<Vec<Value>> {
    let path = directory().join(name).display().to_string();
    let file = format!("--filename={path}");
    let text = kubectl.run(&["create", "--dry-run=client", "--output=json", &file])?;
    let documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let mut objects = Vec::new();
    for document in documents {
        let mut document = document.with_context(|| format!("{path} is no JSON for kubectl"))?;
        match document["items"].as_array_mut() {
            Some(items) => objects.append(items),
            None => objects.push(document),
        }
    }
    for object in &mut objects {
        // That of kubectl's configuration; whoever applies it says another one.
        object["metadata"]
            .as_object_mut()
            .map(|metadata| metadata.remove("namespace"));
    }
    Ok(objects)
}

fn replace(object: &mut Value) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    // To ask by index would make what is not there.
    let Some(pod) = object.pointer_mut("/spec/template/spec") else {
        return Ok(());
    };
    for kind in ["initContainers", "containers"] {
        let containers = pod.get_mut(kind).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let image = container["image"].as_str().unwrap_or_default().to_owned();
            let found = REPLACEMENTS
                .iter()
                .find(|replacement| image.starts_with(replacement.published));
            let replacement =
                found.with_context(|| format!("{name}: this machine has nothing for {image}"))?;
            replacement.apply(container);
        }
    }
    Ok(())
}

impl Replacement {
    fn apply(&self, container: &mut Value) {
        container["image"] = self.ours.into();
        container["imagePullPolicy"] = "Never".into();
        if container.get("command").is_none() {
            container["command"] = json!(self.command);
        }
        if let Some(user) = self.user {
            container["securityContext"] = json!({ "runAsUser": user });
        }
        if let Some(path) = self.path {
            let path = json!({ "name": "PATH", "value": path });
            match container.get_mut("env").and_then(Value::as_array_mut) {
                Some(env) => env.push(path),
                None => container["env"] = json!([path]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_says_what_it_runs_runs_that_in_our_image() {
        let mut job = json!({ "metadata": { "name": "stock" }, "spec": { "template": { "spec": { "containers": [
            { "image": "docker.io/library/postgres:17", "command": ["psql"] },
            { "image": "docker.io/library/redis:7.4" },
        ]}}}});
        replace(&mut job).unwrap();
        let containers = &job["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers[0]["command"], json!(["psql"]));
        assert_eq!(containers[0]["env"][0]["name"], "PATH");
        assert_eq!(containers[1]["command"][0], "redis-server");
        let mut unknown = json!({ "metadata": { "name": "x" }, "spec": { "template": { "spec": { "containers": [{ "image": "x:1" }] } } } });
        let error = replace(&mut unknown).unwrap_err().to_string();
        assert_eq!(error, "x: this machine has nothing for x:1");
    }
}
