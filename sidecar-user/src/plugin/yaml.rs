//! A JSON value as YAML. Writes only what every version of YAML reads alike: plain words that nothing else can be meant by,
//! and otherwise strings in double quotes, whose escapes YAML shares with JSON.

use serde_json::Value;

pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(_) | Value::Array(_) if !is_empty(value) => block(value, 0, &mut text),
        _ => {
            scalar(value, &mut text);
            text.push('\n');
        }
    }
    text
}

/// Each entry on lines of its own, the first of them where the text stands now.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = |text: &mut String, is_first: bool| {
        if !is_first {
            text.push_str(&"  ".repeat(depth));
        }
    };
    match value {
        Value::Object(fields) => {
            for (n, (key, value)) in fields.iter().enumerate() {
                indent(text, n == 0);
                string(key, text);
                text.push(':');
                // A list stands at the depth of its key.
                match value {
                    Value::Object(_) if !is_empty(value) => {
                        text.push('\n');
                        text.push_str(&"  ".repeat(depth + 1));
                        block(value, depth + 1, text);
                    }
                    Value::Array(_) if !is_empty(value) => {
                        text.push('\n');
                        text.push_str(&"  ".repeat(depth));
                        block(value, depth, text);
                    }
                    _ => {
                        text.push(' ');
                        scalar(value, text);
                        text.push('\n');
                    }
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                indent(text, n == 0);
                text.push_str("- ");
                match item {
                    Value::Object(_) | Value::Array(_) if !is_empty(item) => block(item, depth + 1, text),
                    _ => {
                        scalar(item, text);
                        text.push('\n');
                    }
                }
            }
        }
        _ => scalar(value, text),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value, text: &mut String) {
    match value {
        Value::String(word) => string(word, text),
        // Numbers, `true`, `null`, `{}` and `[]` are the same in both.
        other => text.push_str(&other.to_string()),
    }
}

fn string(word: &str, text: &mut String) {
    if is_plain(word) {
        text.push_str(word);
        return;
    }
    // JSON leaves characters as they are that YAML does not take for text.
    for c in Value::from(word).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
}

/// Words of letters that are not also a truth value, a null or a number of some version of YAML.
fn is_plain(word: &str) -> bool {
    const OTHERS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let mut chars = word.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
        && !OTHERS.iter().any(|other| other.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use granit_parser::{Event, Parser, ScalarStyle};
    use serde_json::json;

    /// What a YAML parser reads, by the rules of the core schema.
    fn read(text: &str) -> Value {
        let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0);
        let mut next = move || loop {
            match events.next().unwrap() {
                Event::StreamStart | Event::DocumentStart(..) => {}
                event => return event,
            }
        };
        let first = next();
        value(first, &mut next)
    }

    fn value<'i>(event: Event<'i>, next: &mut impl FnMut() -> Event<'i>) -> Value {
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => {
                serde_json::from_str(&text).unwrap_or_else(|_| Value::from(&*text))
            }
            Event::Scalar(text, ..) => Value::from(&*text),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match next() {
                        Event::SequenceEnd => return items.into(),
                        event => items.push(value(event, next)),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut fields = serde_json::Map::new();
                loop {
                    match next() {
                        Event::MappingEnd => return fields.into(),
                        Event::Scalar(key, ..) => {
                            let event = next();
                            fields.insert(key.to_string(), value(event, next));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_parser_reads_what_was_written() {
        let words = [
            "",
            "web",
            "no",
            "NULL",
            "0x1f",
            "1e3",
            "a: b",
            "- a",
            "#x",
            "a b",
            "\u{1b}[31m",
            "a\nb",
            "é\u{85}\u{2028}",
            "\"",
            "\\",
            "{",
            "*a",
            "&a",
            "!t",
            "%",
            "@",
            "spiffe://td/ns/a",
            "10.0.0.1:80",
            "~",
            "\u{feff}",
            ".inf",
        ];
        for value in [
            json!({"a": {"b": [1, 2.5, -3e-7, null, true], "c": {}, "d": []}, "e": [[1, [2]], {"f": [{"g": 1, "h": 2}]}]}),
            json!(words),
            json!([]),
            json!("web"),
            words
                .iter()
                .map(|word| (word.to_string(), json!(word)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        ] {
            let text = document(&value);
            assert_eq!(read(&text), value, "{text}");
            assert!(!text.contains('\u{1b}'), "it drives no terminal: {text:?}");
        }
    }

    #[test]
    fn lists_stand_as_people_write_them() {
        let value = json!({"edges": [{"a": 1, "b": ["x"]}, {"a": "2"}], "z": null});
        assert_eq!(
            document(&value),
            "edges:\n- a: 1\n  b:\n  - x\n- a: \"2\"\nz: null\n"
        );
    }
}
