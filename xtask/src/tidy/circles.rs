//! Which modules of a room import each other in a circle. Rust allows that; a reader can no longer open such files in one
//! direction.
//!
//! A module imports the one that *defines* what it names: a re-export is followed, and is no import of the module that it
//! stands in. Tests import what they like. Names that a macro makes, and methods, are not seen.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::source::File;

/// From the root of the crate.
pub(super) type Path = Vec<String>;

/// Who imports whom, and by which line.
pub(super) type Imports = BTreeMap<Path, BTreeMap<Path, usize>>;

/// The sources whose modules are looked at, and whether each top-level folder there is a room of its own.
const CRATES: [(&str, bool); 2] = [("sidecar-user/src/", true), ("sidecar-ebpf/src/", false)];

/// Re-exports of re-exports of …
const DEEPEST: usize = 8;

/// One circle, as lines that say who imports whom. There is one for each set of modules that reach each other.
pub(super) fn find(files: &[File]) -> Vec<String> {
    CRATES
        .iter()
        .flat_map(|(root, rooms)| circles(&modules(files, root), *rooms))
        .collect()
}

/// Imports inside the rooms of the first crate, and the file of each module.
pub(super) fn imports_in_rooms(files: &[File]) -> (Imports, BTreeMap<Path, &str>) {
    let modules = modules(files, CRATES[0].0);
    let names = modules.iter().map(|(at, module)| (at.clone(), module.file));
    (imports(&modules, true), names.collect())
}

/// What one file says.
#[derive(Default)]
struct Module<'f> {
    file: &'f str,
    /// Names that it gives to something else, by a `use` of any visibility.
    aliases: BTreeMap<String, Path>,
    /// Modules all of whose names it gives on.
    globs: Vec<Path>,
    /// Names that it defines.
    items: BTreeSet<String>,
    /// Paths that its code names, and their lines. Those of re-exports are not here.
    paths: Vec<(Path, usize)>,
    /// First words of the paths in its code, with their lines: perhaps names that it also gives on.
    words: BTreeMap<String, usize>,
    /// Names that it has from other crates.
    foreign: BTreeSet<String>,
}

fn modules<'f>(files: &'f [File], root: &str) -> BTreeMap<Path, Module<'f>> {
    let of_crate = files
        .iter()
        .filter(|file| file.path.starts_with(root) && file.is_rust() && !file.is_test(1));
    let mut modules: BTreeMap<Path, Module> = of_crate
        .map(|file| {
            let module = Module {
                file: &file.path,
                ..Module::default()
            };
            (path_of(&file.path[root.len()..]), module)
        })
        .collect();
    let known: BTreeSet<Path> = modules.keys().cloned().collect();
    for file in files.iter().filter(|file| file.path.starts_with(root)) {
        let at = path_of(file.path.get(root.len()..).unwrap_or_default());
        let Some(module) = modules.get_mut(&at).filter(|module| module.file == file.path) else {
            continue;
        };
        if let Ok(parsed) = syn::parse_file(&file.text) {
            let mut reader = Reader {
                known: &known,
                at,
                file,
                inline: 0,
                module,
            };
            reader.visit_file(&parsed);
        }
    }
    modules
}

/// `proxy/shard/held.rs` and `proxy/mod.rs` as paths. The roots of a library and its program are modules of their own.
fn path_of(file: &str) -> Path {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod");
    match stem {
        "lib" => Vec::new(),
        _ => stem.split('/').map(str::to_owned).collect(),
    }
}

struct Reader<'r, 'f> {
    known: &'r BTreeSet<Path>,
    at: Path,
    file: &'r File,
    /// How many modules in the same file are open.
    inline: usize,
    module: &'r mut Module<'f>,
}

impl Reader<'_, '_> {
    /// The path from the crate's root, if it is one of the crate.
    fn absolute(&self, path: &[String]) -> Option<Path> {
        let mut base = self.at.clone();
        let (mut rest, mut inline) = (path, self.inline);
        match path.first()?.as_str() {
            "crate" => return Some(path[1..].to_vec()),
            "self" | "super" => {
                while let Some(first) = rest.first().filter(|s| matches!(s.as_str(), "self" | "super")) {
                    if first == "super" {
                        match inline {
                            0 => drop(base.pop()?),
                            _ => inline -= 1,
                        }
                    }
                    rest = &rest[1..];
                }
                // A module in the same file.
                (inline == 0).then_some(())?;
            }
            child => {
                base.push(child.to_owned());
                self.known.contains(&base).then_some(())?;
                rest = &path[1..];
            }
        }
        base.extend_from_slice(if path[0] == "self" || path[0] == "super" {
            rest
        } else {
            &path[1..]
        });
        Some(base)
    }

    fn names(&mut self, path: &[String], line: usize) {
        if let Some(path) = self.absolute(path) {
            self.module.paths.push((path, line));
        }
    }

    fn import(&mut self, tree: &syn::UseTree, before: &mut Path, reexport: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before, reexport);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, reexport);
                }
            }
            syn::UseTree::Name(name) => self.alias(&name.ident, &name.ident, before, reexport),
            syn::UseTree::Rename(name) => self.alias(&name.ident, &name.rename, before, reexport),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                if let Some(path) = self.absolute(before) {
                    self.module.globs.push(path.clone());
                    if !reexport {
                        self.module.paths.push((path, line));
                    }
                }
            }
        }
    }

    fn alias(&mut self, ident: &syn::Ident, name: &syn::Ident, before: &Path, reexport: bool) {
        let mut path = before.clone();
        let mut name = name.to_string();
        if ident == "self" {
            name = match name.as_str() {
                "self" => before.last().cloned().unwrap_or_default(),
                _ => name,
            };
        } else {
            path.push(ident.to_string());
        }
        let Some(path) = self.absolute(&path) else {
            self.module.foreign.insert(name);
            return;
        };
        if self.inline == 0 {
            self.module.aliases.insert(name, path.clone());
        }
        if !reexport {
            self.module.paths.push((path, ident.span().start().line));
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Path::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.names(&std::mem::take(&mut path), line);
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.names(&std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.names(&path, line);
    }
}

impl<'ast> Visit<'ast> for Reader<'_, '_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if self.inline == 0 {
            self.module.items.extend(name_of(item));
        }
        if let Some(span) = span_of(item)
            && self.file.is_test(span.start().line)
        {
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.inline += 1;
        visit::visit_item_mod(self, item);
        self.inline -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let reexport = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, &mut Path::new(), reexport);
    }

    /// `pub(in super::super)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Path = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |s| s.ident.span().start().line);
        if let Some(first) = names.first().filter(|_| self.inline == 0) {
            self.module.words.entry(first.clone()).or_insert(line);
        }
        if names.len() > 1 && path.leading_colon.is_none() {
            self.names(&names, line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Of the word that begins the item, below its attributes.
fn span_of(item: &syn::Item) -> Option<proc_macro2::Span> {
    Some(match item {
        syn::Item::Use(item) => item.use_token.span,
        syn::Item::Mod(item) => item.mod_token.span,
        syn::Item::Fn(item) => item.sig.fn_token.span,
        syn::Item::Impl(item) => item.impl_token.span,
        syn::Item::Struct(item) => item.struct_token.span,
        syn::Item::Const(item) => item.const_token.span,
        _ => return None,
    })
}

/// The module that defines what a path names.
fn definer(modules: &BTreeMap<Path, Module>, path: &[String], depth: usize) -> Option<Path> {
    let length = (0..=path.len())
        .rev()
        .find(|n| modules.contains_key(&path[..*n]))?;
    let (at, rest) = path.split_at(length);
    let module = &modules[at];
    let Some(name) = rest.first().filter(|_| depth > 0) else {
        return Some(at.to_vec());
    };
    if module.items.contains(name) {
        return Some(at.to_vec());
    }
    if let Some(alias) = module.aliases.get(name) {
        let whole: Path = alias.iter().chain(&rest[1..]).cloned().collect();
        return definer(modules, &whole, depth - 1);
    }
    let by_glob = module.globs.iter().find_map(|glob| {
        let whole: Path = glob.iter().chain(rest).cloned().collect();
        definer(modules, &whole, depth - 1).filter(|found| modules[found].items.contains(name))
    });
    Some(by_glob.unwrap_or_else(|| at.to_vec()))
}

/// Who imports whom inside a room, and by which line.
fn imports(modules: &BTreeMap<Path, Module>, rooms: bool) -> Imports {
    let mut imports = Imports::new();
    for (at, module) in modules {
        let edges = imports.entry(at.clone()).or_default();
        let words = module
            .words
            .iter()
            .filter(|(word, _)| !module.foreign.contains(*word));
        let used = words.filter_map(|(word, line)| Some((module.aliases.get(word)?, line)));
        for (path, line) in module.paths.iter().map(|(path, line)| (path, line)).chain(used) {
            let Some(to) = definer(modules, path, DEEPEST).filter(|to| to != at) else {
                continue;
            };
            if !rooms || (!at.is_empty() && to.first() == at.first()) {
                edges.entry(to).or_insert(*line);
            }
        }
    }
    imports
}

fn circles(modules: &BTreeMap<Path, Module>, rooms: bool) -> Vec<String> {
    let imports = imports(modules, rooms);
    let mut told: BTreeSet<Path> = BTreeSet::new();
    let mut found = Vec::new();
    for start in imports.keys() {
        if told.contains(start) {
            continue;
        }
        if let Some(circle) = shortest(&imports, start) {
            told.extend(circle.iter().cloned());
            let steps = circle.iter().zip(circle.iter().cycle().skip(1));
            let lines = steps.map(|(a, b)| {
                let line = imports[a][b];
                format!("{}:{line}: imports {}", modules[a].file, modules[b].file)
            });
            found.push(lines.collect::<Vec<_>>().join("\n"));
        }
    }
    found
}

/// The shortest way from a module back to itself.
fn shortest(imports: &Imports, start: &Path) -> Option<Vec<Path>> {
    let mut from: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut next = vec![start];
    while !next.is_empty() {
        for at in std::mem::take(&mut next) {
            for to in imports.get(at).into_iter().flat_map(BTreeMap::keys) {
                if to == start {
                    let mut circle = vec![at.clone()];
                    let mut back = at;
                    while back != start {
                        back = from[back];
                        circle.push(back.clone());
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if !from.contains_key(to) {
                    from.insert(to, at);
                    next.push(to);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of a room `a`.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files
            .iter()
            .map(|(path, text)| File::new(&format!("sidecar-user/src/a/{path}"), text))
            .collect();
        find(&files)
    }

    #[test]
    fn a_circle_is_told_with_the_lines_that_make_it() {
        let found = found(&[
            ("mod.rs", "mod b;\nmod c;\nmod d;\n"),
            ("b.rs", "use super::c::C;\nstruct B;"),
            ("c.rs", "struct C;\nfn f() -> crate::a::d::D {}"),
            ("d.rs", "fn f() { matches!(x, super::b::B) }\nstruct D;"),
        ]);
        assert_eq!(
            found,
            ["sidecar-user/src/a/b.rs:1: imports sidecar-user/src/a/c.rs\n\
              sidecar-user/src/a/c.rs:2: imports sidecar-user/src/a/d.rs\n\
              sidecar-user/src/a/d.rs:1: imports sidecar-user/src/a/b.rs"]
        );
    }

    #[test]
    fn a_parent_and_its_child_make_one_too() {
        let found = found(&[
            ("mod.rs", "mod b;\nuse b::B;\nstruct A;"),
            ("b.rs", "use super::A;\nstruct B;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn an_import_is_of_the_module_that_defines_the_name() {
        for root in [
            "mod b;\nmod c;\npub(crate) use c::C;",
            "mod b;\nmod c;\npub use self::c::{C as C};",
            "mod b;\nmod c;\npub use c::*;",
        ] {
            let good = [
                ("mod.rs", root),
                ("b.rs", "use super::C;\npub struct B;"),
                ("c.rs", "pub struct C;"),
            ];
            assert!(found(&good).is_empty(), "{root}");
            let bad = [
                ("mod.rs", root),
                ("b.rs", "use super::C;\npub struct B;"),
                ("c.rs", "use super::b::B;\npub struct C;"),
            ];
            assert_eq!(found(&bad).len(), 1, "{root}");
        }
    }

    #[test]
    fn tests_and_other_rooms_are_not_looked_at() {
        let found = found(&[
            ("mod.rs", "mod b;\nuse b::B;\nstruct A;\n#[cfg(test)]\nmod t;"),
            (
                "b.rs",
                "use crate::z::Z;\nstruct B;\n#[cfg(test)]\nmod tests {\n    use super::super::A;\n}",
            ),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
