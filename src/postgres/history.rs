//! Timeline history files (`timeline.c`) and the path that a recovery takes through timelines.

use crate::error::{Code, Error, Result};
use crate::model::{Lsn, SegmentName, SegmentSize, TimelineId};

/// One line of a history file: that timeline was left at that position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    pub timeline: TimelineId,
    /// The first byte that belongs to the next timeline.
    pub switch: Lsn,
    /// For people only.
    pub reason: String,
}

/// `<TLI>.history`: the ancestors of a timeline, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub timeline: TimelineId,
    pub ancestors: Vec<Ancestor>,
}

impl History {
    /// Timeline 1 has no file; a stand-in of comments only has no ancestors either.
    pub fn without_ancestors(timeline: TimelineId) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// `readTimeLineHistory`: per line an id, a position and free text; `#` begins a comment.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<Self> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| {
                Error::new(Code::Damaged, format!("timeline history is malformed: {what}"))
                    .at(format!("{}.history, line {}", timeline.hex(), number + 1))
                    .hint("a line is a timeline id, an LSN and a reason, with ids and LSNs ascending")
            };
            let (id, rest) = word(line);
            let (switch, reason) = word(rest);
            let id = id.parse::<u32>().ok().filter(|id| *id > 0);
            let id = TimelineId(id.ok_or_else(|| wrong("no timeline id"))?);
            let switch = switch.parse::<Lsn>().ok().filter(|l| !l.is_zero());
            let switch = switch.ok_or_else(|| wrong("no position"))?;
            if id >= timeline {
                return Err(wrong("an ancestor's id is not below its child's"));
            }
            if let Some(before) = ancestors.last() {
                if id <= before.timeline {
                    return Err(wrong("timeline ids do not ascend"));
                }
                if switch < before.switch {
                    return Err(wrong("positions go back"));
                }
            }
            ancestors.push(Ancestor { timeline: id, switch, reason: reason.to_owned() });
        }
        Ok(Self { timeline, ancestors })
    }

    /// As `writeTimeLineHistory` writes it: the parent's file, an empty line, one line more.
    pub fn build(&self) -> String {
        let line = |a: &Ancestor| format!("{}\t{}\t{}\n", a.timeline, a.switch, a.reason);
        self.ancestors.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Where this timeline left its parent.
    pub fn fork(&self) -> Option<&Ancestor> {
        self.ancestors.last()
    }

    pub fn path(&self) -> TimelinePath {
        let mut begin = Lsn::ZERO;
        let mut legs: Vec<Leg> = Vec::new();
        for ancestor in &self.ancestors {
            legs.push(Leg { timeline: ancestor.timeline, begin, end: Some(ancestor.switch) });
            begin = ancestor.switch;
        }
        legs.push(Leg { timeline: self.timeline, begin, end: None });
        TimelinePath(legs)
    }
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The part of a path that lies on one timeline: `begin` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg {
    pub timeline: TimelineId,
    pub begin: Lsn,
    /// None on the target timeline, which goes on.
    pub end: Option<Lsn>,
}

/// From the first timeline to the target one, in order, without gaps. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath(Vec<Leg>);

impl TimelinePath {
    pub fn legs(&self) -> &[Leg] {
        &self.0
    }
    /// The timeline that the path ends on.
    pub fn target(&self) -> TimelineId {
        self.0.last().map_or(TimelineId::FIRST, |l| l.timeline)
    }
    pub fn leg(&self, timeline: TimelineId) -> Option<&Leg> {
        self.0.iter().find(|l| l.timeline == timeline)
    }
    /// The timeline whose record the byte at `lsn` belongs to (`tliOfPointInHistory`).
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.0
            .iter()
            .rev()
            .find(|l| l.begin <= lsn && l.end.is_none_or(|e| lsn < e))
            .map_or(self.target(), |l| l.timeline)
    }
    /// True where WAL of `timeline` up to `lsn` is part of this path: a backup that ended there can be rolled forward
    /// along it. The switch position itself is still common to both.
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.leg(timeline).is_some_and(|l| l.begin <= lsn && l.end.is_none_or(|e| lsn <= e))
    }
    /// The timeline in whose name the segment number is read: of the timelines that have bytes in it, the newest, whose
    /// file begins with a copy of its parent's bytes up to the switch.
    pub fn segment_timeline(&self, number: u64, size: SegmentSize) -> TimelineId {
        let end = Lsn(number.saturating_add(1).saturating_mul(size.bytes()));
        self.0.iter().rev().find(|l| l.begin < end).map_or(self.target(), |l| l.timeline)
    }
    /// The segment's name on this path.
    pub fn segment(&self, number: u64, size: SegmentSize) -> SegmentName {
        SegmentName::numbered(self.segment_timeline(number, size), number, size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THREE: &str =
        "1\t0/3000158\tno recovery target specified\n\n2\t0/9000000\tbefore 2026-11-21 10:00:00+00\n";

    fn three() -> History {
        History::parse(TimelineId(3), THREE.as_bytes()).unwrap()
    }
    fn at(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn a_history_is_read_and_written_as_postgresql_does() {
        let history = three();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.fork().unwrap().switch, at("0/9000000"));
        assert_eq!(history.fork().unwrap().reason, "before 2026-11-21 10:00:00+00");
        assert_eq!(history.build(), THREE);
        let commented = format!("# a stand-in\r\n\n  \t\n{THREE}");
        assert_eq!(History::parse(TimelineId(3), commented.as_bytes()).unwrap(), history);
        assert_eq!(History::parse(TimelineId(5), b"# nothing\n").unwrap().ancestors, []);
    }

    #[test]
    fn a_malformed_history_is_refused_with_its_line() {
        for (text, line) in [
            ("1\t0/3000158\tx\nfoo\t0/4000000\ty\n", "line 2"),
            ("1\n", "line 1"),
            ("1\t3000158\tx\n", "line 1"),
            ("0\t0/3000158\tx\n", "line 1"),
            ("3\t0/3000158\tx\n", "line 1"),
            ("4\t0/3000158\tx\n", "line 1"),
            ("2\t0/3000158\tx\n1\t0/4000000\ty\n", "line 2"),
            ("1\t0/4000000\tx\n2\t0/3000158\ty\n", "line 2"),
        ] {
            let error = History::parse(TimelineId(3), text.as_bytes()).unwrap_err();
            assert!(error.place().unwrap().ends_with(line), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_path_says_which_timeline_every_byte_and_segment_is_on() {
        let path = three().path();
        let size = SegmentSize::DEFAULT;
        assert_eq!(path.target(), TimelineId(3));
        assert_eq!(path.timeline_at(at("0/3000157")), TimelineId(1));
        assert_eq!(path.timeline_at(at("0/3000158")), TimelineId(2));
        assert_eq!(path.timeline_at(at("0/9000000")), TimelineId(3));
        // The switch segment is read from the child's copy; a switch on a border leaves nothing of the parent in it.
        let names: Vec<_> = (2..=9).map(|n| path.segment_timeline(n, size).0).collect();
        assert_eq!(names, [1, 2, 2, 2, 2, 2, 2, 3]);
        assert_eq!(path.segment(3, size).to_string(), "000000020000000000000003");
    }

    #[test]
    fn a_backup_is_on_the_path_up_to_the_switch_of_its_timeline() {
        let path = three().path();
        assert!(path.contains(TimelineId(1), at("0/3000158")));
        assert!(!path.contains(TimelineId(1), at("0/3000160")));
        assert!(path.contains(TimelineId(2), at("0/8000000")));
        assert!(!path.contains(TimelineId(2), at("0/2000000")));
        assert!(path.contains(TimelineId(3), Lsn::MAX));
        assert!(!path.contains(TimelineId(4), at("0/3000000")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, text in "[0-9A-F/\\t\\n# ]{0,60}") {
            let _ = History::parse(TimelineId(9), &bytes);
            if let Ok(history) = History::parse(TimelineId(9), text.as_bytes()) {
                let again = History::parse(TimelineId(9), history.build().as_bytes()).unwrap();
                prop_assert_eq!(again.path(), history.path());
            }
        }
    }
}
