//! The chart's values are described in two places: for people who read `values.yaml`, and for programs in `values.schema.json`. Both have to
//! name the same values and say the same of them. Reads no more of YAML than that file has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Helm's own, which every chart may be given, and which is not read.
const OF_HELM: &str = "global";

/// Compares the files of a chart.
pub(super) fn check(chart: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = chart.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let schema =
        serde_json::from_str(&read("values.schema.json")?).context("values.schema.json is no JSON")?;
    let wrong = differences(&read("values.yaml")?, &schema);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// One line for each, which begins with the value's path.
fn differences(values: &str, schema: &Value) -> Vec<String> {
    let comments = comments(values);
    let mut described = BTreeMap::new();
    let mut wrong = Vec::new();
    walk(schema, "", &mut described, &mut wrong);
    for (name, definition) in schema["definitions"].as_object().into_iter().flatten() {
        if definition["description"].as_str().is_none_or(str::is_empty) {
            wrong.push(format!(
                "definitions/{name}: has no description in values.schema.json"
            ));
        }
        if definition["properties"].is_object() && definition["additionalProperties"] != false {
            wrong.push(format!("definitions/{name}: takes fields that it does not name"));
        }
    }
    for (path, description) in &described {
        match comments.get(path) {
            None => wrong.push(format!("{path}: is not in values.yaml")),
            Some(comment) if comment.is_empty() => {
                wrong.push(format!("{path}: has no comment in values.yaml"));
            }
            Some(comment) if comment != description => wrong.push(format!(
                "{path}: values.yaml says `{comment}`, and values.schema.json `{description}`"
            )),
            Some(_) => {}
        }
    }
    // What is in a free map, such as resources, is not ours to describe.
    let is_ours = |path: &str| match path.rsplit_once('.') {
        Some((parent, _)) => is_closed(schema, parent),
        None => true,
    };
    for path in comments.keys().filter(|path| !described.contains_key(*path)) {
        if is_ours(path) {
            wrong.push(format!("{path}: is not in values.schema.json"));
        }
    }
    wrong
}

/// The descriptions of all values below, each by its path. Shapes that a value refers to are described once, in `definitions`.
fn walk(object: &Value, prefix: &str, described: &mut BTreeMap<String, String>, wrong: &mut Vec<String>) {
    if object["additionalProperties"] != false {
        let path = prefix.trim_end_matches('.');
        wrong.push(format!("{path}: takes fields that it does not name"));
    }
    for (name, value) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        if path == OF_HELM {
            continue;
        }
        if value["properties"].is_object() {
            walk(value, &format!("{path}."), described, wrong);
        }
        let description = value["description"].as_str().unwrap_or_default();
        described.insert(path, description.to_owned());
    }
}

/// Whether the schema names every field of the value.
fn is_closed(schema: &Value, path: &str) -> bool {
    let mut at = schema;
    for name in path.split('.') {
        at = &at["properties"][name];
    }
    at["properties"].is_object()
}

/// The comment right above each key, in one line, by the key's path.
fn comments(values: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut path: Vec<&str> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in values.lines() {
        let text = line.trim_start();
        let depth = (line.len() - text.len()) / 2;
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let key = text.split_once(':').map(|(key, _)| key);
        let key = key.filter(|key| !key.is_empty() && key.chars().all(char::is_alphanumeric));
        if let Some(key) = key {
            path.truncate(depth);
            path.push(key);
            found.insert(path.join("."), comment.join(" "));
        }
        comment.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use harness::chart;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_of_the_chart_is_described_in_its_schema_as_in_its_file() {
        check(&chart::directory()).unwrap();
    }

    fn schema() -> Value {
        json!({
            "additionalProperties": false,
            "properties": {
                "global": {},
                "one": { "description": "The first." },
                "part": {
                    "description": "A part.",
                    "additionalProperties": false,
                    "properties": { "inner": { "description": "Two lines of comment." } },
                },
                "free": { "description": "Anybody's.", "$ref": "#/definitions/map" },
            },
            "definitions": { "map": { "description": "A map." } },
        })
    }

    const VALUES: &str = "# Not of a value.\n\n# The first.\none: 1\n# A part.\npart:\n  # Two lines\n  # of comment.\n  inner: {}\n\
        # Anybody's.\nfree:\n  cpu: 1\n  list:\n    - key: x\n";

    #[test]
    fn what_is_the_same_in_both_is_right() {
        assert_eq!(differences(VALUES, &schema()), [""; 0]);
    }

    #[test]
    fn each_difference_is_told_by_the_path_of_its_value() {
        let changed = |from: &str, to: &str| differences(&VALUES.replace(from, to), &schema());
        assert_eq!(
            changed("# The first.", "# The 1st."),
            ["one: values.yaml says `The 1st.`, and values.schema.json `The first.`"]
        );
        assert_eq!(
            changed("# The first.\n", ""),
            ["one: has no comment in values.yaml"]
        );
        assert_eq!(
            changed("  inner: {}", "  other: {}"),
            [
                "part.inner: is not in values.yaml",
                "part.other: is not in values.schema.json"
            ]
        );
        let mut open = schema();
        open["properties"]["part"]["additionalProperties"] = json!(true);
        open["definitions"]["map"] = json!({ "properties": {} });
        assert_eq!(
            differences(VALUES, &open),
            [
                "part: takes fields that it does not name",
                "definitions/map: has no description in values.schema.json",
                "definitions/map: takes fields that it does not name",
            ]
        );
    }
}
