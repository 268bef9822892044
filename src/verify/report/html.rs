//! The report as one HTML page that needs nothing else: no script, no font, no request. Light and dark, wide and narrow.

use std::fmt::Write as _;

use super::text::{capital, facts, times};
use super::{Check, Outcome, Report, Step, Verdict};
use crate::restore::estimate::span;

const STYLE: &str = "
:root{color-scheme:light dark;--ground:#fff;--text:#1c2127;--soft:#5b6570;--line:#d9dee3;--panel:#f5f7f9;
--good:#13794a;--bad:#b3261e;--open:#8a6100;--bar:#2f6fd0;--rest:#9fb0c3}
@media(prefers-color-scheme:dark){:root{--ground:#14181d;--text:#e6eaee;--soft:#9aa6b2;--line:#333c45;--panel:#1c2228;
--good:#58c48f;--bad:#ff8a80;--open:#e5b84b;--bar:#6ea2ee;--rest:#55657a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:66rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.1rem;margin:2rem 0 .6rem}
p{margin:.3rem 0}.soft{color:var(--soft)}
.verdict{display:inline-block;padding:.1rem .6rem;border-radius:1rem;font-weight:600;border:2px solid currentColor;white-space:nowrap}
.passed,.holds{color:var(--good)}.failed,.fails{color:var(--bad)}.unproved{color:var(--open)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.8rem;margin:1.2rem 0 0}
.card{background:var(--panel);border:1px solid var(--line);border-radius:.5rem;padding:.7rem .9rem}
.card b{display:block;font-size:1.5rem;line-height:1.3}
.error{border-left:4px solid var(--bad);background:var(--panel);padding:.6rem .9rem;margin:1rem 0;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.3rem 1rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
ul{list-style:none;margin:0;padding:0}
.checks li{display:grid;grid-template-columns:6rem 1fr;gap:.2rem .8rem;padding:.45rem 0;border-top:1px solid var(--line)}
.checks span{overflow-wrap:anywhere}.checks pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0 0;font-size:.85rem}
.steps li{display:grid;grid-template-columns:15rem 1fr 5rem;gap:.8rem;align-items:center;padding:.2rem 0}
.track{background:var(--panel);border:1px solid var(--line);border-radius:.25rem;height:1.1rem;position:relative;overflow:hidden}
.track i{position:absolute;top:0;bottom:0;min-width:2px;background:var(--rest)}.track i.counts{background:var(--bar)}
.steps b{font-weight:400;text-align:right;font-variant-numeric:tabular-nums}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:.15rem;background:var(--rest);vertical-align:-.05rem}
.key.counts{background:var(--bar)}
.notes li{padding:.2rem 0;overflow-wrap:anywhere}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}
.checks li{grid-template-columns:1fr}.steps li{grid-template-columns:1fr 5rem;gap:.1rem .6rem}
.steps .track{grid-column:1/-1;grid-row:2}}
@media print{main{padding:0}}
";

pub fn html(report: &Report) -> String {
    let mut page = String::new();
    let title = format!("{} of {}", capital(report.kind.words()), report.cluster);
    let class = match report.outcome {
        Outcome::Passed => "passed",
        Outcome::Unproved => "unproved",
        Outcome::Failed => "failed",
    };
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{} {}: {}</title><style>{STYLE}</style></head>\n<body><main>\n\
         <h1>{} <span class=\"verdict {class}\">{}</span></h1>\n<p>{}</p>\n\
         <p class=\"soft\">{} · host {} · pgkeep {}{}</p>\n",
        escape(&title),
        escape(&report.started_at.human()),
        report.outcome.as_str(),
        escape(&title),
        report.outcome.as_str(),
        escape(&report.summary()),
        escape(&report.started_at.human()),
        escape(&report.host),
        escape(&report.pgkeep),
        report
            .only
            .as_ref()
            .map(|only| format!(" · repository {} alone", escape(only.as_str())))
            .unwrap_or_default(),
    );
    if let Some(error) = &report.error {
        let _ =
            writeln!(page, "<p class=\"error\"><strong>It came to no end:</strong> {}</p>", escape(error));
    }
    objectives(&mut page, report);
    let rows = facts(report);
    if !rows.is_empty() {
        page.push_str("<h2>What was brought back</h2>\n<dl>\n");
        for (name, value) in rows {
            let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
        }
        page.push_str("</dl>\n");
    }
    checks(&mut page, &report.checks);
    timeline(&mut page, report);
    if !report.notes.is_empty() {
        page.push_str("<h2>Notes</h2>\n<ul class=\"notes\">\n");
        for note in &report.notes {
            let _ = writeln!(page, "<li>{}</li>", escape(note));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</main></body></html>\n");
    page
}

fn objectives(page: &mut String, report: &Report) {
    if report.objectives.is_empty() {
        return;
    }
    page.push_str("<div class=\"cards\">\n");
    for objective in &report.objectives {
        let class = match objective.verdict {
            Some(verdict) => word(verdict),
            None => "soft",
        };
        let achieved = objective.achieved_seconds.map_or_else(|| "not known".to_owned(), span);
        let text = objective.text();
        let against = text.split_once(": ").map_or("", |(_, against)| against);
        let _ = writeln!(
            page,
            "<div class=\"card\">{}<b>{}</b><span class=\"{class}\">{}</span><p class=\"soft\">{}</p></div>",
            escape(&objective.name),
            escape(&achieved),
            escape(against),
            escape(&objective.meaning)
        );
    }
    page.push_str("</div>\n");
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Fails => "fails",
        Verdict::Unproved => "unproved",
    }
}

fn checks(page: &mut String, checks: &[Check]) {
    page.push_str("<h2>What was checked</h2>\n<ul class=\"checks\">\n");
    if checks.is_empty() {
        page.push_str(
            "<li><strong class=\"unproved\">unproved</strong><span>Nothing was checked.</span></li>\n",
        );
    }
    for check in checks {
        let class = word(check.verdict);
        let mut lines = check.found.lines();
        let first = lines.next().unwrap_or_default();
        let more: Vec<&str> = lines.collect();
        let more =
            if more.is_empty() { String::new() } else { format!("<pre>{}</pre>", escape(&more.join("\n"))) };
        let planned = match check.verdict {
            Verdict::Fails => format!(" <span class=\"soft\">(planned: {})</span>", escape(&check.planned)),
            _ => String::new(),
        };
        let _ = writeln!(
            page,
            "<li><strong class=\"{class}\">{class}</strong><span>{}: {}<br><span class=\"soft\">{}</span>{planned}{more}</span></li>",
            escape(&check.of),
            escape(&check.name),
            escape(first)
        );
    }
    page.push_str("</ul>\n");
}

/// One bar below the other, each where it was in the whole.
fn timeline(page: &mut String, report: &Report) {
    if report.steps.is_empty() {
        return;
    }
    page.push_str("<h2>How long it took</h2>\n");
    for words in times(report) {
        let _ = writeln!(page, "<p>{}</p>", escape(&words));
    }
    let whole: f64 = report.steps.iter().map(|step| step.seconds).sum();
    if whole > 0.0 {
        page.push_str(
            "<p class=\"soft\"><span class=\"key counts\"></span> until the cluster is open \
             &nbsp; <span class=\"key\"></span> besides</p>\n<ul class=\"steps\">\n",
        );
        let mut before = 0.0;
        for Step { name, seconds, counts } in &report.steps {
            let _ = writeln!(
                page,
                "<li><span>{}</span><span class=\"track\"><i class=\"{}\" style=\"left:{:.2}%;width:{:.2}%\"></i></span><b>{}</b></li>",
                escape(name),
                if *counts { "counts" } else { "" },
                (before / whole * 100.0).min(99.5),
                seconds / whole * 100.0,
                escape(&span(*seconds))
            );
            before += seconds;
        }
        page.push_str("</ul>\n");
    }
}

/// Names and messages may hold anything.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}
