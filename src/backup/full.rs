//! `backup full`, step by step; `super` says the order and its reasons.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::archiving::{self, Damaged, Watch};
use super::copy::{self, CopyJob, Destination};
use super::epilogue::{Copied, Done, Epilogue};
use super::finish;
use super::outside;
use super::preflight::{self, Ready};
use super::publish::{self, FullReport, RepositoryResult};
use super::walrange::WalNeeded;
use crate::config::{ClusterConfig, Config};
use crate::error::{Code, Error, Result};
use crate::model::{BackupId, BackupKind, Lsn, RepoName, Timestamp};
use crate::postgres::{self, BackupSession, ConnInfo, Scan, ServerFacts};
use crate::repository::documents::FORMAT;
use crate::repository::record::{BackupRecord, BaseBackup, TablespaceEntry};
use crate::util::clock::{Clock, Stopwatch};
use crate::util::progress::Progress;
use crate::util::{failpoint, host};

/// How often the backup's session is asked whether it lives.
const PING: Duration = Duration::from_secs(10);
/// How long an interrupted copy may take to end.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// What to back up, where to and how.
pub struct FullRequest<'a> {
    pub config: &'a Config,
    pub cluster: &'a ClusterConfig,
    /// Only this repository, which is then required.
    pub only: Option<&'a RepoName>,
    pub label: Option<String>,
    pub workers: usize,
    pub clock: Clock,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
    /// Asked once the cluster's lock is held, before anything is touched: an error ends the backup there. Who looked
    /// before the lock may have looked before another host's backup was there.
    pub still_wanted: Option<StillWanted>,
}

pub type StillWanted = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

pub(super) fn cancelled() -> Error {
    Error::new(Code::Cancelled, "the backup was stopped; nothing was published")
        .hint("start it again when you like: what it left behind is unreferenced and `expire` removes it")
}

/// Takes a full base backup. Ok means published in every required repository; look at
/// [`BackupRecord::is_damaged`] for pages that failed their checksum.
pub async fn full(request: FullRequest<'_>) -> Result<FullReport> {
    let watch = Stopwatch::start();
    let mut ready = preflight::run(&request).await?;
    archiving::prove(&request, &ready).await?;
    let relations = relation_names(&request, &mut ready).await?;

    let started_at = request.clock.now();
    let id = BackupId::new(started_at, BackupKind::Full, rand::random());
    let Ready { session, facts, data_directory, .. } = ready;
    let run = Run {
        request: &request,
        facts,
        data_directory,
        destination: Arc::new(Destination {
            cluster: request.cluster.name.clone(),
            id,
            targets: Arc::new(ready.targets),
            protection: ready.keys.protection,
            level: request.config.backup.compression,
            runtime: Handle::current(),
        }),
        metadata: ready.keys.metadata,
        relations,
        started_at,
    };
    let label = request.label.clone().unwrap_or_else(|| format!("pgkeep {}", run.destination.id));
    request.progress.phase("waiting for the starting checkpoint");
    let backup = tokio::select! {
        started = BackupSession::start(session, &label, true) => started?,
        () = request.cancel.cancelled() => return Err(cancelled()),
    };
    failpoint::reach("backup-after-start")?;
    let copied = run.copy(&backup).await?;
    let mut warnings = ready.warnings;
    warnings.extend(outside::left_out(&run.data_directory, &copied.scan));
    run.go_on()?;
    let done = run.stop_and_finish(backup, copied).await?;

    request.progress.phase("waiting for the WAL of the backup");
    let (segments, histories) = (done.wal.segments(), done.wal.histories());
    run.wait_for_wal(&ready.lock, &ready.wal_root, &done.wal).await?;
    let targets = &run.destination.targets;
    publish::drop_those_without_wal(targets, &ready.wal_root, &segments, &histories).await;

    let record = run.record(&done, &segments)?;
    run.go_on()?;
    publish::publish(targets, &record, &ready.keys.host_key, request.clock.now()).await?;
    Ok(run.report(record, &done, warnings, watch.elapsed()))
}

struct Run<'a> {
    request: &'a FullRequest<'a>,
    facts: ServerFacts,
    data_directory: std::path::PathBuf,
    destination: Arc<Destination>,
    metadata: crate::codec::Protection,
    relations: BTreeMap<String, String>,
    started_at: Timestamp,
}

impl Run<'_> {
    /// Between the steps: did somebody ask us to stop?
    fn go_on(&self) -> Result<()> {
        if self.request.cancel.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// Lists and copies the files while the session stays in use, then reads `pg_control`.
    async fn copy(&self, backup: &BackupSession) -> Result<Copied> {
        let request = self.request;
        let (directory, version) = (self.data_directory.clone(), self.facts.tablespace_version_directory());
        request.progress.phase("listing the data directory");
        let scan = blocking(move || postgres::scan(&directory, &version)).await?;
        request.progress.phase("copying");
        request.progress.total(scan.total_bytes());
        let job = CopyJob {
            destination: self.destination.clone(),
            entries: scan.entries.clone(),
            workers: request.workers,
            checksums: self.facts.data_checksums,
            stop: CancellationToken::new(),
            progress: request.progress.clone(),
        };
        let stop = job.stop.clone();
        let mut copying = Box::pin(blocking(move || copy::run(&job)));
        let interrupted = loop {
            tokio::select! {
                result = &mut copying => break Ok(result?),
                () = request.cancel.cancelled() => break Err(cancelled()),
                () = tokio::time::sleep(PING) => {
                    if let Err(e) = backup.ping().await {
                        break Err(e);
                    }
                }
            }
        };
        let result = match interrupted {
            Ok(result) => result,
            Err(error) => {
                stop.cancel();
                // The threads end before the uploads' runtime does; a store that hangs is not waited for.
                let _ = tokio::time::timeout(LAST_WAIT, copying).await;
                return Err(error);
            }
        };
        failpoint::reach("backup-before-stop")?;
        let directory = self.data_directory.clone();
        let control = blocking(move || finish::read_control(&directory)).await?;
        Ok(Copied { scan, result, control })
    }

    /// Stops the backup and writes what belongs after the copy.
    async fn stop_and_finish(&self, backup: BackupSession, copied: Copied) -> Result<Done> {
        self.request.progress.phase("ending the backup");
        let start = backup.started().clone();
        let (stop, session) =
            backup.stop().await.map_err(|e| e.while_doing("PostgreSQL did not end the backup"))?;
        failpoint::reach("backup-after-stop")?;
        // What tablespaces there were is the map's word; their oids and places now are the catalog's.
        let tablespaces = self.tablespaces(&copied.scan);
        drop(session);
        let control = &copied.control.control;
        let (stop_lsn, stop_timeline) = if start.from_standby {
            let timeline = control.min_recovery_timeline.unwrap_or(stop.label_facts.timeline);
            (control.min_recovery_point.max(Lsn(start.start_lsn.0 + 1)), timeline)
        } else {
            (stop.stop_lsn, stop.label_facts.timeline)
        };
        let wal = WalNeeded::find(
            start.start_lsn,
            stop.label_facts.timeline,
            stop_lsn,
            stop_timeline,
            self.facts.wal_segment_size,
            &self.data_directory,
        )?;
        let destination = self.destination.clone();
        let work = Epilogue {
            destination,
            metadata: self.metadata.clone(),
            data_directory: self.data_directory.clone(),
            facts: self.facts.clone(),
            stop,
            wal,
            copied,
            tablespaces,
            relations: self.relations.clone(),
            now: self.request.clock.now(),
        };
        // A store that is asked again and again must not outlast the patience of who waits.
        tokio::select! {
            done = blocking(move || work.run()) => done,
            () = self.request.cancel.cancelled() => Err(cancelled()),
        }
    }

    fn tablespaces(&self, scan: &Scan) -> Vec<TablespaceEntry> {
        let mut found: BTreeMap<u32, String> = self
            .facts
            .tablespaces
            .iter()
            .map(|t| (t.oid, t.location.to_string_lossy().into_owned()))
            .collect();
        // Made since the facts were asked for.
        found.extend(scan.tablespaces().map(|(oid, target)| (oid, target.to_string_lossy().into_owned())));
        found.into_iter().map(|(oid, location)| TablespaceEntry { oid, location }).collect()
    }

    async fn wait_for_wal(
        &self,
        lock: &super::lock::ClusterLock,
        root: &crate::repository::keys::wal::WalRoot,
        wal: &WalNeeded,
    ) -> Result<()> {
        let request = self.request;
        let before = archiving::state(lock.primary.as_ref()).await?;
        if self.facts.in_recovery
            && let Some(primary) = &lock.primary
        {
            // A standby cannot close a segment; a quiet primary might not for hours.
            primary.create_restore_point("pgkeep backup").await?;
            archiving::force_switch(primary, self.facts.wal_segment_size).await?;
        }
        let watch = Watch {
            root,
            archiver: lock.primary.as_ref(),
            before,
            cancel: &request.cancel,
            progress: &*request.progress,
            patience: archiving::patience(&self.facts, lock.primary.is_some()),
            hint: archiving::hint(&self.facts, lock.primary.is_some()),
            damaged: Damaged::Refused,
        };
        let required = self.destination.targets.required();
        archiving::wait_for(&required, &wal.segments(), &wal.histories(), &watch).await.map_err(|e| {
            e.while_doing("the backup was copied, but its WAL is not in the repository; it is not published")
        })
    }

    fn record(&self, done: &Done, segments: &[crate::model::SegmentName]) -> Result<BackupRecord> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(Error::internal("a backup without WAL"));
        };
        let protection = &self.destination.protection;
        Ok(BackupRecord {
            format: FORMAT,
            id: self.destination.id.clone(),
            kind: BackupKind::Full,
            cluster: self.destination.cluster.clone(),
            host: host::name(),
            pgkeep_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            finished_at: self.request.clock.now(),
            pg_version: format!("{}.{}", self.facts.version_num / 10_000, self.facts.version_num % 10_000),
            system_identifier: self.facts.system_identifier,
            recipients: protection.recipient_names(),
            codec: protection.codec_name().to_owned(),
            bytes_raw: done.bytes_raw,
            bytes_stored: done.objects.iter().map(|o| o.bytes).sum(),
            objects: done.objects.clone(),
            label: self.request.label.clone(),
            base: Some(BaseBackup {
                timeline: done.stop.label_facts.timeline,
                start_lsn: done.wal.start,
                stop_lsn: done.wal.stop,
                stop_time: done.stop.stop_time,
                wal_first: *first,
                wal_last: *last,
                wal_segment_bytes: self.facts.wal_segment_size,
                from_standby: done.stop.label_facts.from_standby,
                data_checksums: self.facts.data_checksums,
                page_errors: done.page_errors.clone(),
                parent: None,
                tablespaces: done.tablespaces.clone(),
                requires: Vec::new(),
            }),
            logical: None,
        })
    }

    fn report(self, record: BackupRecord, done: &Done, warnings: Vec<String>, took: Duration) -> FullReport {
        let repositories = RepositoryResult::of(&self.destination.targets);
        FullReport { record, repositories, warnings, took, vanished: done.vanished, files: done.files }
    }
}

/// What the files are called in SQL, for the index. Without the names of some database the backup is as good.
async fn relation_names(request: &FullRequest<'_>, ready: &mut Ready) -> Result<BTreeMap<String, String>> {
    let info = ConnInfo::resolve(&request.cluster.connection)?;
    let found = ready.session.all_relation_names(&info).await?;
    let unknown = found.unknown.into_iter().map(|what| format!("no names of relations from database {what}"));
    ready.warnings.extend(unknown);
    Ok(found.names)
}

/// Runs work on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("a thread of the backup panicked").because(e))?
}
