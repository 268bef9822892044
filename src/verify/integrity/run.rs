//! One repository, from its records to its report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::finding::{Checked, Finding, Kind};
use super::gaps::Gaps;
use super::impact::Impact;
use super::items::{BackupCheck, Item};
use super::keys::Keys;
use super::memory::Memory;
use super::plan::{Candidate, Plan, plan};
use super::reading::{Trouble, Watch};
use super::records::{About, Survey, Wrong};
use super::wal::{WalHoldings, WalItem};
use super::whole::{of_gaps, wrong_identity};
use super::{Counts, RepositoryReport, Request, Scope, heal, marks, publish, records};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, ClusterName, RepoName, SystemId, Timestamp};
use crate::repository::Repository;
use crate::repository::catalog::CatalogEntry;
use crate::repository::keys::ROOT;
use crate::repository::keys::wal::WalRoot;
use crate::repository::signature::Trust;
use crate::util::clock::Clock;
use crate::util::progress::Progress;
use crate::util::{failpoint, human};

/// Objects read at once: enough to keep a core busy, few enough to leave the store to others.
const WORKERS: usize = 2;

/// Everything that the look at one repository needs.
pub(super) struct Cx<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a ClusterName,
    pub(super) repository: &'a Repository,
    /// To heal from.
    pub(super) others: Vec<Repository>,
    pub(super) keys: &'a Keys,
    pub(super) trust: &'a Trust,
    pub(super) scope: &'a Scope,
    pub(super) deep: bool,
    pub(super) heal: bool,
    /// How long WAL that is missing may still be on its way.
    pub(super) patience: Duration,
    pub(super) label: Option<String>,
    pub(super) clock: Clock,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) cancel: CancellationToken,
    pub(super) watch: Watch,
}

impl<'a> Cx<'a> {
    pub(super) fn new(
        request: &'a Request<'_>,
        repository: &'a Repository,
        others: Vec<Repository>,
        trust: &'a Trust,
    ) -> Self {
        let watch = Watch {
            runtime: Handle::current(),
            cancel: request.cancel.clone(),
            progress: Arc::clone(&request.progress),
        };
        Self {
            config: request.config,
            cluster: request.cluster,
            repository,
            others,
            keys: &request.keys,
            trust,
            scope: &request.scope,
            deep: request.deep,
            heal: request.heal,
            patience: request.config.verify.patience,
            label: request.label.clone(),
            clock: request.clock.clone(),
            progress: Arc::clone(&request.progress),
            cancel: request.cancel.clone(),
            watch,
        }
    }

    pub(super) fn cancelled(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::new(Code::Cancelled, "the verification was ended"));
        }
        Ok(())
    }

    pub(super) fn phase(&self, what: &str) {
        self.progress.phase(&format!("{}: {what}", self.repository.name));
    }

    /// Reads one object, on a blocking thread.
    pub(super) async fn check(&self, repository: &Repository, item: &Item) -> Checked<()> {
        let (repository, item, deep) = (repository.clone(), item.clone(), self.deep);
        let (keys, watch) = (self.keys.clone(), self.watch.clone());
        let work = tokio::task::spawn_blocking(move || item.check(&repository, &keys, &watch, deep));
        work.await.unwrap_or_else(|e| Err(Trouble::Store(Error::internal("a reader died").because(e))))
    }
}

/// What is known so far.
pub(super) struct Run<'a> {
    pub(super) cx: &'a Cx<'a>,
    pub(super) started_at: Timestamp,
    pub(super) survey: Survey,
    pub(super) wal: Vec<WalHoldings>,
    /// Base backups that were published since.
    pub(super) newer: Vec<CatalogEntry>,
    pub(super) before: Memory,
    /// Backups of which nothing is left though nobody marked them, and when that was first seen.
    pub(super) gone: BTreeMap<BackupId, Timestamp>,
    pub(super) items: Vec<Item>,
    /// Read in this run.
    pub(super) checked: BTreeSet<usize>,
    pub(super) wrong: Vec<Wrong>,
    pub(super) gaps: BTreeMap<SystemId, Gaps>,
    pub(super) report: RepositoryReport,
}

/// Looks at one repository; never fails, but says why it ended early.
pub(super) async fn one(cx: &Cx<'_>, budget: Option<u64>) -> RepositoryReport {
    let mut run = Run::new(cx);
    if let Err(error) = run.look(budget).await {
        run.report.interrupted = Some(error);
    }
    run.conclude();
    if let Err(error) = run.publish().await {
        run.report.notes.push(format!("what was checked could not be written down: {}", error.with_hint()));
    }
    run.report
}

impl<'a> Run<'a> {
    fn new(cx: &'a Cx<'a>) -> Self {
        let report = RepositoryReport {
            name: cx.repository.name.clone(),
            required: cx.repository.required,
            counts: Counts::default(),
            findings: Vec::new(),
            healed: Vec::new(),
            unproved: Vec::new(),
            left: (0, 0),
            oldest: None,
            expiring: 0,
            absent: Vec::new(),
            notes: Vec::new(),
            interrupted: None,
        };
        Self {
            cx,
            started_at: cx.clock.now(),
            survey: Survey::default(),
            wal: Vec::new(),
            newer: Vec::new(),
            before: Memory::default(),
            gone: BTreeMap::new(),
            items: Vec::new(),
            checked: BTreeSet::new(),
            wrong: Vec::new(),
            gaps: BTreeMap::new(),
            report,
        }
    }

    async fn look(&mut self, budget: Option<u64>) -> Result<()> {
        let cx = self.cx;
        cx.phase("records and listings");
        let read = marks::of_backups(cx).await?;
        self.survey = records::survey(cx, read.leaving).await?;
        self.wrong.append(&mut self.survey.wrong);
        let (last, doubts) = publish::newest(cx).await?;
        self.before = last.map(|report| report.memory().clone()).unwrap_or_default();
        self.wrong.extend(doubts);
        self.wrong.extend(marks::settle(cx, read.wrong, &mut self.survey).await?);
        self.look_for_lost_backups(&read.marked).await?;
        self.report.notes.append(&mut self.survey.notes);
        self.wal = self.load_wal().await?;
        for wal in &self.wal {
            if cx.scope.has_wal() {
                self.wrong.extend(marks::of_wal(cx, wal).await?);
            }
        }
        self.list_items().await?;
        let plan = self.plan(budget);
        self.read(&plan).await?;
        self.look_at_wal().await?;
        if cx.heal {
            self.heal().await?;
        }
        self.compare_heads().await
    }

    /// Everything that can be read here.
    async fn list_items(&mut self) -> Result<()> {
        let cx = self.cx;
        let mut items = Vec::new();
        let ours: Option<Vec<String>> = cx.keys.data.as_ref().map(|identities| identities.recipients());
        let mut closed = 0;
        for entry in self.survey.whole().filter(|entry| cx.scope.has(&entry.record.id)) {
            let record = &entry.record;
            let encrypted = !record.recipients.is_empty();
            let opens = !encrypted
                || ours.as_ref().is_some_and(|ours| record.recipients.iter().any(|r| ours.contains(r)));
            if encrypted && !opens && ours.is_some() {
                self.wrong.push(wrong_key(cx, entry));
            }
            closed += u64::from(!opens);
            let directory = crate::repository::keys::backup::directory(cx.cluster, &record.id);
            let listed = self.survey.keys_of(&directory);
            let check = BackupCheck::new(record.clone(), cx.cluster, listed, opens);
            items.extend(check.items(&self.survey.absent));
        }
        if closed > 0 {
            self.report.unproved.push(format!(
                "the contents of {closed} backups: their stored bytes are compared, and no identity here opens them"
            ));
        }
        items.extend(self.wal_items().await?);
        self.items = items;
        Ok(())
    }

    async fn wal_items(&mut self) -> Result<Vec<Item>> {
        let cx = self.cx;
        let mut items = Vec::new();
        for wal in &self.wal {
            let own = self.own_segments(wal.root.system);
            let found = if cx.scope.has_wal() { wal.items(None) } else { wal.items(Some(&own)) };
            let (open, closed): (Vec<WalItem>, Vec<WalItem>) =
                found.into_iter().partition(|item| cx.keys.opens_data(item.key()));
            if !closed.is_empty() {
                let bytes = closed.iter().map(WalItem::bytes).sum();
                self.report.unproved.push(format!(
                    "{} WAL objects ({}): they are there, and there is no identity on this host to open them",
                    closed.len(),
                    human::size(bytes)
                ));
            }
            if let Some(wrong) = wrong_identity(cx, &wal.root, &open).await? {
                let what = format!("{} WAL objects: no identity here opens them", open.len());
                self.report.unproved.push(what);
                self.wrong.push(wrong);
            } else {
                items.extend(open.into_iter().map(Item::Wal));
            }
        }
        Ok(items)
    }

    /// What the chosen base backups need to be consistent.
    fn own_segments(&self, system: SystemId) -> BTreeSet<crate::model::SegmentName> {
        let mut segments = BTreeSet::new();
        let chosen = self.survey.trusted().filter(|e| self.cx.scope.has(&e.record.id));
        for entry in chosen.filter(|e| e.record.system_identifier == system) {
            let Some(base) = &entry.record.base else { continue };
            let mut segment = base.wal_first;
            while segment.number(base.wal_segment_bytes) <= base.wal_last.number(base.wal_segment_bytes) {
                segments.insert(segment);
                segment = segment.next(base.wal_segment_bytes);
            }
        }
        segments
    }

    fn plan(&mut self, budget: Option<u64>) -> Plan {
        let candidates: Vec<Candidate<'_>> = self
            .items
            .iter()
            .map(|item| Candidate {
                unit: item.unit(),
                key: item.key(),
                bytes: item.bytes(),
                last: self.before.last(item.unit(), item.key()),
                again: self.before.failed.contains(item.key()),
            })
            .collect();
        let plan = plan(&candidates, budget);
        self.report.left = (plan.left, plan.left_bytes);
        plan
    }

    async fn read(&mut self, plan: &Plan) -> Result<()> {
        let cx = self.cx;
        cx.phase("reading objects");
        cx.progress.total(plan.bytes);
        let items: Vec<(usize, Item)> = plan.chosen.iter().map(|at| (*at, self.items[*at].clone())).collect();
        let reads = items.into_iter().map(|(at, item)| async move {
            let checked = match cx.check(cx.repository, &item).await {
                Err(Trouble::Store(error)) => second_look(cx, &item, error).await,
                checked => checked,
            };
            (at, checked)
        });
        let mut reads = futures::stream::iter(reads).buffered(WORKERS);
        while let Some((at, checked)) = reads.next().await {
            match checked {
                Ok(()) => {}
                Err(Trouble::Store(error)) => return Err(error),
                Err(Trouble::Wrong(kind, what)) => {
                    if !self.gone_meanwhile(at, kind).await? {
                        self.wrong.push(wrong(&self.items[at], kind, what));
                    }
                }
            }
            self.checked.insert(at);
            failpoint::reach("verify-after-object")?;
        }
        Ok(())
    }

    /// Whether a backup, or WAL, expired while this ran.
    async fn gone_meanwhile(&mut self, at: usize, kind: Kind) -> Result<bool> {
        if kind != Kind::Missing {
            return Ok(false);
        }
        let id = match &self.items[at] {
            // Whether it may be missing is for the look at WAL as a whole to say.
            Item::Wal(_) => return Ok(true),
            Item::Stream(stream) => stream.check.record.id.clone(),
        };
        if self.survey.goes(self.cx, &id).await? {
            return Ok(true);
        }
        let key = crate::repository::keys::backup::record(self.cx.cluster, &id);
        Ok(self.cx.repository.storage.head(&key).await?.is_none())
    }

    async fn heal(&mut self) -> Result<()> {
        let cx = self.cx;
        cx.phase("healing");
        let subject =
            heal::Subject { survey: &self.survey, wal: &self.wal, items: &self.items, gaps: &self.gaps };
        let outcome = heal::heal(cx, &subject, &self.wrong).await?;
        self.wrong.retain(|wrong| !outcome.mended.contains(&wrong.key));
        self.wrong.extend(outcome.wrong);
        self.report.notes.extend(outcome.notes);
        self.report.unproved.extend(outcome.unproved);
        let changed = !outcome.healed.is_empty();
        self.report.healed = outcome.healed;
        if changed { self.look_at_wal().await } else { Ok(()) }
    }

    /// What everything means.
    fn conclude(&mut self) {
        let lost: Vec<BackupId> = self
            .wrong
            .iter()
            .filter_map(|wrong| match &wrong.about {
                About::Backup(id, _) => Some(id.clone()),
                _ => None,
            })
            .chain(self.survey.leaving.ids().cloned())
            .collect();
        self.report.expiring = self.survey.expiring(self.cx.cluster).count() as u64;
        let others: Vec<&RepoName> = self.cx.others.iter().map(|other| &other.name).collect();
        let others = if self.cx.heal { &[][..] } else { &others };
        let impact = Impact { survey: &self.survey, lost: &lost, others };
        let repository = &self.cx.repository.name;
        let mut findings: Vec<Finding> =
            self.wrong.iter().map(|w| finding(self.cx, w, impact.of(w))).collect();
        for (system, gaps) in &self.gaps {
            let root = WalRoot::new(self.cx.cluster, *system);
            findings.extend(of_gaps(gaps, &root).map(|(kind, key, backup, (what, means))| Finding {
                kind,
                repository: repository.clone(),
                key,
                backup,
                what,
                means: means + &impact.of_whole(kind),
            }));
        }
        findings.sort_by(|a, b| {
            (a.backup.is_none(), &a.backup, &a.key).cmp(&(b.backup.is_none(), &b.backup, &b.key))
        });
        self.report.findings = findings;
        let mut complete: BTreeMap<&str, bool> = BTreeMap::new();
        for (at, item) in self.items.iter().enumerate() {
            let counts = &mut self.report.counts;
            let read = self.checked.contains(&at);
            match item {
                Item::Stream(stream) if read => counts.backup_objects += stream.parts.len() as u64,
                Item::Wal(_) if read => counts.wal_objects += 1,
                _ => {}
            }
            counts.bytes += if read { item.bytes() } else { 0 };
            if let Item::Stream(stream) = item {
                *complete.entry(stream.check.record.id.as_str()).or_insert(true) &= read;
            }
        }
        self.report.counts.backups = complete.values().filter(|complete| **complete).count() as u64;
        if self.report.interrupted.is_some() && self.gaps.is_empty() && !self.wal.is_empty() {
            self.report.unproved.push("WAL as a whole: it was not looked for holes".to_owned());
        }
    }
}

fn finding(cx: &Cx<'_>, wrong: &Wrong, means: String) -> Finding {
    let backup = match &wrong.about {
        About::Backup(id, _) => Some(id.clone()),
        _ => None,
    };
    Finding {
        kind: wrong.kind,
        repository: cx.repository.name.clone(),
        key: wrong.key.clone(),
        backup,
        what: wrong.what.clone(),
        means,
    }
}

fn wrong(item: &Item, kind: Kind, what: String) -> Wrong {
    let about = match item {
        Item::Stream(stream) => {
            let record = &stream.check.record;
            About::Backup(record.id.clone(), stream.parts.first().map(|part| part.key.clone()))
        }
        Item::Wal(wal) => About::Wal(wal.document.system_identifier, wal.content),
    };
    Wrong { kind, key: item.key().to_owned(), about, what }
}

/// The store failed for one object. While it answers otherwise, that is the object's fault.
async fn second_look(cx: &Cx<'_>, item: &Item, error: Error) -> Checked<()> {
    if error.code() == Code::Cancelled || error.code() == Code::Internal {
        return Err(Trouble::Store(error));
    }
    cx.repository.storage.head(ROOT).await?;
    match cx.check(cx.repository, item).await {
        Err(Trouble::Store(again)) if cx.repository.storage.head(ROOT).await.is_ok_and(|i| i.is_some()) => {
            Err(Trouble::wrong(Kind::Unreadable, again.to_string()))
        }
        checked => checked,
    }
}

fn wrong_key(cx: &Cx<'_>, entry: &CatalogEntry) -> Wrong {
    let key = crate::repository::keys::backup::record(cx.cluster, &entry.record.id);
    let what =
        format!("no identity here opens it; it is encrypted to {}", entry.record.recipients.join(", "));
    Wrong { kind: Kind::WrongKey, key, about: About::Backup(entry.record.id.clone(), None), what }
}
