//! A question to a node's agent that is meant for the proxy of one pod.

/// Which pod, and the question as its proxy takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfPod {
    /// `namespace/name`, or what the pod is called by where there is no Kubernetes.
    pub pod: Option<String>,
    /// A query string.
    pub rest: String,
}

impl OfPod {
    pub fn parse(query: &str) -> Self {
        let mut pod = None;
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "pod" => pod = Some(value.into_owned()),
                _ => drop(rest.append_pair(&name, &value)),
            }
        }
        Self {
            pod,
            rest: rest.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_the_agent_s_and_the_rest_the_proxy_s() {
        let asked = OfPod::parse("from=demo/a%20b&pod=demo%2Fweb-0&port=80");
        assert_eq!(asked.pod.as_deref(), Some("demo/web-0"));
        assert_eq!(asked.rest, "from=demo%2Fa+b&port=80");
        assert_eq!(OfPod::parse(""), OfPod::default());
    }
}
