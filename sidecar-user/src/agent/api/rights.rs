//! Which rights a question takes. Pure.

use std::collections::BTreeSet;

use crate::agent::memory::Pods;
use crate::kubernetes::Right;
use crate::observe::Asked;

/// Of what is asked about flows and pods, who asks needs the right to see the flows of each namespace that the question names; of all, where
/// it names none.
pub(super) fn needed(asked: &Asked) -> Result<Vec<Right>, String> {
    let query = match asked {
        Asked::Flows(query) | Asked::Why(query) | Asked::Pods(query) | Asked::OfProxy(_, query) => query,
        // Of what is attached it names pods of every namespace.
        Asked::Node => {
            return Ok(vec![Right {
                verb: "get",
                resource: "nodes",
                namespace: None,
            }]);
        }
        Asked::Drain(query) => return drain(query),
    };
    let namespaces = namespaces(query)?;
    let right = |namespace| Right {
        verb: "get",
        resource: "flows",
        namespace,
    };
    Ok(match namespaces.is_empty() {
        true => vec![right(None)],
        false => namespaces.into_iter().map(|name| right(Some(name))).collect(),
    })
}

/// In the namespace of the one pod that is named.
fn drain(query: &str) -> Result<Vec<Right>, String> {
    match Pods::of_query(query)?.only().map(|pod| pod.split_once('/')) {
        Some(Some((namespace, _))) => Ok(vec![Right {
            verb: "create",
            resource: "drains",
            namespace: Some(namespace.to_owned()),
        }]),
        _ => Err("name one pod to drain: pod=NAMESPACE/NAME".into()),
    }
}

/// Those that a question is about; none where it is about all.
fn namespaces(query: &str) -> Result<BTreeSet<String>, String> {
    let pods = Pods::of_query(query)?;
    let mut namespaces = pods.namespaces;
    for name in pods.names {
        match name.split_once('/') {
            Some((namespace, _)) => namespaces.insert(namespace.to_owned()),
            None => return Err(format!("`pod={}`: write namespace/name", name.escape_debug())),
        };
    }
    Ok(namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Vec<Option<String>>, String> {
        let rights = needed(&Asked::Flows(query.into()))?;
        Ok(rights.into_iter().map(|right| right.namespace).collect())
    }

    #[test]
    fn a_question_takes_the_right_in_each_namespace_that_it_names() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(of("namespace=shop&limit=5"), Ok(vec![some("shop")]));
        assert_eq!(
            of("pod=shop/a&pod=bank/b&pod=shop/c"),
            Ok(vec![some("bank"), some("shop")])
        );
        assert_eq!(
            of("p%6Fd=shop%2Fa&n%61mespace=bank"),
            Ok(vec![some("bank"), some("shop")])
        );
    }

    #[test]
    fn a_node_and_a_drain_take_rights_of_their_own() {
        let right = |verb, resource, namespace: Option<&str>| Right {
            verb,
            resource,
            namespace: namespace.map(String::from),
        };
        assert_eq!(needed(&Asked::Node), Ok(vec![right("get", "nodes", None)]));
        let drain = |query: &str| needed(&Asked::Drain(query.into()));
        assert_eq!(
            drain("pod=shop/a"),
            Ok(vec![right("create", "drains", Some("shop"))])
        );
        for query in [
            "",
            "namespace=shop",
            "pod=a",
            "pod=shop/a&pod=bank/b",
            "pod=shop/a&namespace=bank",
        ] {
            assert!(drain(query).is_err(), "{query}");
        }
    }

    /// However it is written: what the parser of the answer takes for a pod or a namespace is one here.
    #[test]
    fn a_question_without_names_is_about_all() {
        for query in ["", "limit=5", "watch=true&state=open", "since=10m"] {
            assert_eq!(of(query), Ok(vec![None]), "{query}");
        }
        assert_eq!(of("namespace="), Ok(vec![Some(String::new())]));
        assert!(of("pod=0a1b-uid").unwrap_err().contains("namespace/name"));
    }
}
