//! Asks one pod's proxy about itself: by the agent of the pod's node, or at an endpoint that is named.

use super::access::{AccessArgs, Source};
use super::client::Target;
use super::error::Error;

/// The proxy that is meant. At an endpoint of a proxy there is no pod to name.
pub(super) fn source(access: &AccessArgs, pod: Option<&str>) -> Result<Source, Error> {
    let Some(pod) = pod else {
        let target = access.endpoint().ok_or_else(|| Error::Usage {
            reason: "which pod? Name it; kubectl outrigger status lists those that there are".to_owned(),
        })?;
        return Ok(Source {
            target,
            scope: Vec::new(),
        });
    };
    let source = access.source_of(pod)?;
    match source.scope.len() {
        1 => Ok(source),
        _ => Err(Error::ManyPods { name: pod.to_owned() }),
    }
}

pub(super) fn ask(source: &Source, path: &str) -> Result<String, Error> {
    source.get(path).map_err(|error| match error {
        // The words are the proxy's, or the agent's, about this question.
        Error::Refused {
            status: 400, body, ..
        } => Error::Unanswerable { body },
        Error::Refused {
            status: 404, body, ..
        } if matches!(source.target, Target::Agent(_)) => Error::Unanswerable { body },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_pod_and_an_endpoint_nobody_is_asked() {
        let error = source(&AccessArgs::default(), None).unwrap_err().to_string();
        assert!(error.starts_with("which pod?"), "{error}");
    }
}
