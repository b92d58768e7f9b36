//! A map's layout and its version change together, map by map.
//!
//! What a map is made of is read from the sources: its declaration in `maps.rs`, and the definitions of all types and
//! constants that are named there, or in those definitions. Of a type's `impl` only the constants count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sidecar_ebpf::abi::map;
use sidecar_ebpf::abi::schema::{FROZEN, TOGETHER, VERSIONS, version};

/// Each map, the version of its layout, and the hash of what it is made of.
const RELEASED: [(&str, u32, u64); map::ALL.len()] = [
    ("or_origin", 1, 0xab3fa3784334e661),
    ("or_pending", 2, 0x9e858538257d5885),
    ("or_presented", 2, 0x30060c769bd5bf44),
    ("or_bypass", 1, 0xf71571da9228a233),
    ("or_watched", 1, 0x0007e33efbec4647),
    ("or_listeners", 3, 0xd7460303cf81ec17),
    ("or_app_ports", 5, 0x3d79f2a883b8837d),
    ("or_app_sockets", 2, 0xa0ce13ffb4a35627),
    ("or_inherited", 4, 0xc7141f07a213f072),
    ("or_policy", 2, 0xc404fecbfd1705c6),
    ("or_routes", 1, 0x67a6ef10c2ecd6b8),
    ("or_rings", 2, 0x41f258d253eb21a5),
    ("or_settings", 4, 0x699aa1f355d54397),
    ("or_counters", 2, 0x01bed34c72a02806),
    ("or_secret", 1, 0xf9eb8b66a97775de),
    ("or_answers", 1, 0xed965e427072defe),
    ("or_host", 1, 0x8f23c32ee18519ef),
    ("or_probes", 1, 0xc1eae5fc464a5305),
];

/// What is in the map although its declaration does not say so: the kernel wants no type of a ring's records.
const UNTYPED: [(&str, &str); 2] = [(map::RINGS, "Event"), (map::RINGS, "LeftAlone")];

#[test]
fn a_change_of_a_map_asks_for_a_new_version_of_that_map_and_of_no_other() {
    let sources = Sources::read();
    let now = VERSIONS.map(|(name, version)| (name, version, fnv1a(&sources.layout(name))));
    let changed: Vec<String> = now
        .iter()
        .filter(|entry| !RELEASED.contains(entry))
        .map(|(name, version, hash)| format!("    (\"{name}\", {version}, {hash:#018x}),\n"))
        .collect();
    assert!(
        changed.is_empty(),
        "raise the versions of these maps in abi/schema.rs, unless they have risen since the last release or only the \
         words have changed; then write here\n{}",
        changed.concat()
    );
}

#[test]
fn every_map_has_a_version() {
    assert_eq!(VERSIONS.map(|(name, _)| name), map::ALL);
    for name in TOGETHER.concat() {
        assert!(map::ALL.contains(&name), "{name}");
    }
}

#[test]
fn the_layout_of_some_maps_never_changes() {
    for name in FROZEN {
        assert_eq!(
            version(name),
            1,
            "leave {name} as it was, and add another map for what is new"
        );
    }
}

#[test]
fn what_a_map_is_made_of_is_found_through_types_and_constants() {
    let text = "\
/// A comment.
#[btf_map(name = \"or_a\")]
static A: HashMap<Key, u32, ENTRIES> = HashMap::new();

#[btf_map(name = \"or_b\")]
pub(crate) static B: Array<Other, 1> = Array::new();

pub const ENTRIES: usize = 2 * HALF;
const HALF: usize = 8;

#[derive(Clone)]
pub struct Key {
    /// A field.
    pub role: Role,
}

pub struct Role(u8);

impl Role {
    pub const CLIENT: Self = Self(1);

    pub const fn get(self) -> u8 {
        self.0
    }
}

pub struct Other {
    pub on: u32,
}
";
    let layout = |text: &str, name| Sources::of(text).layout(name);
    let (a, b) = (layout(text, "or_a"), layout(text, "or_b"));
    let changes_of_a = [
        ("2 * HALF", "3 * HALF"),
        ("usize = 8", "usize = 9"),
        ("pub role: Role", "pub role: Role, pub more: u8"),
        ("Self(1)", "Self(2)"),
        ("Role(u8)", "Role(u16)"),
        ("HashMap<Key", "LruHashMap<Key"),
    ];
    for (from, to) in changes_of_a {
        let changed = text.replace(from, to);
        assert_ne!(layout(&changed, "or_a"), a, "{to}");
        assert_eq!(layout(&changed, "or_b"), b, "{to}");
    }
    for (from, to) in [
        ("A comment", "Another"),
        ("A field", "Another"),
        ("self.0", "0"),
        ("on: u32", "on: u64"),
    ] {
        assert_eq!(layout(&text.replace(from, to), "or_a"), a, "{to}");
    }
}

/// The items of the sources.
struct Sources {
    /// Map to its declaration, from its type on.
    maps: BTreeMap<String, String>,
    /// Type or constant to its definition.
    definitions: BTreeMap<String, String>,
}

impl Sources {
    fn read() -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files: Vec<_> = ["maps.rs", "abi.rs", "addr.rs"]
            .map(|file| directory.join(file))
            .into();
        let rooms = fs::read_dir(directory.join("abi")).expect("src/abi");
        files.extend(rooms.map(|entry| entry.expect("an entry").path()));
        let text: Vec<String> = files
            .iter()
            .map(|file| fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
            .collect();
        Self::of(&text.concat())
    }

    fn of(text: &str) -> Self {
        let (mut maps, mut definitions) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        let mut name_of_map = None;
        for item in items(text) {
            let first = item.lines().next().unwrap_or_default();
            if let Some(rest) = first.strip_prefix("#[btf_map(name = \"") {
                name_of_map = rest.split('"').next().map(str::to_owned);
                continue;
            }
            let mut words = words(first).filter(|word| !["pub", "crate", "super"].contains(word));
            match (words.next(), words.next()) {
                (Some("static"), Some(_)) => {
                    if let (Some(name), Some((_, made_of))) = (name_of_map.take(), item.split_once(':')) {
                        maps.insert(name, made_of.to_owned());
                    }
                }
                (Some("struct" | "const" | "type"), Some(name)) => {
                    definitions.entry(name.to_owned()).or_default().push_str(&item);
                }
                (Some("impl"), Some(name)) => {
                    definitions
                        .entry(name.to_owned())
                        .or_default()
                        .push_str(&constants(&item));
                }
                _ => {}
            }
        }
        Self { maps, definitions }
    }

    /// All that a map is made of, as text.
    fn layout(&self, name: &str) -> String {
        let declaration = self
            .maps
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in maps.rs"));
        let untyped = UNTYPED
            .iter()
            .filter(|(untyped, _)| *untyped == name)
            .map(|(_, record)| *record);
        let mut wanted: Vec<&str> = words(declaration).chain(untyped).collect();
        let mut found = BTreeSet::new();
        while let Some(word) = wanted.pop() {
            if let Some((name, definition)) = self.definitions.get_key_value(word)
                && found.insert(name)
            {
                wanted.extend(words(definition));
            }
        }
        let definitions = found.into_iter().map(|name| self.definitions[name].as_str());
        [declaration.as_str()].into_iter().chain(definitions).collect()
    }
}

/// Top-level items, and their attributes as items of their own, without comments and indentation. In a formatted file an
/// item ends with the first line that is not indented and ends with a brace or a semicolon.
fn items(text: &str) -> Vec<String> {
    let (mut items, mut item) = (Vec::new(), String::new());
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//") && !line.trim().is_empty())
    {
        item.push_str(line.trim());
        item.push('\n');
        if !line.starts_with(' ') && line.ends_with(['}', ';', ']']) {
            items.push(std::mem::take(&mut item));
        }
    }
    items
}

/// The constants of an `impl`.
fn constants(item: &str) -> String {
    let (mut found, mut inside) = (String::new(), false);
    for line in item.lines() {
        inside |= line.starts_with("pub const ") && !line.starts_with("pub const fn ");
        if inside {
            found.push_str(line);
            found.push('\n');
            inside = !line.ends_with(';');
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
