//! The table of changes in the API server's expression language, CEL. Its lists and maps have one type of entry each, so that every value
//! is written as `dyn`.

use serde_json::Value;

use super::changes::{Change, DEFAULT_CONTAINER, What, When};
use super::ports;
use super::profile::{ATTACH_AGENT, ATTACH_SELF, POD_CERTIFICATES, TOKEN};
use super::refusals::CONTAINERS;
use crate::kubernetes::{ANNOTATION_ATTACH, ANNOTATION_MODE};

/// Variables that conditions use, with their expressions.
pub(super) fn variables() -> [(&'static str, String); 3] {
    let guaranteed = format!(
        "{CONTAINERS}.all(c, ['cpu', 'memory'].all(r, c.?resources.?limits[?r].hasValue() && \
         c.?resources.?requests[?r].hasValue() && \
         quantity(c.resources.limits[r]).compareTo(quantity(c.resources.requests[r])) == 0))"
    );
    [
        ("guaranteed", guaranteed),
        ("ownResources", "object.spec.?resources.hasValue()".to_owned()),
        ("probePorts", ports::cel()),
    ]
}

/// The list of JSON patches. Those that need no condition stand together.
pub(super) fn patches(changes: &[Change]) -> String {
    let patch = |change: &Change| {
        let value = match &change.value {
            What::This(value) => literal(value),
            What::FirstContainersName => "object.spec.containers[0].name".to_owned(),
            What::Mode => format!("object.metadata.annotations['{ANNOTATION_MODE}']"),
            What::ProbePorts => "variables.probePorts".to_owned(),
        };
        format!(
            "[JSONPatch{{op: 'add', path: {}, value: {value}}}]",
            text(&change.path)
        )
    };
    let terms: Vec<String> = changes
        .iter()
        .filter_map(|change| match change.when {
            When::Always => Some(patch(change)),
            when => Some(format!("({} ? {} : [])", condition(when)?, patch(change))),
        })
        .collect();
    terms.join(" +\n")
}

/// `None`: it never holds there.
fn condition(when: When) -> Option<String> {
    let is_empty = |list: &str| format!("object.{list}.orValue([]).size() == 0");
    Some(match when {
        When::Always => "true".to_owned(),
        When::NoMetadata => return None,
        When::NoInitContainers => is_empty("spec.?initContainers"),
        When::NoVolumes => is_empty("spec.?volumes"),
        When::NoAnnotations => "object.metadata.?annotations.orValue({}).size() == 0".to_owned(),
        When::NoDefaultContainer => {
            format!("!object.metadata.?annotations[?'{DEFAULT_CONTAINER}'].hasValue()")
        }
        When::HasMode => format!("object.metadata.?annotations[?'{ANNOTATION_MODE}'].hasValue()"),
        When::Identity {
            by,
            is_of_profile,
            unless_told,
        } => {
            let other = if by == TOKEN { POD_CERTIFICATES } else { TOKEN };
            let said = if is_of_profile { by } else { other };
            let by_itself = attaches_itself(unless_told);
            match by == TOKEN {
                true => format!("'{said}' == '{by}' || {by_itself}"),
                false => format!("'{said}' == '{by}' && !({by_itself})"),
            }
        }
        When::AttachesItself { unless_told } => attaches_itself(unless_told),
        When::Guaranteed => "!variables.ownResources && variables.guaranteed".to_owned(),
        When::NotGuaranteed => "!variables.ownResources && !variables.guaranteed".to_owned(),
    })
}

fn attaches_itself(unless_told: bool) -> String {
    let unless_told = if unless_told { ATTACH_SELF } else { ATTACH_AGENT };
    format!(
        "object.metadata.?annotations[?'{ANNOTATION_ATTACH}'].orValue('{unless_told}') == '{ATTACH_SELF}'"
    )
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(word) => text(word),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(entry).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", text(key), entry(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn entry(value: &Value) -> String {
    format!("dyn({})", literal(value))
}

/// CEL's escapes are JSON's and more.
pub(super) fn text(word: &str) -> String {
    Value::from(word).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_the_language_reads_them() {
        let value = json!({ "a": ["x\"\\\n", 1, true, null], "b": {} });
        assert_eq!(
            literal(&value),
            r#"{"a": dyn([dyn("x\"\\\n"), dyn(1), dyn(true), dyn(null)]), "b": dyn({})}"#
        );
    }
}
