//! The report as Markdown.

use std::fmt::Write as _;

use super::{Check, Report, Verdict};
use crate::restore::estimate::{Measured, span};
use crate::util::human;

/// For a terminal, a ticket, a wiki.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{words}");
    };
    let kind = report.kind.words();
    line(format!("# {} of {}: {}\n", capital(kind), report.cluster, report.outcome.as_str()));
    line(format!("* {}", report.summary()));
    line(format!("* Host {}, began {}, pgkeep {}", report.host, report.started_at.human(), report.pgkeep));
    if let Some(only) = &report.only {
        line(format!("* From repository {only} alone"));
    }
    if let Some(error) = &report.error {
        line(format!("* It came to no end: {error}"));
    }
    for objective in &report.objectives {
        line(format!("* {}", objective.text()));
        line(format!("  {}", objective.meaning));
    }
    for fact in facts(report) {
        line(format!("* {}: {}", fact.0, fact.1));
    }
    line("\n## Checked\n".to_owned());
    if report.checks.is_empty() {
        line("Nothing.".to_owned());
    }
    for check in &report.checks {
        line(format!("* {}", check_line(check)));
    }
    if !report.steps.is_empty() {
        line("\n## Times\n".to_owned());
        line("| step | took | until open |\n|---|---|---|".to_owned());
    }
    for step in &report.steps {
        let counts = if step.counts { "yes" } else { "" };
        line(format!("| {} | {} | {counts} |", step.name, span(step.seconds)));
    }
    for words in times(report) {
        line(format!("\n{words}"));
    }
    if !report.notes.is_empty() {
        line("\n## Notes\n".to_owned());
        report.notes.iter().for_each(|note| line(format!("* {note}")));
    }
    text
}

pub(super) fn capital(words: &str) -> String {
    let mut chars = words.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn check_line(check: &Check) -> String {
    let (name, found) = (format!("{}: {}", check.of, check.name), &check.found);
    match check.verdict {
        Verdict::Holds => format!("holds: {name}: {found}"),
        Verdict::Fails => format!("**FAILS**: {name}: {found} (planned: {})", check.planned),
        Verdict::Unproved => format!("unproved: {name}: {found}"),
    }
}

/// What was brought back, as names and values.
pub(super) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let kit = report.kit.as_ref().map(|kit| {
        let made = format!("made {} on {}", kit.made_at.human(), kit.host);
        ("From a recovery kit alone", format!("{made}, recipients {}", kit.fingerprint))
    });
    let mut facts: Vec<_> = kit.into_iter().collect();
    let Some(recovered) = &report.recovered else { return facts };
    if let Some(part) = &recovered.part {
        facts.push(("Restored, a part", part.restored_text()));
        facts.push((
            "LEFT OUT for lack of room",
            format!("{}; nothing is proved of it", part.left_out_text()),
        ));
    }
    facts.push(("Target", format!("{} ({})", recovered.target, recovered.chosen)));
    for stretch in &recovered.stretches {
        let (from, until) = (stretch.from.human(), stretch.until.human());
        facts.push(("Could be recovered", format!("{from} to {until}, from {} on", stretch.oldest_backup)));
    }
    facts.push((
        "Backup",
        format!(
            "{} of {}, {} ({} stored) from repository {}",
            recovered.backup,
            recovered.backup_of.human(),
            human::size(recovered.backup_bytes),
            human::size(recovered.stored_bytes),
            recovered.repository
        ),
    ));
    facts.push((
        "WAL",
        format!(
            "{} to {}, {}; ended at {} on timeline {}",
            recovered.wal_from,
            recovered.wal_to,
            human::size(recovered.wal_bytes),
            recovered.ends_at,
            recovered.timeline
        ),
    ));
    let kept =
        recovered.last_commit_kept.map_or_else(|| "none after the backup".to_owned(), |c| c.to_string());
    facts.push(("Last commit kept", kept));
    facts
}

/// What it took beside what was thought.
pub(super) fn times(report: &Report) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(measured) = &report.measured {
        words.push(format!("Open after {}.", span(measured.seconds())));
    }
    if report.recovered.as_ref().is_some_and(|recovered| recovered.part.is_some()) {
        words.push("Only a part was restored: its times say nothing of how long the whole takes.".to_owned());
        return words;
    }
    match (&report.estimate, report.measured.as_ref().and_then(Measured::error)) {
        (Some(estimate), error) => {
            let times = report.measured.as_ref().map_or(0.0, Measured::seconds) / estimate.seconds.max(0.001);
            let off = error.map(|e| {
                format!(" It took {times:.1} times as long: the estimate was off by {:.0} %.", e * 100.0)
            });
            words.push(format!("Estimated before: {}.{}", estimate.text(), off.unwrap_or_default()));
        }
        (None, _) if report.measured.is_none() => {}
        (None, _) => {
            words.push("Nothing could be estimated before: no restore had been measured.".to_owned());
        }
    }
    words
}
