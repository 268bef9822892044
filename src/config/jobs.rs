//! `[[job]]`: what the agent runs, when, and how patiently. Keys of one kind alone are read by that kind's line of
//! [`KINDS`]; every other kind refuses them as unknown.

use std::collections::HashSet;
use std::time::Duration;

use chrono_tz::Tz;

use super::ClusterConfig;
use super::dump;
use super::reader::Section;
use super::schedule::Schedule;
use super::sections::NAME_RULE;
use crate::model::{BackupKind, ClusterName, DatabasePattern, JobName, RepoName, TableFilter, TablePattern};

/// A `[[job]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobConfig {
    pub name: JobName,
    pub work: JobWork,
    pub cluster: ClusterName,
    pub schedule: Schedule,
    /// A run begins at most so much later than scheduled; always the same for one scheduled time of one host.
    pub jitter: Duration,
    /// Tries after one that failed.
    pub retries: u32,
    /// Until the first of them; doubled for each further one.
    pub retry_after: Duration,
    /// A run that takes longer is stopped and has failed.
    pub deadline: Duration,
    /// Whether scheduled times that passed while no agent ran are made up for, once.
    pub catch_up: bool,
    pub run_on: RunOn,
    /// With `run_on = "standby"`: how long the primary's host leaves a scheduled time to a standby.
    pub standby_grace: Duration,
}

/// What a job does, with what only its kind knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobWork {
    /// A full base backup.
    Full,
    /// Databases by `pg_dump`: all of each, or these tables. No databases: as `[dump]` says.
    Dump { databases: Vec<DatabasePattern>, tables: Vec<TablePattern> },
    /// The DDL of databases.
    Schema { databases: Vec<DatabasePattern> },
    /// Tables as CSV. No tables: those of `[dump]`.
    Tables { databases: Vec<DatabasePattern>, tables: Vec<TablePattern>, filters: Vec<TableFilter> },
    /// A look at what is stored.
    Verify(VerifyWork),
    /// A restore to a random second that proves itself, from this repository alone or from all.
    Drill { repository: Option<RepoName> },
    /// The same since the last proof, and the latest dump and the day's exports.
    RestoreTest { repository: Option<RepoName> },
}

/// How closely, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyWork {
    /// This one alone.
    pub repository: Option<RepoName>,
    /// Stored bytes that one run may read.
    pub budget: Option<u64>,
    /// Every WAL record, too.
    pub deep: bool,
    pub heal: bool,
}

/// Reads the keys that a kind alone has.
type ReadWork = fn(&mut Section<'_>) -> JobWork;

/// Every `kind`.
const KINDS: [(&str, ReadWork); 7] = [
    ("full", |_| JobWork::Full),
    ("dump", read_dump),
    ("schema", read_schema),
    ("tables", read_tables),
    ("verify", read_verify),
    ("drill", |section| JobWork::Drill { repository: read_repository(section) }),
    ("restore-test", |section| JobWork::RestoreTest { repository: read_repository(section) }),
];

impl JobWork {
    /// `kind`, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Dump { .. } => "dump",
            Self::Schema { .. } => "schema",
            Self::Tables { .. } => "tables",
            Self::Verify(_) => "verify",
            Self::Drill { .. } => "drill",
            Self::RestoreTest { .. } => "restore-test",
        }
    }
    /// The kind of backup that a run makes; None where it makes none.
    pub fn backup_kind(&self) -> Option<BackupKind> {
        match self {
            Self::Full => Some(BackupKind::Full),
            Self::Dump { .. } => Some(BackupKind::Dump),
            Self::Schema { .. } => Some(BackupKind::Schema),
            Self::Tables { .. } => Some(BackupKind::Tables),
            Self::Verify(_) | Self::Drill { .. } | Self::RestoreTest { .. } => None,
        }
    }
    /// The repository that it uses alone.
    pub fn repository(&self) -> Option<&RepoName> {
        match self {
            Self::Verify(work) => work.repository.as_ref(),
            Self::Drill { repository } | Self::RestoreTest { repository } => repository.as_ref(),
            _ => None,
        }
    }
}

/// Which host of a cluster runs the job, where several have an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunOn {
    /// Whoever is first.
    #[default]
    Any,
    Primary,
    /// A standby; the primary where none has begun within the grace.
    Standby,
}

const JITTER: Duration = Duration::from_secs(30);
const RETRIES: u32 = 2;
const RETRY_AFTER: Duration = Duration::from_mins(5);
const DEADLINE: Duration = Duration::from_hours(24);
const STANDBY_GRACE: Duration = Duration::from_mins(10);

impl JobConfig {
    /// A job with the defaults of every key.
    pub fn new(name: JobName, work: JobWork, cluster: ClusterName, schedule: Schedule) -> Self {
        Self {
            name,
            work,
            cluster,
            schedule,
            jitter: JITTER,
            retries: RETRIES,
            retry_after: RETRY_AFTER,
            deadline: DEADLINE,
            catch_up: true,
            run_on: RunOn::default(),
            standby_grace: STANDBY_GRACE,
        }
    }
}

pub(super) fn read(root: &mut Section<'_>, clusters: &[ClusterConfig]) -> Vec<JobConfig> {
    let mut names = HashSet::new();
    let sections = root.list_of_tables("job").into_iter();
    sections.filter_map(|section| job(section, clusters, &mut names)).collect()
}

fn job(
    mut section: Section<'_>,
    clusters: &[ClusterConfig],
    names: &mut HashSet<JobName>,
) -> Option<JobConfig> {
    let name = section.required_string("name");
    let parsed = name.as_deref().and_then(JobName::parse);
    match (&name, &parsed) {
        (Some(name), None) => section.fault("name", format!("`{name}` is not a valid name: {NAME_RULE}")),
        (_, Some(name)) => {
            section.rename(format!("job.{name}"));
            if !names.insert(name.clone()) {
                section.fault("name", "the name is there twice");
            }
        }
        (None, None) => {}
    }
    let work = work(&mut section);
    let cluster = cluster(&mut section, clusters);
    let schedule = schedule(&mut section);
    let jitter = section.pause("jitter");
    let retries = section.integer("retries", 0..=100);
    let retry_after = section.duration("retry_after");
    let deadline = section.duration("deadline");
    let catch_up = section.boolean("catch_up");
    let places = [("any", RunOn::Any), ("primary", RunOn::Primary), ("standby", RunOn::Standby)];
    let run_on = section.choice("run_on", &places);
    let standby_grace = section.duration("standby_grace");
    section.finish();
    let job = JobConfig::new(parsed?, work?, cluster?, schedule?);
    Some(JobConfig {
        jitter: jitter.unwrap_or(job.jitter),
        retries: retries.unwrap_or(job.retries),
        retry_after: retry_after.unwrap_or(job.retry_after),
        deadline: deadline.unwrap_or(job.deadline),
        catch_up: catch_up.unwrap_or(job.catch_up),
        run_on: run_on.unwrap_or(job.run_on),
        standby_grace: standby_grace.unwrap_or(job.standby_grace),
        ..job
    })
}

/// The kind, with the keys that it alone has.
fn work(section: &mut Section<'_>) -> Option<JobWork> {
    if !section.has("kind") {
        section.take("kind");
        section.fault("kind", "is missing");
        return None;
    }
    let read = section.choice("kind", &KINDS)?;
    Some(read(section))
}

fn read_dump(section: &mut Section<'_>) -> JobWork {
    JobWork::Dump { databases: dump::databases(section), tables: dump::tables(section) }
}

fn read_schema(section: &mut Section<'_>) -> JobWork {
    JobWork::Schema { databases: dump::databases(section) }
}

/// Whether it is configured shows when all sections are read.
fn read_repository(section: &mut Section<'_>) -> Option<RepoName> {
    let name = section.string("repository")?;
    let parsed = RepoName::parse(&name);
    if parsed.is_none() {
        section.fault("repository", format!("`{name}` is not a valid name: {NAME_RULE}"));
    }
    parsed
}

fn read_tables(section: &mut Section<'_>) -> JobWork {
    let (databases, tables) = (dump::databases(section), dump::tables(section));
    JobWork::Tables { databases, tables, filters: dump::filters(section) }
}

fn read_verify(section: &mut Section<'_>) -> JobWork {
    JobWork::Verify(VerifyWork {
        repository: read_repository(section),
        budget: section.size("budget"),
        deep: section.boolean("deep").unwrap_or(false),
        heal: section.boolean("heal").unwrap_or(false),
    })
}

/// The named cluster; without a name the only one.
pub(super) fn cluster(section: &mut Section<'_>, clusters: &[ClusterConfig]) -> Option<ClusterName> {
    let names = || clusters.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    match (section.string("cluster"), clusters) {
        (Some(name), _) => {
            let found = clusters.iter().find(|c| c.name.as_str() == name).map(|c| c.name.clone());
            // Without any cluster the file has that fault already.
            if found.is_none() && !clusters.is_empty() {
                section.fault("cluster", format!("there is no [cluster.{name}]; there are: {}", names()));
            }
            found
        }
        (None, [only]) => Some(only.name.clone()),
        (None, []) => None,
        (None, _) => {
            section.fault("cluster", format!("is missing; several are configured: {}", names()));
            None
        }
    }
}

fn schedule(section: &mut Section<'_>) -> Option<Schedule> {
    let zone = match section.string("time_zone") {
        None => Some(Tz::UTC),
        Some(name) => {
            let zone = name.parse::<Tz>().ok();
            if zone.is_none() {
                let what = format!("`{name}` is not a time zone such as \"Europe/Berlin\" or \"UTC\"");
                section.fault("time_zone", what);
            }
            zone
        }
    };
    let text = section.required_string("schedule")?;
    // With a wrong zone the schedule's own faults are told all the same.
    match Schedule::parse(&text, zone.unwrap_or(Tz::UTC)) {
        Ok(schedule) => zone.map(|_| schedule),
        Err(what) => {
            section.fault("schedule", what);
            None
        }
    }
}

#[cfg(test)]
mod tests;
