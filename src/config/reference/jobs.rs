//! The keys of `[[job]]`.

use super::{KeyDoc, SectionDoc, key};

const JOB: &str = "[[job]]";

pub(super) const SECTIONS: &[SectionDoc] = &[SectionDoc {
    head: JOB,
    example_head: "[[job]]",
    meaning: "What the agent does by itself; there may be several. Without an agent nothing here happens. A cluster has one base backup at a time: a job that is due meanwhile waits until the other has ended, and then runs once, however many of its times have passed.",
}];

#[rustfmt::skip]
pub(super) const KEYS: &[KeyDoc] = &[
    key(JOB, "name", "text", "required", "\"nightly\"",
        "For `pgkeep jobs` and messages. Hosts of one cluster that share a job give it the same name."),
    key(JOB, "kind", "choice", "required", "\"dump\"",
        "What it does. \"full\": a full base backup; \"dump\": databases by pg_dump; \"schema\": their schema alone; \
         \"tables\": tables as CSV; \"verify\": a look at everything that is stored; \
         \"drill\": a restore to a random second beside production that proves itself; \"restore-test\": \
         the same since the last proof, and the latest dump and the day's exports loaded and counted."),
    key(JOB, "databases", "list", "those of [dump]", "[\"app\"]",
        "Which databases, as in [dump]. For kinds \"dump\", \"schema\" and \"tables\"."),
    key(JOB, "tables", "list", "all; of an export, those of [dump]", "[\"users\"]",
        "Which tables, as in [dump]. For kinds \"dump\" and \"tables\"."),
    key(JOB, "where", "list", "all rows", "[\"users=active and id > 7\"]",
        "TABLE=CONDITION: of the tables so named only the rows for which it holds. For kind \"tables\"."),
    key(JOB, "repository", "text", "all", "\"us\"", "This repository alone. For kinds \"verify\", \"drill\" and \"restore-test\"."),
    key(JOB, "budget", "size", "everything", "\"50GiB\"",
        "How much one run reads, what was checked longest ago first; the next run goes on. For kind \"verify\"."),
    key(JOB, "deep", "yes/no", "false", "true", "Every WAL record is checked, too. For kind \"verify\"."),
    key(JOB, "heal", "yes/no", "false", "true",
        "What is damaged or missing is brought from another repository. For kind \"verify\"."),
    key(JOB, "cluster", "text", "the only one", "\"main\"", "Of which `[cluster.NAME]`; needed where several are configured."),
    key(JOB, "schedule", "text", "required", "\"0 2 * * *\"",
        "Minute, hour, day of the month, month, day of the week, as in crontab(5): lists, ranges, steps, names; 0 and 7 \
         are Sunday; with both day fields restricted either may fit. Or @hourly, @daily, @weekly, @monthly, @yearly. \
         `0 8-18 * * 1-5` is every hour of business."),
    key(JOB, "time_zone", "text", "\"UTC\"", "\"Europe/Berlin\"",
        "Of the schedule. A local time that is skipped runs at the next valid minute, a doubled one once."),
    key(JOB, "jitter", "duration", "\"30s\"", "\"30s\"",
        "A run begins up to so much later, so that hosts do not all begin at once; at most half the way to the next."),
    key(JOB, "retries", "number", "2", "2", "How often a run that failed is tried again before its next scheduled time."),
    key(JOB, "retry_after", "duration", "\"5m\"", "\"5m\"", "Until the first of these tries; doubled for each further one, up to an hour."),
    key(JOB, "deadline", "duration", "\"24h\"", "\"24h\"", "A run that takes longer is stopped and has failed."),
    key(JOB, "catch_up", "yes/no", "true", "true",
        "Times that passed while no agent ran are made up for by one run when it starts."),
    key(JOB, "run_on", "choice", "\"any\"", "\"any\"",
        "Where several hosts of a cluster have an agent: \"any\" (the first that begins), \"primary\" or \"standby\"."),
    key(JOB, "standby_grace", "duration", "\"10m\"", "\"10m\"",
        "With run_on = \"standby\": when no standby has begun after this, the primary's host does it."),
];

/// The example's job is a dump.
#[cfg(test)]
pub(super) fn is_for_another_kind(doc: &KeyDoc) -> bool {
    doc.section == JOB && ["where", "repository", "budget", "deep", "heal"].contains(&doc.key)
}
