//! The answers of several agents as one. Each is a list of its own node, so nothing is in two of them.

use serde_json::{Map, Value};

/// `truncated` where one is; the lists of all, in the order of `by` where they have that field.
pub(super) fn lists(bodies: &[String], lists: &[(&str, &str)]) -> serde_json::Result<Value> {
    let mut bodies = bodies.iter().map(|body| serde_json::from_str::<Value>(body));
    let mut all = bodies
        .next()
        .transpose()?
        .unwrap_or_else(|| Value::Object(Map::new()));
    for body in bodies {
        let mut body = body?;
        for (name, _) in lists {
            if let (Some(Value::Array(more)), Some(Value::Array(list))) =
                (body.get_mut(*name).map(Value::take), all.get_mut(*name))
            {
                list.extend(more);
            }
        }
        if body.get("truncated") == Some(&Value::Bool(true)) {
            all["truncated"] = Value::Bool(true);
        }
    }
    for (name, by) in lists {
        if let Some(Value::Array(list)) = all.get_mut(*name) {
            // Times of one form, so their order is that of their text.
            list.sort_by(|a, b| text(a, by).cmp(&text(b, by)));
        }
    }
    Ok(all)
}

fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

/// Of `/flows`.
pub(super) const FLOWS: [(&str, &str); 2] = [("open", "opened"), ("closed", "closed")];
/// Of `/pods`.
pub(super) const PODS: [(&str, &str); 1] = [("pods", "pod")];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_one_in_their_order_and_truncated_where_one_is() {
        let body = |open: &[&str], truncated: bool| {
            let open: Vec<Value> = open.iter().map(|at| json!({ "opened": at, "new": 1 })).collect();
            json!({ "open": open, "closed": [], "truncated": truncated, "more": 2 }).to_string()
        };
        let merged = lists(&[body(&["1", "4"], false), body(&["2"], true)], &FLOWS).unwrap();
        let opened: Vec<_> = merged["open"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flow| &flow["opened"])
            .collect();
        assert_eq!(opened, ["1", "2", "4"]);
        assert_eq!((&merged["truncated"], &merged["more"]), (&json!(true), &json!(2)));
        assert!(lists(&["no JSON".into()], &FLOWS).is_err());
    }
}
