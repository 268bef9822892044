//! The rules of the house that no compiler knows, checked on every source file: layers import downward only, files
//! and functions stay small, each power has one owner, nothing is left for later. `ARCHITECTURE.md` says why.
//!
//! All breaches are listed at once with file and line. The last test feeds each rule a file that breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A module may import those of lower layers, itself, and what `SIBLINGS` lists.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["error", "model", "util"]),
    (1, &["storage", "codec", "postgres", "wal", "config"]),
    (2, &["repository"]),
    (3, &["backup", "restore", "archive"]),
    (4, &["verify", "guard"]),
    (5, &["cli", "agent"]),
];
/// Imports within a layer, each with its reason. The plain words of layer 0 know each other.
const SIBLINGS: &[(&str, &str)] = &[
    // pg_control and timeline histories speak of WAL.
    ("postgres", "wal"),
    // `restore` serves `wal fetch` itself while recovery runs.
    ("restore", "archive"),
    // Commands start the agent and talk with it.
    ("cli", "agent"),
];
const MAX_FILE_LINES: usize = 499;
const MAX_FUNCTION_LINES: usize = 69;

/// Who may do what: the last segments of a path, or a method's name, and the files that own it.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("fs::rename", &["src/util/durable"], "only util/durable renames"),
    ("renameat", &["src/util/durable"], "only util/durable renames"),
    ("renameat2", &["src/util/durable"], "only util/durable renames"),
    (".sync_all", &["src/util/durable"], "only util/durable makes files durable"),
    (".sync_data", &["src/util/durable"], "only util/durable makes files durable"),
    ("fsync", &["src/util/durable"], "only util/durable makes files durable"),
    ("fdatasync", &["src/util/durable"], "only util/durable makes files durable"),
    ("syncfs", &["src/util/durable"], "only util/durable makes files durable"),
    ("Utc::now", &["src/util/clock.rs"], "only util/clock reads the wall clock"),
    ("Local::now", &["src/util/clock.rs"], "only util/clock reads the wall clock"),
    ("SystemTime::now", &["src/util/clock.rs"], "only util/clock reads the wall clock"),
    ("process::exit", &["src/main.rs"], "only main exits"),
    ("process::abort", &["src/main.rs"], "only main exits"),
];
/// Macros with one owner; `todo` and its like have none.
const OWNED_MACROS: &[(&str, &[&str], &str)] = &[
    ("print", &["src/cli"], "only cli prints"),
    ("println", &["src/cli"], "only cli prints"),
    ("eprint", &["src/cli"], "only cli prints"),
    ("eprintln", &["src/cli"], "only cli prints"),
    ("dbg", &[], "left over from a search for a bug"),
    ("todo", &[], "unfinished"),
    ("unimplemented", &[], "unfinished"),
];
/// Crates that one folder alone may name.
const OWNED_CRATES: &[(&str, &str)] = &[
    ("tokio_postgres", "src/postgres"),
    ("tokio_postgres_rustls", "src/postgres"),
    ("aws_sdk_s3", "src/storage"),
];
/// What object keys are made of. Who spells one elsewhere has invented a second layout.
const KEY_FRAGMENTS: &[&str] = &[
    "backup.json",
    "cluster.json",
    ".minisig",
    ".zst",
    ".age",
    "/backups/",
    "/wal/",
    "/marks/",
    "/systems/",
];
/// Who spells keys: their module; the codec knows its own suffixes.
const KEY_OWNERS: &[&str] = &["src/repository/keys", "src/codec"];

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// One file under inspection.
struct Inspector<'a> {
    file: &'a str,
    /// `crate::wal::reader` is `["wal", "reader"]`; inline modules are pushed while inside.
    module: Vec<String>,
    in_test: bool,
    breaches: Vec<Breach>,
    /// Arguments of `failpoint::reach`.
    failpoints: Vec<(String, usize)>,
}

fn module_of(file: &str) -> Vec<String> {
    let Some(inner) = file.strip_prefix("src/").and_then(|f| f.strip_suffix(".rs")) else {
        return Vec::new();
    };
    if matches!(inner, "lib" | "main") { Vec::new() } else { inner.split('/').map(str::to_owned).collect() }
}

fn is_test_file(file: &str) -> bool {
    let stem = file.trim_end_matches(".rs");
    file.starts_with("tests/") || stem.split('/').any(|part| part == "tests" || part.ends_with("_tests"))
}

fn layer_of(top: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&top)).map(|(layer, _)| *layer)
}

fn owns(owners: &[&str], file: &str) -> bool {
    owners.iter().any(|owner| file.starts_with(owner))
}

impl Inspector<'_> {
    fn breach(&mut self, span: Span, what: impl Into<String>) {
        let breach = Breach { file: self.file.to_owned(), line: span.start().line, what: what.into() };
        self.breaches.push(breach);
    }

    /// A path as it stands in the code, in a `use` or anywhere else.
    fn path(&mut self, segments: &[String], span: Span) {
        if !self.file.starts_with("src/") {
            return;
        }
        self.layer(segments, span);
        let Some(first) = segments.first() else { return };
        for (name, owner) in OWNED_CRATES {
            if first == name && !self.in_test && !self.file.starts_with(owner) {
                self.breach(span, format!("only {owner} may use {name}"));
            }
        }
        let joined = format!("::{}", segments.join("::"));
        for (tail, owners, why) in OWNED {
            if joined.ends_with(&format!("::{tail}")) && !self.in_test && !owns(owners, self.file) {
                self.breach(span, format!("{tail}: {why}"));
            }
        }
    }

    fn layer(&mut self, segments: &[String], span: Span) {
        let target = match segments.first().map(String::as_str) {
            Some("crate") => segments.get(1),
            Some("super") => {
                let ups = segments.iter().take_while(|s| *s == "super").count();
                if ups < self.module.len() { None } else { segments.get(ups) }
            }
            _ => None,
        };
        let (Some(target), Some(from)) = (target, self.module.first().cloned()) else { return };
        let (Some(mine), Some(theirs)) = (layer_of(&from), layer_of(target)) else { return };
        let sibling = SIBLINGS.contains(&(from.as_str(), target.as_str())) || (mine == 0 && theirs == 0);
        if from != *target && theirs >= mine && !sibling {
            self.breach(span, format!("{from} (layer {mine}) imports {target} (layer {theirs})"));
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.use_tree(item, prefix.clone()));
            }
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.path(&prefix, tree.span());
            }
            syn::UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.path(&prefix, tree.span());
            }
            syn::UseTree::Glob(_) => self.path(&prefix, tree.span()),
        }
    }

    fn literal(&mut self, text: &str, span: Span) {
        let free = self.in_test || !self.file.starts_with("src/") || owns(KEY_OWNERS, self.file);
        // A sentence for a person is not a key, nor is an example of a URL.
        if free || text.contains(' ') || text.contains("://") {
            return;
        }
        if let Some(fragment) = KEY_FRAGMENTS.iter().find(|f| text.contains(*f)) {
            self.breach(span, format!("{text:?} spells a key ({fragment}): only repository/keys does"));
        }
    }

    /// Inside a macro there is no syntax tree: paths and literals are found in the tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut start = Span::call_site();
        let mut colons = 0;
        let all: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in all.iter().enumerate() {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(&std::mem::take(&mut path), start);
                        start = ident.span();
                    }
                    path.push(ident.to_string());
                    colons = 0;
                    if matches!(all.get(at + 1), Some(TokenTree::Punct(p)) if p.as_char() == '!')
                        && matches!(all.get(at + 2), Some(TokenTree::Group(g)) if g.delimiter() != Delimiter::None)
                    {
                        self.macro_name(&ident.to_string(), ident.span());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.path(&std::mem::take(&mut path), start);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    } else if let TokenTree::Literal(literal) = other
                        && let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                    {
                        self.literal(&text.value(), literal.span());
                    }
                }
            }
        }
        self.path(&path, start);
    }

    fn macro_name(&mut self, name: &str, span: Span) {
        for (owned, owners, why) in OWNED_MACROS {
            let free = self.in_test && !owners.is_empty() || !self.file.starts_with("src/");
            if name == *owned && !free && !owns(owners, self.file) {
                self.breach(span, format!("{name}!: {why}"));
            }
        }
    }

    fn body(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines = block.span().end().line.saturating_sub(block.span().start().line + 1);
        if lines > MAX_FUNCTION_LINES {
            self.breach(name.span(), format!("fn {name} has {lines} lines, {MAX_FUNCTION_LINES} at most"));
        }
    }
}

/// `#[cfg(test)]`, also among other conditions.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
        list.path.is_ident("cfg") && {
            let words = list.tokens.to_string().replace("not (test)", "").replace("not(test)", "");
            words.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
        }
    })
}

impl<'ast> Visit<'ast> for Inspector<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let before = self.in_test;
        self.in_test |= is_for_tests(&item.attrs);
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
        self.in_test = before;
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        let before = self.in_test;
        self.in_test |= is_for_tests(&item.attrs);
        self.body(&item.sig.ident, &item.block);
        visit::visit_item_fn(self, item);
        self.in_test = before;
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig.ident, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, Vec::new());
    }
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.path(&segments, path.span());
        visit::visit_path(self, path);
    }
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.path(&[format!(".{}", call.method)], call.method.span());
        visit::visit_expr_method_call(self, call);
    }
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let (syn::Expr::Path(function), Some(syn::Expr::Lit(argument))) = (&*call.func, call.args.first())
            && function.path.segments.last().is_some_and(|s| s.ident == "reach")
            && let syn::Lit::Str(name) = &argument.lit
            && !self.in_test
        {
            self.failpoints.push((name.value(), name.span().start().line));
        }
        visit::visit_expr_call(self, call);
    }
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.literal(&text.value(), text.span());
    }
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {
        // Documentation may name files and keys.
    }
    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(name) = call.path.segments.last() {
            self.macro_name(&name.ident.to_string(), name.ident.span());
        }
        self.tokens(call.tokens.clone());
    }
}

fn inspect<'a>(file: &'a str, text: &str) -> Inspector<'a> {
    let mut inspector = Inspector {
        file,
        module: module_of(file),
        in_test: is_test_file(file),
        breaches: Vec::new(),
        failpoints: Vec::new(),
    };
    inspector.visit_file(&syn::parse_file(text).unwrap_or_else(|e| panic!("{file}: {e}")));
    let whole = |line, what: String| Breach { file: file.to_owned(), line, what };
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        inspector.breaches.push(whole(lines, format!("{lines} lines, {MAX_FILE_LINES} at most")));
    }
    for (number, line) in text.lines().enumerate() {
        // Spelt so that this file does not break its own rule.
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")] {
            if line.contains(word) {
                inspector.breaches.push(whole(number + 1, format!("{word}: file an issue, or do it")));
            }
        }
    }
    let top = inspector.module.first();
    if let Some(top) = top.filter(|top| layer_of(top).is_none()) {
        inspector.breaches.push(whole(1, format!("module {top} stands in no layer: add it to LAYERS")));
    }
    inspector
}

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "build.rs"].map(|f| root.join(f));
    let found = folders.iter().filter(|f| f.exists()).flat_map(walkdir::WalkDir::new).map(Result::unwrap);
    let rust = found.filter(|e| e.file_type().is_file() && e.path().extension().is_some_and(|x| x == "rs"));
    rust.map(|entry| {
        let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(entry.path()).unwrap())
    })
    .collect()
}

fn report(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches of the house rules:\n{}", breaches.len(), breaches.join("\n"));
}

#[test]
fn every_source_file_keeps_the_rules_of_the_house() {
    let mut breaches: Vec<Breach> =
        sources().iter().flat_map(|(file, text)| inspect(file, text).breaches).collect();
    breaches.sort();
    breaches.dedup();
    report(&breaches.iter().map(Breach::to_string).collect::<Vec<_>>());
}

#[test]
fn every_failpoint_is_listed_in_order_and_reached_at_one_place() {
    let mut wrong = Vec::new();
    let mut reached: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in sources().iter().filter(|(file, _)| file.starts_with("src/")) {
        for (name, line) in inspect(file, text).failpoints {
            reached.entry(name).or_default().push(format!("{file}:{line}"));
        }
    }
    let listed = pgkeep::util::failpoint::NAMES;
    wrong.extend(
        listed
            .windows(2)
            .filter(|w| w[0] >= w[1])
            .map(|w| format!("{} must not stand before {}", w[0], w[1])),
    );
    wrong.extend(
        listed.iter().filter(|n| !reached.contains_key(**n)).map(|n| format!("{n} is listed, never reached")),
    );
    for (name, places) in &reached {
        if places.len() > 1 {
            wrong.push(format!("{name} is reached at several places: {}", places.join(", ")));
        }
        if !listed.contains(&name.as_str()) {
            wrong.push(format!("{}: {name} is missing in util::failpoint::NAMES", places[0]));
        }
    }
    report(&wrong);
}

/// A file that no `mod` line names is never compiled: its tests would pass for ever.
#[test]
fn every_file_is_part_of_the_build() {
    let sources = sources();
    let mut orphans = Vec::new();
    for file in sources.keys().filter(|f| f.matches('/').count() > 1 || f.starts_with("src/")) {
        let (folder, name) = file.rsplit_once('/').unwrap();
        let name = name.trim_end_matches(".rs");
        if matches!((folder, name), ("src", "lib" | "main") | ("tests/e2e", "main")) {
            continue;
        }
        let parents = match folder {
            "src" => vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
            "tests/e2e" => vec!["tests/e2e/main.rs".to_owned()],
            _ => vec![format!("{folder}.rs"), format!("{folder}/mod.rs")],
        };
        let named = |text: &String| {
            let line = format!("mod {name};");
            text.lines().any(|l| l.trim_end().ends_with(&line)) || text.contains(&format!("{name}.rs\"]"))
        };
        if !parents.iter().filter_map(|p| sources.get(p)).any(named) {
            orphans.push(format!("{file}:1: no `mod {name};` in {}", parents.join(" or ")));
        }
    }
    report(&orphans);
}

#[test]
fn each_rule_notices_a_file_that_breaks_it() {
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(70));
    let huge = "// line\n".repeat(500);
    let later = format!("// {}: later\n", concat!("TO", "DO"));
    let bad: &[(&str, &str, &str)] = &[
        (
            "src/wal/reader.rs",
            "use crate::repository::Catalog;",
            "wal (layer 1) imports repository (layer 2)",
        ),
        (
            "src/wal/reader.rs",
            "use crate::{error::Error, codec::{Seal, Open}};",
            "wal (layer 1) imports codec",
        ),
        ("src/wal/reader.rs", "use super::super::cli::print_it;", "wal (layer 1) imports cli (layer 5)"),
        ("src/wal/reader.rs", "fn f() { let x = crate::cli::X; }", "wal (layer 1) imports cli (layer 5)"),
        ("src/wal/reader.rs", "fn f() { log!(a, crate::cli::X); }", "wal (layer 1) imports cli (layer 5)"),
        (
            "src/wal.rs",
            "mod tests { use super::super::backup::X; }",
            "wal (layer 1) imports backup (layer 3)",
        ),
        ("src/backup.rs", "use crate::archive::X;", "backup (layer 3) imports archive (layer 3)"),
        ("src/helpers.rs", "", "stands in no layer"),
        ("src/wal.rs", &huge, "500 lines"),
        ("src/wal.rs", &long, "fn long has 70 lines"),
        ("src/wal.rs", &later, "file an issue"),
        ("src/wal.rs", "fn f() { println!(\"x\"); }", "only cli prints"),
        ("src/wal.rs", "fn f() { select! { x => eprintln!(\"x\") } }", "only cli prints"),
        ("src/main.rs", "fn f() { print!(\"x\"); }", "only cli prints"),
        ("src/cli.rs", "fn f() { std::process::exit(1) }", "only main exits"),
        ("src/cli.rs", "use std::process::exit;", "only main exits"),
        ("src/wal.rs", "fn f() { todo!() }", "unfinished"),
        ("src/wal.rs", "fn f() { std::fs::rename(a, b) }", "only util/durable renames"),
        ("src/wal.rs", "fn f() { file.sync_all() }", "only util/durable makes"),
        ("src/wal.rs", "fn f() { chrono::Utc::now() }", "only util/clock"),
        ("src/cli/x.rs", "use tokio_postgres::Client;", "only src/postgres may use tokio_postgres"),
        ("src/backup.rs", "fn f() { format!(\"{id}/pack-1.tar.zst\") }", "spells a key"),
        ("src/backup.rs", "const RECORD: &str = \"backup.json\";", "spells a key"),
    ];
    for (file, text, expected) in bad {
        let found: Vec<String> = inspect(file, text).breaches.iter().map(Breach::to_string).collect();
        assert!(
            found.iter().any(|f| f.contains(expected)),
            "{text} in {file}: {expected:?} not in {found:?}"
        );
    }
    let good: &[(&str, &str)] = &[
        ("src/postgres/x.rs", "use crate::wal::Reader; use super::Session; use super::super::error::Error;"),
        ("src/restore.rs", "use crate::archive::serve; use crate::{model::Lsn, repository::Catalog};"),
        ("src/util/durable/x.rs", "fn f() { std::fs::rename(a, b); file.sync_all() }"),
        (
            "src/wal.rs",
            "#[cfg(test)] mod tests { use super::*; fn f() { println!(\"x\"); fs::rename(a, b) } }",
        ),
        ("src/backup.rs", "/// writes backup.json\nfn f() { hint(\"look for backup.json there\") }"),
        ("src/main.rs", "fn main() { std::process::exit(pgkeep::cli::run()) }"),
    ];
    for (file, text) in good {
        assert_eq!(inspect(file, text).breaches, [], "{text} in {file}");
    }
}
