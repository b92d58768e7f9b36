//! Files of objects: YAML or JSON text as values, and the pods in them wherever they stand. What is no pod's template stays as it is.

use std::rc::Rc;

use serde_json::{Map, Value};

use crate::document::{Kind, Node, Problem, load_all};

/// Why a file cannot be changed: the object, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Such as `Deployment web`.
    pub object: String,
    pub reason: String,
}

/// The documents of a text that are not empty, read as kubectl reads them.
pub fn documents(text: &str) -> Result<Vec<Value>, Problem> {
    let all = load_all(text)?;
    Ok(all.iter().map(value).filter(|value| !value.is_null()).collect())
}

/// Gives every pod of the object to `change`, with its namespace where it says one, and puts back what comes of it.
pub fn change(
    object: &mut Value,
    change_pod: &mut impl FnMut(&Value, &str) -> Result<Value, String>,
    wrong: &mut Vec<Wrong>,
) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(items) = object
        .get_mut("items")
        .and_then(Value::as_array_mut)
        .filter(|_| kind.ends_with("List"))
    {
        for item in items {
            change(item, change_pod, wrong);
        }
        return;
    }
    let Some(path) = template(&kind) else { return };
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let name = object["metadata"]["name"]
        .as_str()
        .or(object["metadata"]["generateName"].as_str());
    let label = format!("{kind} {}", name.unwrap_or("without a name"));
    let changed = match object.pointer(path) {
        Some(pod) if pod["spec"].is_object() => change_pod(pod, &namespace),
        _ => Err(format!(
            "it has no pod at {}",
            if path.is_empty() { "spec" } else { path }
        )),
    };
    match (changed, object.pointer_mut(path)) {
        (Ok(changed), Some(pod)) => *pod = changed,
        (Err(reason), _) => wrong.push(Wrong {
            object: label,
            reason,
        }),
        (Ok(_), None) => {}
    }
}

/// Where an object of this kind has its pod.
fn template(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod" => "",
        "PodTemplate" => "/template",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            "/spec/template"
        }
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return None,
    })
}

fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar { text, plain: true } if node.tag.is_none() => plain(text),
        Kind::Scalar { text, .. } => Value::from(&**text),
        Kind::List(items) => items.iter().map(|item| value(item)).collect(),
        Kind::Map(entries) => map(entries).into(),
    }
}

fn map(entries: &[(Rc<Node>, Rc<Node>)]) -> Map<String, Value> {
    let mut fields = Map::new();
    for (key, of_key) in entries {
        let Kind::Scalar { text, plain } = &key.kind else {
            continue;
        };
        if *plain && text == "<<" {
            merge(of_key, &mut fields);
        } else {
            fields.insert(text.clone(), value(of_key));
        }
    }
    fields
}

/// A merge key: fields of another map, or of several, which those that stand here win over.
fn merge(node: &Node, fields: &mut Map<String, Value>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, value) in map(entries) {
                fields.entry(key).or_insert(value);
            }
        }
        Kind::List(items) => items.iter().for_each(|item| merge(item, fields)),
        Kind::Scalar { .. } => {}
    }
}

/// What an unquoted word means to kubectl, whose YAML is 1.1 for truth values and octal numbers, as in `defaultMode: 0644`. Single
/// letters stay words: it is a mistake to mean a truth value by them, and a name of somebody who does not.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return true.into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return false.into(),
        _ => {}
    }
    integer(text)
        .or_else(|| fraction(text))
        .unwrap_or_else(|| text.into())
}

fn integer(text: &str) -> Option<Value> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let (digits, radix) = if let Some(rest) = digits.strip_prefix("0x") {
        (rest, 16)
    } else if let Some(rest) = digits.strip_prefix("0b") {
        (rest, 2)
    } else if let Some(rest) = digits.strip_prefix("0o") {
        (rest, 8)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (&*digits, 10)
    };
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let signed = format!("{sign}{digits}");
    let small = i64::from_str_radix(&signed, radix).ok().map(Value::from);
    small.or_else(|| u64::from_str_radix(&signed, radix).ok().map(Value::from))
}

fn fraction(text: &str) -> Option<Value> {
    let is_number = text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    let number: f64 = if is_number {
        text.parse().ok()?
    } else {
        return None;
    };
    // A whole number is one in JSON, too: the API server takes no `1000.0` for 1e3.
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return Some((number as i64).into());
    }
    serde_json::Number::from_f64(number).map(Value::Number)
}
