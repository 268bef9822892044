//! The board as Prometheus's text. A pure function of a snapshot: nothing is kept between two scrapes, and what the
//! board does not know is absent instead of zero. Names, units and meanings stand in [`table`].

pub mod process;
pub mod table;

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric as Sample, MetricFamily, MetricType};

use self::process::ProcessFacts;
use self::table::{self as t, Kind, Metric};
use super::board::{
    BackupFacts, ClusterFacts, Failure, JobFacts, RunOutcome, Severity, Snapshot, StoreFacts,
};
use super::exposure::{self, Loss};
use crate::error::{Error, Result};
use crate::model::{ClusterName, Timestamp};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Everything, in order of names.
pub fn render(snapshot: &Snapshot, process: &ProcessFacts, now: Timestamp) -> Result<String> {
    let mut out = Exposition::default();
    agent(&mut out, snapshot, process);
    for (name, cluster) in &snapshot.clusters {
        let labels = [name.as_str()];
        exposure(&mut out, &labels, cluster, now);
        server(&mut out, &labels, cluster);
        archive(&mut out, &labels, cluster, now);
        tail(&mut out, &labels, cluster, now);
        canary(&mut out, &labels, cluster, now);
        backups(&mut out, name, &cluster.backups, now);
        verified(&mut out, name, cluster);
    }
    for (name, store) in &snapshot.repositories {
        stores(&mut out, name.as_str(), store);
    }
    for (name, job) in &snapshot.jobs {
        jobs(&mut out, &[job.cluster.as_str(), name, &job.kind], job, now);
    }
    alerts(&mut out, snapshot);
    out.text()
}

/// Samples by metric, as they come.
#[derive(Default)]
struct Exposition(BTreeMap<&'static str, (&'static Metric, Vec<Sample>)>);

impl Exposition {
    /// Label values in the order of the table.
    fn set(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        let pairs = metric.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut sample = Sample::from_label(pairs.collect());
        match metric.kind {
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
        }
        self.0.entry(metric.name).or_insert_with(|| (metric, Vec::new())).1.push(sample);
    }
    fn number(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        self.set(metric, labels, value as f64);
    }
    fn truth(&mut self, metric: &'static Metric, labels: &[&str], value: bool) {
        self.set(metric, labels, f64::from(u8::from(value)));
    }
    /// Absent when it is not known.
    fn known(&mut self, metric: &'static Metric, labels: &[&str], value: Option<u64>) {
        if let Some(value) = value {
            self.number(metric, labels, value);
        }
    }
    fn moment(&mut self, metric: &'static Metric, labels: &[&str], at: Option<Timestamp>) {
        if let Some(at) = at {
            self.set(metric, labels, at.0.timestamp_micros() as f64 / 1e6);
        }
    }
    fn age(&mut self, metric: &'static Metric, labels: &[&str], at: Option<Timestamp>, now: Timestamp) {
        if let Some(at) = at {
            self.set(metric, labels, now.since(at).as_secs_f64());
        }
    }
    fn failing(&mut self, metric: &'static Metric, labels: &[&str], failure: Option<&Failure>) {
        self.truth(metric, labels, failure.is_some());
    }

    fn text(self) -> Result<String> {
        let families = self.0.into_values().map(|(metric, samples)| {
            let mut family = MetricFamily::default();
            family.set_name(metric.name.to_owned());
            family.set_help(metric.help.to_owned());
            family.set_field_type(match metric.kind {
                Kind::Gauge => MetricType::GAUGE,
                Kind::Counter => MetricType::COUNTER,
            });
            family.set_metric(samples);
            family
        });
        TextEncoder::new()
            .encode_to_string(&families.collect::<Vec<_>>())
            .map_err(|e| Error::internal("metrics cannot be written as text").because(e))
    }
}

fn agent(out: &mut Exposition, snapshot: &Snapshot, process: &ProcessFacts) {
    out.number(t::BUILD_INFO, &[&snapshot.version], 1);
    out.moment(t::START_TIME, &[], Some(snapshot.started_at));
    out.failing(t::RELOAD_REFUSED, &[], snapshot.reload_refused.as_ref());
    out.known(t::RESIDENT, &[], process.resident_bytes);
    if let Some(seconds) = process.cpu_seconds {
        out.set(t::CPU, &[], seconds);
    }
    for (name, task) in &snapshot.tasks {
        out.number(t::TASK_STARTS, &[name], task.starts_total);
        out.moment(t::TASK_FAILED, &[name], task.failure.as_ref().map(|f| f.at));
    }
}

fn exposure(out: &mut Exposition, labels: &[&str], cluster: &ClusterFacts, now: Timestamp) {
    match exposure::loss(cluster, now) {
        Loss::Unknown | Loss::Standby => {}
        Loss::Everything => out.set(t::RPO_SECONDS, labels, f64::INFINITY),
        Loss::Commits { seconds, bytes, .. } => {
            out.set(t::RPO_SECONDS, labels, seconds);
            out.known(t::RPO_BYTES, labels, bytes);
        }
    }
    out.known(t::RTO_SECONDS, labels, exposure::time_to_return(cluster).map(|r| r.seconds));
}

fn server(out: &mut Exposition, labels: &[&str], cluster: &ClusterFacts) {
    let server = &cluster.server;
    if server.asked_at.is_none() && server.error.is_none() {
        return;
    }
    out.truth(t::SERVER_UP, labels, server.error.is_none());
    out.truth(t::SERVER_STANDBY, labels, server.in_recovery);
    out.truth(t::ARCHIVING_OFF, labels, server.archiving_off);
    out.known(t::FLUSHED, labels, server.flush_lsn.map(|lsn| lsn.0));
    out.number(t::PG_WAL, labels, server.pg_wal_bytes);
    out.number(t::WAL_DISK, labels, server.wal_disk_bytes);
    out.number(t::WAL_DISK_FREE, labels, server.wal_disk_free_bytes);
    out.known(t::WAL_DISK_FULL_IN, labels, server.wal_disk_full_in_seconds);
    out.known(t::DATA_BYTES, labels, server.data_bytes);
}

fn archive(out: &mut Exposition, labels: &[&str], cluster: &ClusterFacts, now: Timestamp) {
    let archive = &cluster.archive;
    out.number(t::ARCHIVE_WAITING, labels, archive.waiting_files);
    out.number(t::ARCHIVE_WAITING_BYTES, labels, archive.waiting_bytes);
    out.age(t::ARCHIVE_LAG_SECONDS, labels, Some(archive.waiting_since.unwrap_or(now)), now);
    let lag = cluster.server.flush_lsn.zip(archive.archived_to).map(|(to, from)| to.since(from));
    out.known(t::ARCHIVE_LAG_BYTES, labels, lag);
    out.known(t::ARCHIVED_TO, labels, archive.archived_to.map(|lsn| lsn.0));
    out.moment(t::ARCHIVED_AT, labels, archive.archived_at);
    out.moment(t::ARCHIVE_LOOKED, labels, archive.scanned_at);
    out.number(t::ARCHIVE_FILES, labels, archive.files_total);
    out.number(t::ARCHIVE_PLAIN, labels, archive.plain_bytes_total);
    out.number(t::ARCHIVE_STORED, labels, archive.stored_bytes_total);
    out.number(t::ARCHIVE_FAILURES, labels, archive.failures_total);
    out.failing(t::ARCHIVE_FAILING, labels, archive.failure.as_ref());
    out.number(t::ARCHIVE_HOLES, labels, archive.holes.len() as u64);
    out.number(t::ARCHIVE_DAMAGED, labels, archive.damaged.len() as u64);
    out.number(t::ARCHIVE_CONFLICTS, labels, archive.conflicts.len() as u64);
}

fn tail(out: &mut Exposition, labels: &[&str], cluster: &ClusterFacts, now: Timestamp) {
    let tail = &cluster.tail;
    out.truth(t::TAIL_ENABLED, labels, tail.enabled);
    out.age(t::TAIL_LAG, labels, tail.current_at, now);
    out.known(t::TAIL_TO, labels, tail.shipped_to.map(|lsn| lsn.0));
    out.number(t::TAIL_HEADS, labels, tail.heads_total);
    out.number(t::TAIL_PLAIN, labels, tail.plain_bytes_total);
    out.number(t::TAIL_STORED, labels, tail.stored_bytes_total);
    out.number(t::TAIL_FAILURES, labels, tail.failures_total);
    out.failing(t::TAIL_FAILING, labels, tail.failure.as_ref());
}

fn canary(out: &mut Exposition, labels: &[&str], cluster: &ClusterFacts, now: Timestamp) {
    let canary = &cluster.canary;
    if !canary.enabled {
        return;
    }
    out.number(t::CANARY_ROWS, labels, canary.rows_total);
    let written = canary.written_at.filter(|_| !canary.standby);
    out.moment(t::CANARY_WRITTEN, labels, written);
    out.age(t::CANARY_AGE, labels, written, now);
    out.failing(t::CANARY_FAILING, labels, canary.failure.as_ref());
}

fn stores(out: &mut Exposition, name: &str, store: &StoreFacts) {
    let labels = [name];
    if store.failure.is_some() || store.answered_at.is_some() {
        out.truth(t::STORE_UP, &labels, store.failure.is_none());
    }
    out.truth(t::STORE_REQUIRED, &labels, store.required);
    out.moment(t::STORE_ANSWERED, &labels, store.answered_at);
    for (operation, counts) in &store.operations {
        let labels = [name, operation];
        out.number(t::STORE_OPERATIONS, &labels, counts.requests_total);
        out.number(t::STORE_FAILURES, &labels, counts.failures_total);
        out.set(t::STORE_SECONDS, &labels, counts.seconds_total);
    }
    out.number(t::STORE_SENT, &labels, store.sent_bytes_total);
    out.number(t::STORE_RECEIVED, &labels, store.received_bytes_total);
    out.known(t::STORE_USED, &labels, store.used_bytes);
    out.known(t::STORE_CAPACITY, &labels, store.capacity_bytes);
    out.moment(t::STORE_CREDENTIALS, &labels, store.credentials_expire_at);
}

fn backups(out: &mut Exposition, cluster: &ClusterName, facts: &BackupFacts, now: Timestamp) {
    out.moment(t::CATALOG_SEEN, &[cluster.as_str()], facts.seen_at);
    out.moment(t::PROVED, &[cluster.as_str()], facts.proved_at);
    for (kind, newest) in &facts.last {
        // One with damage is no good one.
        let last =
            if kind == "full" { facts.last_full.as_ref() } else { Some(newest).filter(|b| !b.damaged) };
        let Some(last) = last else { continue };
        let labels = [cluster.as_str(), kind];
        out.moment(t::BACKUP_LAST, &labels, Some(last.finished_at));
        out.age(t::BACKUP_AGE, &labels, Some(last.finished_at), now);
        out.number(t::BACKUP_RAW, &labels, last.bytes_raw);
        out.number(t::BACKUP_STORED, &labels, last.bytes_stored);
        out.number(t::BACKUP_SECONDS, &labels, last.took_seconds);
    }
}

fn verified(out: &mut Exposition, cluster: &ClusterName, facts: &ClusterFacts) {
    for (repository, seen) in &facts.verified {
        let labels = [cluster.as_str(), repository.as_str()];
        out.moment(t::VERIFIED, &labels, Some(seen.at));
        out.number(t::VERIFY_FINDINGS, &labels, seen.findings);
        out.number(t::VERIFY_HEALED, &labels, seen.healed);
        out.number(t::VERIFY_UNPROVED, &labels, seen.unproved);
        out.number(t::VERIFY_BYTES, &labels, seen.bytes);
        out.number(t::VERIFY_LEFT, &labels, seen.left_bytes);
        out.moment(t::VERIFY_OLDEST, &labels, seen.oldest_check_at);
    }
}

fn jobs(out: &mut Exposition, labels: &[&str], job: &JobFacts, now: Timestamp) {
    out.truth(t::JOB_RUNNING, labels, job.running.is_some());
    if let Some(running) = &job.running {
        out.number(t::JOB_DONE, labels, running.done_bytes);
        out.known(t::JOB_TOTAL, labels, running.total_bytes);
    }
    out.moment(t::JOB_NEXT, labels, job.next_at);
    out.moment(t::JOB_SUCCESS, labels, job.last_success_at);
    out.age(t::JOB_AGE, labels, job.last_success_at, now);
    out.number(t::JOB_FAILURES, labels, job.failures_in_a_row.into());
    let Some(last) = &job.last else { return };
    out.truth(t::JOB_FAILED, labels, matches!(last.outcome, RunOutcome::Failed | RunOutcome::Finding));
    let took = last.finished_at.since(last.started_at).as_secs_f64();
    out.set(t::JOB_SECONDS, labels, took);
    out.known(t::JOB_RAW, labels, last.bytes_raw);
    out.known(t::JOB_STORED, labels, last.bytes_stored);
    if let Some(raw) = last.bytes_raw.filter(|_| took > 0.0) {
        out.set(t::JOB_RATE, labels, raw as f64 / took);
    }
}

fn alerts(out: &mut Exposition, snapshot: &Snapshot) {
    for severity in [Severity::Warning, Severity::Critical] {
        let open = snapshot.alerts.iter().filter(|alert| alert.severity == severity).count();
        out.number(t::ALERTS_OPEN, &[word(severity)], open as u64);
    }
    for alert in &snapshot.alerts {
        out.moment(t::ALERT, &[&alert.rule, word(alert.severity), &alert.key], Some(alert.since));
    }
    for (name, sink) in &snapshot.sinks {
        out.number(t::SINK_WAITING, &[name], sink.waiting);
        out.number(t::SINK_DELIVERED, &[name], sink.delivered_total);
        out.number(t::SINK_DROPPED, &[name], sink.dropped_total);
        out.failing(t::SINK_FAILING, &[name], sink.failure.as_ref());
    }
}

const fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod shipped_tests;
#[cfg(test)]
mod tests;
