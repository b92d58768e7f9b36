//! Text to tree: parser events become nodes with positions. Interprets no value.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::problem::{Position, Problem};

#[derive(Debug)]
pub struct Node {
    pub at: Position,
    /// `Exact` for `!Exact "v"`; YAML's own tags (`!!str`) are left out.
    pub tag: Option<String>,
    pub kind: Kind,
    /// Nodes in this subtree with aliases followed, so what a walk over it costs.
    size: usize,
}

#[derive(Debug)]
pub enum Kind {
    /// `plain`: written without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Rc<Node>>),
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

/// A registry of 100,000 workloads has about 3 million nodes. Aliases share memory, but a walk follows them, so
/// a short text of nested aliases could otherwise keep the proxy busy for years.
const MAX_NODES: usize = 8_000_000;
const MAX_BYTES: usize = 256 << 20;

/// Reads exactly one document. An empty text is an empty map.
pub fn load(text: &str) -> Result<Node, Problem> {
    if text.len() > MAX_BYTES {
        return Err(too_large());
    }
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_problem(&error))?;
        loader.event(event, span.start)?;
    }
    Ok(loader.finish())
}

impl Node {
    fn new(at: Position, tag: Option<String>, kind: Kind) -> Self {
        let size = match &kind {
            Kind::Scalar { .. } => 1,
            Kind::List(items) => items
                .iter()
                .fold(1, |sum: usize, item| sum.saturating_add(item.size)),
            Kind::Map(entries) => entries.iter().fold(1, |sum: usize, (key, value)| {
                sum.saturating_add(key.size).saturating_add(value.size)
            }),
        };
        Self { at, tag, kind, size }
    }

    /// `~`, `null`, or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if self.tag.is_none() && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a single value",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Reads all documents of a text, those that are empty as null.
pub fn load_all(text: &str) -> Result<Vec<Node>, Problem> {
    if text.len() > MAX_BYTES {
        return Err(too_large());
    }
    let mut loader = Loader {
        takes_many: true,
        ..Loader::default()
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_problem(&error))?;
        loader.event(event, span.start)?;
    }
    Ok(loader.documents.into_iter().filter_map(Rc::into_inner).collect())
}

/// Builds bottom-up with an explicit stack: the depth of the document is never the depth of our calls.
#[derive(Default)]
struct Loader {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    /// One document may follow another.
    takes_many: bool,
    documents: Vec<Rc<Node>>,
}

struct Open {
    at: Position,
    tag: Option<String>,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Rc<Node>>),
    Map {
        entries: Vec<(Rc<Node>, Rc<Node>)>,
        /// Waits for its value.
        key: Option<Rc<Node>>,
    },
}

impl Loader {
    fn event(&mut self, event: Event<'_>, at: Marker) -> Result<(), Problem> {
        let at = position(at);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                self.complete(Rc::new(Node::new(at, custom(tag.as_deref()), kind)), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(at, tag.as_deref(), anchor, Items::List(Vec::new()));
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                let items = Items::Map {
                    entries: Vec::new(),
                    key: None,
                };
                self.begin(at, tag.as_deref(), anchor, items);
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.complete(node, 0),
                // The anchor is still open: the value would hold itself.
                None => Err(Problem {
                    at: Some(at),
                    field: String::new(),
                    what: "an alias refers to a value that is around it".into(),
                    remedy: "write the value out".into(),
                }),
            },
            Event::DocumentEnd if self.takes_many => {
                self.anchors.clear();
                self.documents.extend(self.root.take());
                Ok(())
            }
            Event::DocumentStart(..) if self.root.is_some() => Err(Problem {
                at: Some(at),
                field: String::new(),
                what: "a second document begins".into(),
                remedy: "keep one document in a file: remove the `---` line and what follows it".into(),
            }),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Position, tag: Option<&Tag>, anchor: usize, items: Items) {
        self.open.push(Open {
            at,
            tag: custom(tag),
            anchor,
            items,
        });
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let kind = match open.items {
            Items::List(items) => Kind::List(items),
            Items::Map { entries, .. } => Kind::Map(entries),
        };
        self.complete(Rc::new(Node::new(open.at, open.tag, kind)), open.anchor)
    }

    fn complete(&mut self, node: Rc<Node>, anchor: usize) -> Result<(), Problem> {
        if node.size > MAX_NODES {
            return Err(Problem {
                at: Some(node.at),
                field: String::new(),
                what: format!("more than {MAX_NODES} values, with aliases followed"),
                remedy: "use fewer aliases, or split the file".into(),
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, key }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }

    fn finish(mut self) -> Node {
        self.anchors.clear();
        let root = self.root.and_then(|root| Rc::try_unwrap(root).ok());
        let start = Position { line: 1, column: 1 };
        match root {
            Some(root) if !root.is_null() => root,
            _ => Node::new(start, None, Kind::Map(Vec::new())),
        }
    }
}

fn custom(tag: Option<&Tag>) -> Option<String> {
    let tag = tag?;
    (!tag.is_yaml_core_schema()).then(|| match tag.handle() {
        "!" => tag.suffix().to_owned(),
        _ => tag.original(),
    })
}

fn position(mark: Marker) -> Position {
    Position {
        line: mark.line(),
        column: mark.col() + 1,
    }
}

fn scan_problem(error: &ScanError) -> Problem {
    Problem {
        at: Some(position(*error.marker())),
        field: String::new(),
        what: format!("this is not YAML: {}", error.info()),
        remedy: "check indentation, quotes and brackets here and on the line before".into(),
    }
}

fn too_large() -> Problem {
    Problem {
        at: None,
        field: String::new(),
        what: "the document is larger than 256 MiB".into(),
        remedy: "split it, or use another source".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_tags_and_quotes_are_kept() {
        let root = load("a:\n  - !Exact \"v\"\n  - 5\n").unwrap();
        let Kind::Map(entries) = &root.kind else { panic!() };
        let Kind::List(items) = &entries[0].1.kind else {
            panic!()
        };
        assert_eq!(items[0].tag.as_deref(), Some("Exact"));
        assert!(matches!(&items[0].kind, Kind::Scalar { text, plain: false } if text == "v"));
        assert_eq!(items[1].at, Position { line: 3, column: 5 });
        assert!(matches!(&items[1].kind, Kind::Scalar { text, plain: true } if text == "5"));
    }

    #[test]
    fn an_alias_bomb_is_refused_quickly() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let previous = vec![format!("*a{}", n - 1); 10].join(", ");
            text += &format!("a{n}: &a{n} [{previous}]\n");
        }
        let error = load(&text).unwrap_err();
        assert!(error.what.contains("aliases"), "{error}");
    }

    #[test]
    fn an_alias_is_its_anchor() {
        let root = load("a: &x {b: 1}\nc: *x\n").unwrap();
        let Kind::Map(entries) = &root.kind else { panic!() };
        assert!(Rc::ptr_eq(&entries[0].1, &entries[1].1));
    }

    #[test]
    fn a_value_that_holds_itself_is_refused() {
        assert!(load("a: &x [*x]").is_err());
    }

    #[test]
    fn broken_yaml_names_its_line() {
        let error = load("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.at.unwrap().line >= 2, "{error}");
    }

    #[test]
    fn depth_is_bounded() {
        assert!(load(&"[".repeat(100_000)).is_err());
        let nested: String = (0..5_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        assert!(load(&nested).is_err());
    }

    #[test]
    fn all_documents_are_read_where_many_are_asked_for() {
        let all = load_all("---\na: &x 1\n---\n# nothing\n---\n- b\n...\n").unwrap();
        let kinds: Vec<&str> = all.iter().map(Node::kind_name).collect();
        assert_eq!(kinds, ["a map", "nothing", "a list"]);
        assert_eq!(load_all("").unwrap().len(), 0);
        assert!(
            load_all("a: &x 1\n---\nb: *x\n").is_err(),
            "an anchor is its document's"
        );
    }

    #[test]
    fn two_documents_are_refused() {
        assert!(load("a: 1\n---\nb: 2\n").is_err());
        assert!(load("---\na: 1\n").is_ok());
    }
}
