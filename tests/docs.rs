//! The documents name only what is there.

// A test that cannot go on panics; that is its way to fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md"].iter().map(|name| root.join(name)).collect();
    for directory in ["runbooks", "config"] {
        let entries = std::fs::read_dir(root.join(directory)).unwrap().flatten();
        found.extend(entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    found
}

/// The targets of `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_leads_to_a_file() {
    let mut seen = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = document.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{} links to {link}", document.display());
            seen += 1;
        }
    }
    assert!(seen > 5, "no links were found: is the test still reading them?");
}

#[test]
fn the_architecture_names_modules_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut seen = 0;
    for word in text.split('`').skip(1).step_by(2) {
        let name = word.trim_end_matches('/');
        let path_like =
            name.contains('/') && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-".contains(c));
        if !path_like || name.starts_with('/') {
            continue;
        }
        let module = name.trim_end_matches(".rs");
        let places = [
            root.join(name),
            root.join(format!("src/{module}.rs")),
            root.join(format!("tests/e2e/{module}.rs")),
            root.join(format!("tests/e2e/{module}")),
            root.join(format!("src/{module}")),
        ];
        let is_code = [
            "src/",
            "tests/",
            "cli",
            "backup",
            "restore",
            "archive",
            "repository",
            "storage",
            "codec",
            "wal/",
            "config/",
            "util",
        ]
        .iter()
        .any(|head| name.starts_with(head));
        if is_code {
            assert!(places.iter().any(|p| p.exists()), "ARCHITECTURE.md names {name}");
            seen += 1;
        }
    }
    assert!(seen > 15, "no modules were found: is the test still reading them?");
}
