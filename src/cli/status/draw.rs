//! The screen as text: 80 columns, what is urgent first, commands on lines of their own so that they can be copied.

use crate::agent::status::{AgentState, Line, StatusView, Trouble};
use crate::cli::table::facts;
use crate::model::Timestamp;
use crate::util::human;

const WIDTH: usize = 80;

pub fn screen(view: &StatusView, colours: bool) -> String {
    let pen = Pen(colours);
    let verdict = match view.troubles.len() {
        0 => pen.green("ALL WELL"),
        1 => pen.red("1 TROUBLE"),
        n => pen.red(&format!("{n} TROUBLES")),
    };
    let agent = match &view.agent {
        AgentState::Running { since } => format!("agent up for {}", human::rough(view.at.since(*since))),
        AgentState::Down { .. } => "NO AGENT".to_owned(),
    };
    let mut out = format!("{}: {verdict} at {}, {agent}\n", pen.bold(&view.host), view.at.human());
    for trouble in &view.troubles {
        out.push_str(&told(trouble, view.at, pen));
    }
    for cluster in &view.clusters {
        let title = format!("{}: {}; if this host died now:", cluster.name, cluster.title);
        out.push_str(&format!("\n{}\n{}\n", pen.bold(&title), block(&cluster.lines)));
    }
    for (title, lines) in [("repositories", &view.repositories), ("jobs", &view.jobs)] {
        if !lines.is_empty() {
            out.push_str(&format!("\n{}\n{}\n", pen.bold(title), block(lines)));
        }
    }
    out
}

/// The same over what was drawn before, without a flicker.
pub fn over(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{}\x1b[J", lines.concat())
}

#[derive(Clone, Copy)]
struct Pen(bool);

impl Pen {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn red(self, text: &str) -> String {
        self.with("1;31", text)
    }
    fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }
    fn green(self, text: &str) -> String {
        self.with("32", text)
    }
    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
}

fn told(trouble: &Trouble, now: Timestamp, pen: Pen) -> String {
    let mark = if trouble.critical { pen.red("!!") } else { pen.yellow(" !") };
    let since =
        trouble.since.map(|at| format!(" (alert for {})", human::rough(now.since(at)))).unwrap_or_default();
    let what = wrapped(&format!("{}{since}", trouble.what), WIDTH - 3).join("\n   ");
    format!("\n{mark} {what}\n   -> {}\n", pen.bold(&trouble.mend))
}

fn block(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
    let text = |line: &Line| -> String {
        let all = line.text.lines().flat_map(|one| wrapped(one, WIDTH - 4 - width));
        all.collect::<Vec<_>>().join("\n")
    };
    let pairs: Vec<(&str, String)> = lines.iter().map(|l| (l.label.as_str(), text(l))).collect();
    facts(&pairs).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Words; a number or a time is one with what follows it, which is its unit.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut number = false;
    for word in text.split_whitespace() {
        match words.last_mut().filter(|_| number) {
            Some(last) => {
                last.push(' ');
                last.push_str(word);
            }
            None => words.push(word.to_owned()),
        }
        let bare = word.trim_start_matches('(');
        number = bare.len() <= 10
            && bare.starts_with(|c: char| c.is_ascii_digit())
            && bare.ends_with(|c: char| c.is_ascii_alphanumeric());
    }
    words
}

/// Lines of at most so many characters, broken between words; a longer one stays whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in words(text) {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word);
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::board::Snapshot;
    use crate::agent::{example, status};
    use crate::config::AlertsConfig;

    fn of(snapshot: &Snapshot) -> StatusView {
        let agent = AgentState::Running { since: snapshot.started_at };
        status::view(snapshot, agent, &AlertsConfig::default(), example::now())
    }

    /// Each fact of the board that a screen can show; the screens of real hosts are in `tests/e2e/status.rs`.
    #[test]
    fn the_screen_of_a_host_in_every_trouble() {
        insta::assert_snapshot!(screen(&of(&example::troubled()), false));
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        for snapshot in [example::healthy(), example::running(), example::troubled()] {
            let text = screen(&of(&snapshot), false);
            let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() <= WIDTH, "{widest}");
        }
    }

    #[test]
    fn colours_are_only_there_when_asked_for() {
        let view = of(&example::troubled());
        assert!(screen(&view, true).contains("\x1b[1;31m") && !screen(&view, false).contains('\x1b'));
    }

    #[test]
    fn what_is_drawn_over_leaves_nothing_of_before() {
        assert_eq!(over("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }

    #[test]
    fn long_lines_are_broken_at_spaces() {
        assert_eq!(wrapped("aa bb  cc dddddd e", 5), ["aa bb", "cc", "dddddd", "e"]);
        assert_eq!(wrapped("", 5), [""]);
        assert_eq!(wrapped("WAL 1.3 GiB at 50.0 MiB/s", 22), ["WAL 1.3 GiB at", "50.0 MiB/s"]);
        assert_eq!(wrapped("at 2026-11-21 14:00:00 UTC", 24), ["at", "2026-11-21 14:00:00 UTC"]);
    }
}
