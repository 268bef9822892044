//! The text against the table, and a whole scrape as a golden file.

use std::collections::BTreeSet;

use super::*;
use crate::agent::example;

fn full() -> String {
    let process = ProcessFacts { resident_bytes: Some(40 << 20), cpu_seconds: Some(1.5) };
    render(&example::troubled(), &process, example::now()).unwrap()
}

fn exported(text: &str) -> BTreeSet<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn everything_in_the_table_is_exported_when_it_is_known_and_nothing_else() {
    let documented: BTreeSet<&str> = table::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(exported(&full()), documented);
}

#[test]
fn each_sample_has_the_labels_that_the_table_says() {
    for line in full().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let metric = table::ALL.iter().find(|metric| metric.name == name).unwrap();
        for label in metric.labels {
            assert!(line.contains(&format!("{label}=\"")), "{line} lacks {label}");
        }
    }
}

#[test]
fn a_scrape_looks_like_this() {
    insta::assert_snapshot!(full());
}

#[test]
fn an_agent_that_knows_nothing_yet_exports_what_it_is_and_no_zeros() {
    let mut snapshot = example::healthy();
    snapshot.clusters.clear();
    snapshot.repositories.clear();
    snapshot.jobs.clear();
    snapshot.tasks.clear();
    let text = render(&snapshot, &ProcessFacts::default(), example::now()).unwrap();
    let names = exported(&text);
    let expected: BTreeSet<&str> =
        [t::BUILD_INFO, t::START_TIME, t::RELOAD_REFUSED, t::ALERTS_OPEN].iter().map(|m| m.name).collect();
    assert_eq!(names, expected);
}
