//! What a restore of a part proves, and what it does not: every word of the report about databases that were left out.
//!
//! Nothing is asked of a database that is not there, and nothing counts for it. It is named, it is unproved, and so is the
//! whole; what is there is looked at as always.

use std::collections::{BTreeMap, BTreeSet};

use super::restored::Opened;
use crate::config::AssertionConfig;
use crate::error::Result;
use crate::postgres::hollow::{self, InvalidPages};
use crate::restore::part::Part;
use crate::util::human;
use crate::verify::inside::Running;
use crate::verify::report::{Check, LeftOut, Objective, PartOf, Report, Verdict};

const WHOLE: &str = "every database is restored";
/// Of a question that was not asked.
pub const WHY: &str = "its database was left out: there was no room for it";

/// Databases of a restored instance that are not there, by oid; none where the whole was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing(BTreeMap<u32, String>);

impl Missing {
    pub fn has(&self, database: &str) -> bool {
        self.0.values().any(|name| name == database)
    }
    pub fn has_oid(&self, database: u32) -> bool {
        self.0.contains_key(&database)
    }
}

/// As soon as it is known that it will be a part, by the names that the backup knows.
pub(super) fn announce(part: &Part, report: &mut Report) {
    let mut left_out: Vec<LeftOut> = Vec::new();
    for (oid, database) in &part.left_out {
        left_out.push(LeftOut { name: database.label(*oid), bytes: database.bytes });
    }
    let restored = part.kept.iter().map(|(oid, database)| database.label(*oid)).collect();
    tell(PartOf { restored, restored_bytes: part.bytes, left_out }, report);
}

/// The check that keeps the whole from being called proved, and the same in what was brought back.
fn tell(mut part: PartOf, report: &mut Report) {
    part.restored.sort();
    part.left_out.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    let bytes: u64 = part.left_out.iter().map(|database| database.bytes).sum();
    let planned = part.restored.len() + part.left_out.len();
    let check =
        Check::new("base backup", WHOLE, format!("{planned} databases")).essential().unproved(format!(
            "left out, for the scratch directory has no room for {} more: {}",
            human::size(bytes),
            part.left_out_text()
        ));
    report.checks.retain(|known| (known.of.as_str(), known.name.as_str()) != ("base backup", WHOLE));
    report.checks.insert(0, check);
    if let Some(recovered) = &mut report.recovered {
        recovered.part = Some(part);
    }
}

/// Looks which databases are there, closes the others, and reads what recovery said of pages that it lacked.
pub(super) async fn look(opened: &Opened, part: &Part, report: &mut Report) -> Result<Missing> {
    let Running { data, log, .. } = &opened.running;
    let session = opened.running.connect("template1").await?;
    let (mut there, mut missing) = (BTreeMap::new(), BTreeMap::new());
    for place in session.database_places().await? {
        if place.is_hollow(data) {
            session.allow_no_connections(&place.name).await?;
            missing.insert(place.oid, place.name);
        } else {
            there.insert(place.oid, place.name);
        }
    }
    let bytes = |oid: &u32| part.left_out.get(oid).map_or(0, |database| database.bytes);
    let mut left_out: Vec<LeftOut> =
        missing.iter().map(|(oid, name)| LeftOut { name: name.clone(), bytes: bytes(oid) }).collect();
    // At the restored moment some are there no more.
    let gone = part.left_out.iter().filter(|(oid, _)| !missing.contains_key(oid) && !there.contains_key(oid));
    left_out.extend(gone.map(|(oid, database)| LeftOut {
        name: format!("{} (dropped by then)", database.label(*oid)),
        bytes: database.bytes,
    }));
    let restored = there.values().cloned().collect();
    tell(PartOf { restored, restored_bytes: part.bytes, left_out }, report);
    let found = hollow::invalid_pages(log, |oid| {
        missing.contains_key(&oid) || part.left_out.contains_key(&oid) && !there.contains_key(&oid)
    })?;
    report.checks.push(pages(&found));
    Ok(Missing(missing))
}

fn pages(found: &InvalidPages) -> Check {
    let check = Check::new("recovery", "every page that WAL changes is there", "in all that was restored")
        .essential();
    if found.wrong > 0 {
        let mut words = vec![format!("WAL asked {} times for a page that is not there", found.wrong)];
        words.extend(found.examples.iter().cloned());
        return check.found(false, words.join("\n"));
    }
    let besides = match found.expected {
        0 => String::new(),
        n => format!("; {n} times one of a database that was left out was, as was to be expected"),
    };
    check.found(true, format!("no page was missing{besides}"))
}

/// Those whose database is there; of the others it is said that nothing was asked.
pub(super) fn askable(
    assertions: Vec<AssertionConfig>,
    missing: &Missing,
    report: &mut Report,
) -> Vec<AssertionConfig> {
    let (asked, left): (Vec<_>, Vec<_>) = assertions.into_iter().partition(|a| !missing.has(&a.database));
    let unproved = |a: AssertionConfig| Check::new("assertion", a.name, "true").unproved(WHY);
    report.checks.extend(left.into_iter().map(unproved));
    asked
}

/// A part that is back in time says nothing of the whole; one that is late says enough.
pub(super) fn objective(whole: Objective) -> Objective {
    let meaning = "until a part of the cluster was open, on this host; the whole takes longer".to_owned();
    let verdict =
        whole.verdict.map(|verdict| if verdict == Verdict::Holds { Verdict::Unproved } else { verdict });
    Objective { verdict, meaning, ..whole }
}

/// Takes away the files of what was left out, so that `pg_checksums` reads only what there is. The server is down.
pub(super) fn remove(running: &Running, part: &Part, missing: &Missing) -> Result<()> {
    let all: BTreeSet<u32> = part.left_out.keys().chain(missing.0.keys()).copied().collect();
    hollow::remove(&running.data, &all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_missing_in_what_was_restored_fails_the_proof_and_is_named() {
        let none = pages(&InvalidPages { expected: 7, ..InvalidPages::default() });
        assert_eq!(none.verdict, Verdict::Holds);
        assert!(none.found.contains("7 times one of a database that was left out"), "{}", none.found);
        let page = "page 3 of relation base/5/16385 is uninitialized".to_owned();
        let some = pages(&InvalidPages { expected: 7, wrong: 2, examples: vec![page.clone()] });
        assert_eq!(some.verdict, Verdict::Fails);
        assert!(some.found.contains(&page), "{}", some.found);
    }

    #[test]
    fn the_return_of_a_part_keeps_no_objective_and_may_miss_one() {
        let of = |verdict| {
            let objective = Objective {
                name: "RTO".to_owned(),
                objective_seconds: Some(1.0),
                achieved_seconds: Some(0.5),
                verdict,
                meaning: String::new(),
            };
            super::objective(objective).verdict
        };
        assert_eq!(of(Some(Verdict::Holds)), Some(Verdict::Unproved));
        assert_eq!(of(Some(Verdict::Fails)), Some(Verdict::Fails));
        assert_eq!(of(None), None);
    }
}
