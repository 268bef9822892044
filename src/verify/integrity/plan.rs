//! Which objects are read in this run: what was wrong before, then what was never checked, then the oldest first, until the
//! budget is used up. Pure.

use crate::model::Timestamp;

/// One object that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<'i> {
    pub(super) unit: &'i str,
    pub(super) key: &'i str,
    /// As stored.
    pub(super) bytes: u64,
    pub(super) last: Option<Timestamp>,
    /// It was wrong when it was last read.
    pub(super) again: bool,
}

/// What is read, in this order, as places in the list of candidates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) chosen: Vec<usize>,
    pub(super) bytes: u64,
    pub(super) left: u64,
    pub(super) left_bytes: u64,
}

pub(super) fn plan(candidates: &[Candidate<'_>], budget: Option<u64>) -> Plan {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|at| {
        let c = &candidates[*at];
        (!c.again, c.last, c.unit, c.key)
    });
    let mut plan = Plan::default();
    let mut full = false;
    for at in order {
        let c = &candidates[at];
        let within = budget.is_none_or(|budget| plan.bytes == 0 || plan.bytes + c.bytes <= budget);
        // Nothing younger is taken once something did not fit: a large object must not wait for ever.
        full |= !within && !c.again;
        if full {
            plan.left += 1;
            plan.left_bytes += c.bytes;
        } else {
            plan.chosen.push(at);
            plan.bytes += c.bytes;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(key: &'static str, bytes: u64, last: i64, again: bool) -> Candidate<'static> {
        let last = (last > 0).then(|| Timestamp::from_unix_seconds(last).unwrap());
        Candidate { unit: "u", key, bytes, last, again }
    }
    fn chosen(candidates: &[Candidate<'static>], budget: Option<u64>) -> String {
        let plan = plan(candidates, budget);
        assert_eq!(plan.chosen.len() as u64 + plan.left, candidates.len() as u64);
        plan.chosen.iter().map(|at| candidates[*at].key).collect()
    }

    #[test]
    fn what_was_wrong_comes_first_then_what_was_never_checked_then_the_oldest() {
        let all = [
            candidate("a", 10, 3, false),
            candidate("b", 10, 1, false),
            candidate("c", 10, 0, false),
            candidate("d", 10, 4, true),
            candidate("e", 10, 0, false),
        ];
        assert_eq!(chosen(&all, None), "dceba");
        assert_eq!(chosen(&all, Some(30)), "dce");
        assert_eq!(chosen(&all, Some(0)), "d");
        assert_eq!(plan(&all, Some(30)).left_bytes, 20);
    }

    #[test]
    fn one_object_larger_than_the_budget_is_read_alone_when_its_turn_comes() {
        let all = [candidate("a", 100, 1, false), candidate("b", 5, 2, false), candidate("c", 5, 3, false)];
        assert_eq!(chosen(&all, Some(10)), "a");
        let later = [candidate("a", 100, 9, false), candidate("b", 5, 2, false), candidate("c", 5, 3, false)];
        assert_eq!(chosen(&later, Some(10)), "bc");
    }

    #[test]
    fn damage_that_was_found_is_looked_at_again_whatever_the_budget() {
        let all = [candidate("a", 8, 1, true), candidate("b", 8, 1, true), candidate("c", 8, 0, false)];
        assert_eq!(chosen(&all, Some(10)), "ab");
    }
}
