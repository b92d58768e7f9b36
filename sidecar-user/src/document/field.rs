//! Typed reading of a tree. A wrong value becomes a problem and `None`, and reading goes on.

use std::cell::RefCell;
use std::str::FromStr;

use super::problem::{Position, Problem};
use super::tree::{Kind, Node};

/// Where readers leave what they find wrong.
#[derive(Debug, Default)]
pub struct Sink(RefCell<Vec<Problem>>);

/// A value with the path that leads to it.
#[derive(Clone)]
pub struct Field<'d> {
    node: &'d Node,
    path: String,
    sink: &'d Sink,
}

/// A map whose keys are a fixed set of names.
pub struct Object<'d> {
    field: Field<'d>,
    entries: Vec<(&'d str, &'d Node)>,
}

impl Sink {
    pub fn push(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

impl<'d> Field<'d> {
    pub fn root(node: &'d Node, sink: &'d Sink) -> Self {
        Self {
            node,
            path: String::new(),
            sink,
        }
    }

    pub fn at(&self) -> Position {
        self.node.at
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name of the `!Tag` before the value.
    pub fn tag(&self) -> Option<&'d str> {
        self.node.tag.as_deref()
    }

    pub fn is_null(&self) -> bool {
        self.node.is_null()
    }

    /// Null, an empty text or an empty collection, whatever its tag.
    pub fn is_nothing(&self) -> bool {
        match &self.node.kind {
            Kind::Scalar { text, .. } => matches!(text.as_str(), "" | "~" | "null"),
            Kind::List(items) => items.is_empty(),
            Kind::Map(entries) => entries.is_empty(),
        }
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    pub fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    pub fn problem(&self, what: impl Into<String>, remedy: impl Into<String>) {
        self.sink.push(Problem {
            at: Some(self.node.at),
            field: self.path.clone(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    /// A map with no keys but these. Each key may stand once; a null value is as good as none.
    pub fn object(&self, known: &[&str]) -> Option<Object<'d>> {
        let mut entries: Vec<(&'d str, &'d Node)> = Vec::new();
        for (key, value) in self.entries("a map")? {
            let Some(name) = key.text() else { continue };
            if !known.contains(&name) {
                let remedy = match nearest(name, known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                key.problem("unknown field", remedy);
            } else if !value.node.is_null() {
                entries.push((name, value.node));
            }
        }
        Some(Object {
            field: self.clone(),
            entries,
        })
    }

    /// A map with free keys, as (key, value). Equal keys are a problem.
    pub fn entries(&self, wanted: &str) -> Option<Vec<(Field<'d>, Field<'d>)>> {
        if !self.untagged(wanted) {
            return None;
        }
        let Kind::Map(entries) = &self.node.kind else {
            self.mismatch(wanted);
            return None;
        };
        let mut seen = std::collections::HashSet::new();
        let mut fields = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let name = match &key.kind {
                Kind::Scalar { text, .. } => text.as_str(),
                _ => "",
            };
            let key = self.below(key, &join(&self.path, name));
            if !seen.insert(name) {
                key.problem("the key stands here a second time", "keep one of them");
                continue;
            }
            let value = self.below(value, &key.path);
            fields.push((key, value));
        }
        Some(fields)
    }

    pub fn list(&self, wanted: &str) -> Option<Vec<Field<'d>>> {
        if !self.untagged(wanted) {
            return None;
        }
        let Kind::List(items) = &self.node.kind else {
            self.mismatch(wanted);
            return None;
        };
        let path = |n| format!("{}[{n}]", self.path);
        Some(
            items
                .iter()
                .enumerate()
                .map(|(n, item)| self.below(item, &path(n)))
                .collect(),
        )
    }

    /// A single value as it was written, quoted or not.
    pub fn text(&self) -> Option<&'d str> {
        self.untagged("a single value").then(|| self.scalar()).flatten()
    }

    /// As `text`, whatever tag stands before it.
    pub fn scalar(&self) -> Option<&'d str> {
        match &self.node.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => {
                self.mismatch("a single value");
                None
            }
        }
    }

    pub fn parse<T: FromStr>(&self, what: &str, remedy: &str) -> Option<T> {
        let text = self.text()?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(format!("`{}` is no {what}", shorten(text)), remedy);
        }
        value
    }

    pub fn bool(&self) -> Option<bool> {
        self.one_of(&[("true", true), ("false", false)])
    }

    /// One of a few fixed words, spelt exactly.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let remedy = match nearest(text, &names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write one of {}", names.join(", ")),
            };
            self.problem(format!("`{}` is not known here", shorten(text)), remedy);
        }
        found
    }

    fn below(&self, node: &'d Node, path: &str) -> Field<'d> {
        Field {
            node,
            path: path.to_owned(),
            sink: self.sink,
        }
    }

    fn untagged(&self, wanted: &str) -> bool {
        if let Some(tag) = &self.node.tag {
            self.problem(
                format!("the tag `!{tag}` has no meaning here"),
                format!("write {wanted} without it"),
            );
        }
        self.node.tag.is_none()
    }

    fn mismatch(&self, wanted: &str) {
        self.problem(
            format!("{} stands here", self.node.kind_name()),
            format!("write {wanted}"),
        );
    }
}

impl<'d> Object<'d> {
    pub fn field(&self) -> &Field<'d> {
        &self.field
    }

    pub fn get(&self, name: &str) -> Option<Field<'d>> {
        let (name, node) = self.entries.iter().find(|(key, _)| *key == name)?;
        Some(self.field.below(node, &join(&self.field.path, name)))
    }

    pub fn require(&self, name: &str, remedy: &str) -> Option<Field<'d>> {
        let field = self.get(name);
        if field.is_none() {
            self.field.problem(format!("`{name}` is missing"), remedy);
        }
        field
    }

    /// A single value, or the empty text.
    pub fn text_or_empty(&self, name: &str) -> &'d str {
        self.get(name).and_then(|field| field.text()).unwrap_or_default()
    }

    /// Every item of a list that may be absent, read by `read`; what it refuses is left out.
    pub fn list_of<T>(&self, name: &str, wanted: &str, read: impl FnMut(Field<'d>) -> Option<T>) -> Vec<T> {
        let items = self.get(name).and_then(|field| field.list(wanted));
        items.unwrap_or_default().into_iter().filter_map(read).collect()
    }
}

/// The candidate that `word` is most likely a slip of: other case, or at most a third of it mistyped.
pub fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let lower = word.to_lowercase();
    // A long unknown word is no slip, and the distance of long words is dear to compute.
    if lower.len() > 64 {
        return None;
    }
    candidates
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn join(path: &str, name: &str) -> String {
    let name = shorten(name);
    match (path, name.contains(['.', '/', '[', ' '])) {
        ("", false) => name,
        (_, false) => format!("{path}.{name}"),
        (_, true) => format!("{path}[\"{name}\"]"),
    }
}

/// Enough of a value to recognise it by, on one line.
fn shorten(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() || short.contains(char::is_control) {
        return format!("{}…", short.escape_debug());
    }
    short
}

#[cfg(test)]
mod tests {
    use super::super::tree::load;
    use super::*;

    fn problems(text: &str, read: impl FnOnce(Field<'_>)) -> Vec<String> {
        let node = load(text).unwrap();
        let sink = Sink::default();
        read(Field::root(&node, &sink));
        sink.into_inner().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_unknown_field_names_the_nearest_known_one() {
        let found = problems("a: 1\nprotocl: x\n", |root| {
            root.object(&["a", "protocol"]);
        });
        assert_eq!(found, ["2:1: `protocl`: unknown field; did you mean `protocol`?"]);
    }

    #[test]
    fn a_field_unlike_any_other_gets_the_list() {
        let found = problems("zebra: x\n", |root| {
            root.object(&["name", "ports"]);
        });
        assert_eq!(found, ["1:1: `zebra`: unknown field; known here: name, ports"]);
    }

    #[test]
    fn a_key_that_stands_twice_is_a_problem() {
        let found = problems("a: 1\na: 2\n", |root| {
            root.object(&["a"]);
        });
        assert_eq!(
            found,
            ["2:1: `a`: the key stands here a second time; keep one of them"]
        );
    }

    #[test]
    fn reading_goes_on_after_a_problem() {
        let found = problems("ports: [x, 80, y]\n", |root| {
            let object = root.object(&["ports"]).unwrap();
            let ports = object.list_of("ports", "a list", |field| {
                field.parse::<u16>("port", "write 1 to 65535")
            });
            assert_eq!(ports, [80]);
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[1].starts_with("1:16: `ports[2]`: `y` is no port"),
            "{found:?}"
        );
    }

    #[test]
    fn words_are_exact_but_other_case_is_recognised() {
        let found = problems("hbone", |root| {
            assert_eq!(root.one_of(&[("TCP", 0), ("HBONE", 1)]), None);
        });
        assert!(found[0].ends_with("did you mean `HBONE`?"), "{found:?}");
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
