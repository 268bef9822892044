//! The whole disaster, rehearsed: from the repository and the identity alone into an empty directory, to a random second.
//!
//! Order: leftovers of killed runs → the moment → the plan of a restore → room and reserve → restore and open → questions
//! from inside, `pg_amcheck`, data checksums → everything removed → the report. The restore is `restore --target-dir`'s own,
//! no second implementation: a private socket, no archiving, nothing that reaches out of its directory.
//!
//! Promises: production is not asked and not touched; the place goes away whatever happens (killed, the next run or the
//! agent's start removes it); the disks keep their reserve; what was not looked at is never called passed.
//!
//! Failure: what says something about the backups (a damaged object, a recovery that ends early, a store that is away) is a
//! failed drill with its report. What says something about this host alone (no room, no tools, a signal) is an error, and
//! nothing was proved either way.

pub mod part;
mod restored;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::part::Missing;
use super::report::{Check, Kind, Objective, Report, Verdict};
use super::{canary, inside, room};
use crate::codec::Identities;
use crate::config::{AssertionConfig, ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{Inclusion, RepoName, Target, TargetTimeline, Timestamp};
use crate::postgres::privilege::Owner;
use crate::repository::access;
use crate::repository::configured::{self, Patience};
use crate::repository::signature::PublicHostKey;
use crate::restore::part::{Part, Parts};
use crate::restore::past;
use crate::restore::prepare::{self, Task};
use crate::restore::reachable::{self, Stretch};
use crate::restore::request::{Action, Place as RestorePlace, Request};
use crate::restore::scratch::{self, Place, Purpose};
use crate::restore::settings::SideKind;
use crate::util::clock::{Clock, Stopwatch};
use crate::util::failpoint;
use crate::util::human;
use crate::util::priority::Priority;
use crate::util::progress::Progress;

/// What is recovered to.
#[derive(Debug, Clone)]
pub enum Moment {
    /// A second of what can be recovered. Of a restore test one that the latest base backup leads to, not proved before if there is any.
    Random {
        seed: u64,
    },
    Given {
        target: Target,
        inclusion: Inclusion,
        zone_assumed: bool,
    },
}

/// What a drill is given.
pub struct Drill<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    pub only: Option<&'a RepoName>,
    pub kind: Kind,
    pub moment: Moment,
    /// Where its place is made.
    pub scratch: PathBuf,
    pub trusted: Vec<PublicHostKey>,
    pub identities: Option<Identities>,
    pub fetch_command: String,
    pub owner: Owner,
    pub clock: Clock,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
    /// What the loss of production's host would cost now, where somebody knows (the agent).
    pub known_loss: Option<Duration>,
}

/// The report; an error only where nothing can be said of the backups.
pub async fn run(drill: &Drill<'_>) -> Result<Report> {
    for left in scratch::remove_leftovers(&drill.scratch).await? {
        drill.progress.note(&format!("removed what a killed run left: {}", left.display()));
    }
    room::refuse_without_reserve(&drill.scratch, drill.config.proof.reserve)?;
    let started_at = drill.clock.now();
    let mut report = Report::new(drill.kind, &drill.cluster.name, drill.only, started_at);
    let work = scratch::choose(&drill.scratch, drill.purpose(), started_at);
    let reserve = drill.config.proof.reserve;
    let mut place = None;
    let done = tokio::select! {
        done = Box::pin(attempt(drill, &work, &mut place, &mut report)) => done,
        () = drill.cancel.cancelled() => Err(ended_by_signal(drill.kind)),
        short = room::watch(vec![drill.scratch.clone()], reserve) => Err(short),
    };
    let removed = match place {
        Some(place) => remove(drill, place, &mut report).await,
        // Ended while it was being made.
        None => scratch::remove_leftovers(&drill.scratch).await.map(drop),
    };
    conclude(drill, &mut report, done, &removed)?;
    Ok(report)
}

/// An instance that could not be removed is told in any case: it holds plain data.
fn conclude(drill: &Drill<'_>, report: &mut Report, done: Result<()>, removed: &Result<()>) -> Result<()> {
    if let Err(left) = removed {
        report.checks.push(
            Check::new("scratch", "the instance is removed", "nothing is left")
                .found(false, left.to_string()),
        );
        drill.progress.note(&format!("WARNING: {left}"));
    }
    match done {
        Ok(()) => {}
        Err(e) if says_nothing_of_backups(e.code()) => return Err(e),
        Err(e) => {
            report.error = Some(e.with_hint());
        }
    }
    report.finished_at = drill.clock.now().max(report.started_at);
    report.judge();
    Ok(())
}

/// Of this host, or of what was asked for.
fn says_nothing_of_backups(code: Code) -> bool {
    matches!(
        code,
        Code::Usage
            | Code::Config
            | Code::Key
            | Code::Cancelled
            | Code::NoSpace
            | Code::Busy
            | Code::Tools
            | Code::TablespaceOutside
            | Code::Refused
            | Code::NotEmpty
            | Code::Internal
    )
}

pub(super) fn ended_by_signal(kind: Kind) -> Error {
    Error::new(Code::Cancelled, format!("the {} was ended by a signal, and nothing is proved", kind.words()))
        .hint("what it had made is removed; run it again when there is time")
}

async fn remove(drill: &Drill<'_>, place: Place, report: &mut Report) -> Result<()> {
    drill.progress.phase("removing the instance");
    let (watch, directory) = (Stopwatch::start(), place.directory.clone());
    let removed = place.remove().await.map_err(|e| scratch::left_behind(&directory, &e));
    report.step("remove", watch, false);
    removed
}

impl Drill<'_> {
    pub(super) fn purpose(&self) -> Purpose {
        match self.kind {
            Kind::Drill => Purpose::Drill,
            Kind::RestoreTest => Purpose::RestoreTest,
        }
    }

    fn task<'t>(&'t self, request: &'t Request, data_directory: PathBuf, now: Timestamp) -> Task<'t> {
        Task {
            config: self.config,
            cluster: self.cluster,
            only: self.only,
            request,
            trusted: self.trusted.clone(),
            identities: self.identities.clone(),
            fetch_command: self.fetch_command.clone(),
            owner: self.owner.clone(),
            data_directory,
            now,
            progress: Arc::clone(&self.progress),
            priority: self.priority(),
            side: SideKind::Scratch,
            parts: self.parts(),
        }
    }

    /// A drill rehearses the whole disaster. A restore test proves what it can.
    fn parts(&self) -> Option<Parts> {
        let seed = match (self.kind, &self.moment) {
            (Kind::Drill, _) => return None,
            (Kind::RestoreTest, Moment::Random { seed }) => *seed,
            (Kind::RestoreTest, Moment::Given { .. }) => 0,
        };
        Some(Parts { seed, reserve: self.config.proof.reserve })
    }

    /// Of all that is run for it.
    pub(super) fn priority(&self) -> Priority {
        Priority::low_if(self.config.proof.low_priority)
    }

    fn request(&self, work: &std::path::Path) -> Request {
        let (target, inclusion, zone_assumed) = match &self.moment {
            Moment::Random { .. } => (Target::Latest, Inclusion::After, false),
            Moment::Given { target, inclusion, zone_assumed } => (target.clone(), *inclusion, *zone_assumed),
        };
        Request {
            target,
            zone_assumed,
            inclusion,
            timeline: TargetTimeline::Highest,
            backup: None,
            place: RestorePlace::Directory(scratch::data_directory(work)),
            action: Action::Promote,
            map: std::collections::BTreeMap::new(),
            overwrite: false,
            standby: false,
            no_start: false,
            port: None,
            socket_dir: scratch::socket_directory(work),
        }
    }

    /// The user's, of this cluster.
    pub(super) fn assertions(&self) -> Vec<AssertionConfig> {
        self.config.assertions.iter().filter(|a| a.cluster == self.cluster.name).cloned().collect()
    }
}

/// How the target came about.
struct Chosen {
    words: String,
    seed: Option<u64>,
    stretches: Vec<Stretch>,
}

async fn attempt(
    drill: &Drill<'_>,
    work: &std::path::Path,
    place: &mut Option<Place>,
    report: &mut Report,
) -> Result<()> {
    let now = report.started_at;
    let mut request = drill.request(work);
    let data = scratch::data_directory(work);
    let chosen = choose(drill, &mut request, report, &data, now).await?;
    let task = drill.task(&request, data, now);
    let watch = Stopwatch::start();
    let prepared = Box::pin(prepare::run(&task)).await?;
    report.step("plan", watch, true);
    report.estimate = prepared.plan.estimate;
    report.recovered = Some(restored::described(&prepared.plan, chosen));
    report.notes.extend(prepared.plan.warnings.clone());
    report.objectives = vec![loss(drill, &prepared.plan, now)];
    room::refuse_without(&prepared.plan.space, drill.config.proof.reserve)?;
    let part = prepared.part.clone();
    if let Some(part) = &part {
        part::announce(part, report);
        drill.progress.note(&format!(
            "there is no room for {} of it: only a part is restored",
            human::size(part.missing())
        ));
    }
    *place = Some(Place::make(work, &drill.owner).await?);
    failpoint::reach("drill-after-place")?;
    let opened = restored::restore(&task, prepared, report).await?;
    let objective = restored::objective(drill.config, report);
    report.objectives.push(if part.is_some() { part::objective(objective) } else { objective });
    failpoint::reach("drill-after-restore")?;
    let Some(opened) = opened else { return Ok(()) };
    prove(drill, &request, &opened, part.as_ref(), report).await?;
    failpoint::reach("drill-after-proofs")
}

/// What is asked of the restored instance.
async fn prove(
    drill: &Drill<'_>,
    request: &Request,
    opened: &restored::Opened,
    part: Option<&Part>,
    report: &mut Report,
) -> Result<()> {
    let (proof, running) = (&drill.config.proof, &opened.running);
    drill.progress.phase("asking the restored instance");
    let watch = Stopwatch::start();
    let missing = match part {
        Some(part) => part::look(opened, part, report).await?,
        None => Missing::default(),
    };
    let assertions = part::askable(drill.assertions(), &missing, report);
    let questions = inside::questions(opened.last_kept, &assertions);
    report.checks.extend(inside::ask(running, &questions, proof.deadline).await);
    let canary = canary::check(running, &opened.canary, &request.target, &drill.config.canary, &missing);
    report.checks.extend(canary.await);
    report.step("questions", watch, false);
    let of = if part.is_some() { inside::RESTORED } else { inside::ALL };
    let watch = Stopwatch::start();
    report.checks.push(inside::amcheck(running, of, proof, &drill.progress).await);
    report.step("pg_amcheck", watch, false);
    let watch = Stopwatch::start();
    inside::stop(running).await?;
    if let Some(part) = part {
        part::remove(running, part, &missing)?;
    }
    report.checks.push(inside::checksums(running, of, proof, &drill.progress).await);
    report.step("data checksums", watch, false);
    Ok(())
}

async fn choose(
    drill: &Drill<'_>,
    request: &mut Request,
    report: &mut Report,
    data: &std::path::Path,
    now: Timestamp,
) -> Result<Chosen> {
    let Moment::Random { seed } = drill.moment else {
        return Ok(Chosen { words: "it was asked for".to_owned(), seed: None, stretches: Vec::new() });
    };
    let watch = Stopwatch::start();
    let stretches = reachable::stretches(&drill.task(request, data.to_path_buf(), now)).await?;
    let second = match drill.kind {
        Kind::Drill => reachable::random_second(&stretches, None, seed),
        Kind::RestoreTest => reachable::second_of_the_latest(&stretches, last_proof(drill, now).await?, seed),
    };
    report.step("choose the moment", watch, false);
    let Some(second) = second else {
        // An idle database is no fault, and its backup is to be proved all the same.
        let words = "nothing was committed since the last base backup, so to the end of WAL";
        drill.progress.note(words);
        return Ok(Chosen { words: words.to_owned(), seed: None, stretches });
    };
    request.target = Target::Time(second);
    drill.progress.note(&format!("to {}, a random second (--seed {seed})", second.postgres()));
    Ok(Chosen { words: format!("a random second, seed {seed}"), seed: Some(seed), stretches })
}

async fn last_proof(drill: &Drill<'_>, now: Timestamp) -> Result<Option<Timestamp>> {
    let trust = access::trust(drill.config)?;
    let opened = configured::open_all(drill.config, drill.only, Patience::default()).await?;
    let (past, notes) = past::read(drill.config, opened.available(), &drill.cluster.name, &trust, now).await;
    for note in &notes {
        drill.progress.note(note);
    }
    Ok(past.proved_at)
}

/// What would be lost if production's host died now. From here only the age of the newest commit is seen; whether there
/// were later ones, nobody can say who does not ask production.
fn loss(drill: &Drill<'_>, plan: &crate::restore::plan::RestorePlan, now: Timestamp) -> Objective {
    let objective = drill.config.proof.rpo.map(|span| span.as_secs_f64());
    let newest = plan.lost.last.or(plan.target.last_kept).map(|commit| commit.at);
    let age = newest.map(|at| now.since(at).as_secs_f64());
    let (achieved, meaning) = match drill.known_loss {
        Some(loss) => (
            Some(loss.as_secs_f64()),
            "commits of the last so many seconds would have been lost with production's host, as its agent knew then".to_owned(),
        ),
        None => (
            age,
            "so old was the newest commit in the repository; whether there were later ones cannot be seen from here".to_owned(),
        ),
    };
    let verdict = objective.map(|objective| match achieved {
        Some(achieved) if achieved <= objective => Verdict::Holds,
        Some(_) if drill.known_loss.is_some() => Verdict::Fails,
        _ => Verdict::Unproved,
    });
    Objective {
        name: "RPO".to_owned(),
        objective_seconds: objective,
        achieved_seconds: achieved,
        verdict,
        meaning,
    }
}
