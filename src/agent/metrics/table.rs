//! Every metric with its kind, unit, labels and meaning, in one table: what is not here cannot be exported, and
//! `config/METRICS.md` is printed from it.

/// A metric's documentation.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    /// One sentence; absent values are said to be absent.
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    /// Since the agent started.
    Counter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    /// Since 1970, UTC.
    UnixSeconds,
    Bytes,
    BytesPerSecond,
    /// A plain number of things.
    Number,
    /// 1 or 0.
    Truth,
}

impl Unit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::UnixSeconds => "seconds since 1970, UTC",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes per second",
            Self::Number => "number",
            Self::Truth => "1 or 0",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident, $unit:ident, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub const $constant: &Metric = &Metric {
            name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &[$($label),*], help: $help,
        };)*
        /// All, in the order of the page.
        pub const ALL: &[&Metric] = &[$($constant,)*];
    };
}

#[rustfmt::skip]
metrics! {
    BUILD_INFO = Gauge, Number, "pgkeep_build_info", ["version"], "Always 1; the label says which pgkeep this is.";
    START_TIME = Gauge, UnixSeconds, "pgkeep_start_time_seconds", [], "When the agent started.";
    RELOAD_REFUSED = Gauge, Truth, "pgkeep_reload_refused", [], "1 while the configuration file is wrong and the one before it is in use.";
    RESIDENT = Gauge, Bytes, "pgkeep_process_resident_memory_bytes", [], "Memory of the agent that is resident.";
    CPU = Counter, Seconds, "pgkeep_process_cpu_seconds_total", [], "Processor time that the agent has used, user and system.";
    TASK_STARTS = Counter, Number, "pgkeep_task_starts_total", ["task"], "Starts of a task of the agent; more than reloads explain are failures.";
    TASK_FAILED = Gauge, UnixSeconds, "pgkeep_task_last_failure_timestamp_seconds", ["task"], "When the task last failed; absent while it never has.";

    RPO_SECONDS = Gauge, Seconds, "pgkeep_rpo_seconds", ["cluster"], "If this host died now, commits of the last so many seconds would be lost; +Inf while there is no backup, absent on a standby or while unknown.";
    RPO_BYTES = Gauge, Bytes, "pgkeep_rpo_bytes", ["cluster"], "The same as WAL: flushed by PostgreSQL and in no required repository yet.";
    RTO_SECONDS = Gauge, Seconds, "pgkeep_rto_estimate_seconds", ["cluster"], "Until the cluster would be back after the loss of this host, estimated from the last full backup, the WAL since, and what earlier restores took (stated rates while none was measured).";

    SERVER_UP = Gauge, Truth, "pgkeep_server_up", ["cluster"], "1 when PostgreSQL answered when it was last asked.";
    SERVER_STANDBY = Gauge, Truth, "pgkeep_server_in_recovery", ["cluster"], "1 on a standby.";
    ARCHIVING_OFF = Gauge, Truth, "pgkeep_server_archiving_off", ["cluster"], "1 on a primary that does not archive: archive_mode is off, or there is no command.";
    FLUSHED = Gauge, Bytes, "pgkeep_server_flush_position_bytes", ["cluster"], "Where WAL is flushed to, as a byte position; absent in recovery.";
    PG_WAL = Gauge, Bytes, "pgkeep_server_pg_wal_bytes", ["cluster"], "Size of pg_wal; deriv() of it is its growth.";
    WAL_DISK = Gauge, Bytes, "pgkeep_server_wal_disk_bytes", ["cluster"], "Size of the file system that holds pg_wal.";
    WAL_DISK_FREE = Gauge, Bytes, "pgkeep_server_wal_disk_free_bytes", ["cluster"], "Free on the file system that holds pg_wal.";
    WAL_DISK_FULL_IN = Gauge, Seconds, "pgkeep_server_wal_disk_full_in_seconds", ["cluster"], "Until that file system is full if pg_wal goes on growing as it does; absent while it does not grow.";
    DATA_BYTES = Gauge, Bytes, "pgkeep_server_data_directory_bytes", ["cluster"], "Size of all databases, asked once an hour.";

    ARCHIVE_WAITING = Gauge, Number, "pgkeep_archive_waiting_files", ["cluster"], "Files that PostgreSQL has finished and that a required repository lacks.";
    ARCHIVE_WAITING_BYTES = Gauge, Bytes, "pgkeep_archive_waiting_bytes", ["cluster"], "Their size.";
    ARCHIVE_LAG_SECONDS = Gauge, Seconds, "pgkeep_archive_lag_seconds", ["cluster"], "How long the oldest of them has waited; 0 when none waits.";
    ARCHIVE_LAG_BYTES = Gauge, Bytes, "pgkeep_archive_lag_bytes", ["cluster"], "From the end of what every required repository has without a gap to where PostgreSQL has flushed.";
    ARCHIVED_TO = Gauge, Bytes, "pgkeep_archive_position_bytes", ["cluster"], "The end of what every required repository has without a gap, as a byte position.";
    ARCHIVED_AT = Gauge, UnixSeconds, "pgkeep_archive_last_success_timestamp_seconds", ["cluster"], "When the last file was acknowledged.";
    ARCHIVE_LOOKED = Gauge, UnixSeconds, "pgkeep_archive_last_look_timestamp_seconds", ["cluster"], "When what waits was last looked for; absent before the first time.";
    ARCHIVE_FILES = Counter, Number, "pgkeep_archive_files_total", ["cluster"], "Files shipped.";
    ARCHIVE_PLAIN = Counter, Bytes, "pgkeep_archive_plain_bytes_total", ["cluster"], "Their size in pg_wal.";
    ARCHIVE_STORED = Counter, Bytes, "pgkeep_archive_stored_bytes_total", ["cluster"], "Their size as stored, in one repository.";
    ARCHIVE_FAILURES = Counter, Number, "pgkeep_archive_failures_total", ["cluster"], "Tries to ship a file that failed.";
    ARCHIVE_FAILING = Gauge, Truth, "pgkeep_archive_failing", ["cluster"], "1 from a failed try to the next success.";
    ARCHIVE_HOLES = Gauge, Number, "pgkeep_archive_holes", ["cluster"], "Holes: WAL that is lost between two archived files.";
    ARCHIVE_DAMAGED = Gauge, Number, "pgkeep_archive_damaged_segments", ["cluster"], "Segments that were damaged when PostgreSQL handed them over.";
    ARCHIVE_CONFLICTS = Gauge, Number, "pgkeep_archive_conflicts", ["cluster"], "Files of which the archive holds other content under the same name.";

    TAIL_ENABLED = Gauge, Truth, "pgkeep_tail_enabled", ["cluster"], "1 when the unfinished segment is shipped every few seconds.";
    TAIL_LAG = Gauge, Seconds, "pgkeep_tail_lag_seconds", ["cluster"], "Since all that was flushed had been shipped.";
    TAIL_TO = Gauge, Bytes, "pgkeep_tail_position_bytes", ["cluster"], "The end of the bytes that every required repository has, as a byte position.";
    TAIL_HEADS = Counter, Number, "pgkeep_tail_heads_total", ["cluster"], "Ranges of unfinished segments shipped.";
    TAIL_PLAIN = Counter, Bytes, "pgkeep_tail_plain_bytes_total", ["cluster"], "Their size in pg_wal.";
    TAIL_STORED = Counter, Bytes, "pgkeep_tail_stored_bytes_total", ["cluster"], "Their size as stored, in one repository.";
    TAIL_FAILURES = Counter, Number, "pgkeep_tail_failures_total", ["cluster"], "Tries to ship a range that failed.";
    TAIL_FAILING = Gauge, Truth, "pgkeep_tail_failing", ["cluster"], "1 from a failed try to the next success.";

    CANARY_ROWS = Counter, Number, "pgkeep_canary_rows_total", ["cluster"], "Rows that this agent has written into the canary's table; absent while it is off.";
    CANARY_WRITTEN = Gauge, UnixSeconds, "pgkeep_canary_timestamp_seconds", ["cluster"], "When the newest row was written; absent while it is off, and on a standby.";
    CANARY_AGE = Gauge, Seconds, "pgkeep_canary_age_seconds", ["cluster"], "How long ago that was.";
    CANARY_FAILING = Gauge, Truth, "pgkeep_canary_failing", ["cluster"], "1 from a row that could not be written to the next one that could; absent while it is off.";

    STORE_UP = Gauge, Truth, "pgkeep_store_up", ["repository"], "1 when the store answered the last request; absent before the first.";
    STORE_REQUIRED = Gauge, Truth, "pgkeep_store_required", ["repository"], "1 when archiving waits for this repository.";
    STORE_ANSWERED = Gauge, UnixSeconds, "pgkeep_store_last_answer_timestamp_seconds", ["repository"], "When the store last answered a request.";
    STORE_OPERATIONS = Counter, Number, "pgkeep_store_operations_total", ["repository", "operation"], "What the agent asked of the store, each try counted: head, get, put, upload, list, delete, sweep. A long upload is one.";
    STORE_FAILURES = Counter, Number, "pgkeep_store_operation_failures_total", ["repository", "operation"], "Those that failed.";
    STORE_SECONDS = Counter, Seconds, "pgkeep_store_operation_seconds_total", ["repository", "operation"], "Time that the answered ones took; divided by their number it is the latency.";
    STORE_SENT = Counter, Bytes, "pgkeep_store_sent_bytes_total", ["repository"], "Bytes of objects handed to the store.";
    STORE_RECEIVED = Counter, Bytes, "pgkeep_store_received_bytes_total", ["repository"], "Bytes of objects read from the store.";
    STORE_USED = Gauge, Bytes, "pgkeep_store_used_bytes", ["repository"], "What the repository holds: counted once a day, and what this agent has sent since.";
    STORE_CAPACITY = Gauge, Bytes, "pgkeep_store_capacity_bytes", ["repository"], "What it can hold: as configured; of a directory, what it holds and what is free.";
    STORE_CREDENTIALS = Gauge, UnixSeconds, "pgkeep_store_credentials_expire_timestamp_seconds", ["repository"], "When the credentials end, where they say so and do not renew themselves.";

    CATALOG_SEEN = Gauge, UnixSeconds, "pgkeep_catalog_read_timestamp_seconds", ["cluster"], "When the list of backups of all required repositories was last read.";
    BACKUP_LAST = Gauge, UnixSeconds, "pgkeep_backup_last_timestamp_seconds", ["cluster", "kind"], "When the newest good backup of this kind was finished; absent while there is none.";
    BACKUP_AGE = Gauge, Seconds, "pgkeep_backup_last_age_seconds", ["cluster", "kind"], "How long ago that was.";
    BACKUP_RAW = Gauge, Bytes, "pgkeep_backup_last_raw_bytes", ["cluster", "kind"], "Its size before compression.";
    BACKUP_STORED = Gauge, Bytes, "pgkeep_backup_last_stored_bytes", ["cluster", "kind"], "Its size as stored, in one repository.";
    BACKUP_SECONDS = Gauge, Seconds, "pgkeep_backup_last_duration_seconds", ["cluster", "kind"], "How long it took.";
    VERIFIED = Gauge, UnixSeconds, "pgkeep_verify_last_timestamp_seconds", ["cluster", "repository"], "When a `verify` job of this agent last looked at what the repository stores; absent until it has.";
    VERIFY_FINDINGS = Gauge, Number, "pgkeep_verify_findings", ["cluster", "repository"], "What it found to be wrong.";
    VERIFY_HEALED = Gauge, Number, "pgkeep_verify_healed", ["cluster", "repository"], "Objects that it brought from another repository.";
    VERIFY_UNPROVED = Gauge, Number, "pgkeep_verify_unproved", ["cluster", "repository"], "Sorts of things that it could not prove: there is no identity on this host.";
    VERIFY_BYTES = Gauge, Bytes, "pgkeep_verify_last_read_bytes", ["cluster", "repository"], "Stored bytes that it read.";
    VERIFY_LEFT = Gauge, Bytes, "pgkeep_verify_left_bytes", ["cluster", "repository"], "Stored bytes that its budget left for the next time.";
    VERIFY_OLDEST = Gauge, UnixSeconds, "pgkeep_verify_oldest_check_timestamp_seconds", ["cluster", "repository"], "When the object was checked whose check is the oldest; absent while some never were.";
    PROVED = Gauge, UnixSeconds, "pgkeep_proof_timestamp_seconds", ["cluster"], "When a restore last proved the repositories; absent while none has.";

    JOB_RUNNING = Gauge, Truth, "pgkeep_job_running", ["cluster", "job_name", "kind"], "1 while it runs.";
    JOB_DONE = Gauge, Bytes, "pgkeep_job_progress_bytes", ["cluster", "job_name", "kind"], "What the running one has done; absent while none runs.";
    JOB_TOTAL = Gauge, Bytes, "pgkeep_job_expected_bytes", ["cluster", "job_name", "kind"], "What it will have done at its end, where that is known.";
    JOB_NEXT = Gauge, UnixSeconds, "pgkeep_job_next_timestamp_seconds", ["cluster", "job_name", "kind"], "When it runs next; absent where the schedule has no next date.";
    JOB_SUCCESS = Gauge, UnixSeconds, "pgkeep_job_last_success_timestamp_seconds", ["cluster", "job_name", "kind"], "When it last succeeded; absent while it never has.";
    JOB_AGE = Gauge, Seconds, "pgkeep_job_last_success_age_seconds", ["cluster", "job_name", "kind"], "How long ago that was.";
    JOB_FAILED = Gauge, Truth, "pgkeep_job_last_failed", ["cluster", "job_name", "kind"], "1 when its last run failed or found something wrong.";
    JOB_FAILURES = Gauge, Number, "pgkeep_job_failures_in_a_row", ["cluster", "job_name", "kind"], "Failed runs since the last success.";
    JOB_SECONDS = Gauge, Seconds, "pgkeep_job_last_duration_seconds", ["cluster", "job_name", "kind"], "How long its last run took.";
    JOB_RAW = Gauge, Bytes, "pgkeep_job_last_raw_bytes", ["cluster", "job_name", "kind"], "What its last run backed up, before compression.";
    JOB_STORED = Gauge, Bytes, "pgkeep_job_last_stored_bytes", ["cluster", "job_name", "kind"], "The same as stored.";
    JOB_RATE = Gauge, BytesPerSecond, "pgkeep_job_last_throughput_bytes_per_second", ["cluster", "job_name", "kind"], "Raw bytes of its last run by its duration.";

    ALERTS_OPEN = Gauge, Number, "pgkeep_alerts_open", ["severity"], "Open alerts.";
    ALERT = Gauge, UnixSeconds, "pgkeep_alert_open_since_timestamp_seconds", ["rule", "severity", "alert"], "Since when this alert is open; absent when it is not.";
    SINK_WAITING = Gauge, Number, "pgkeep_alert_sink_waiting", ["sink"], "Messages that wait to be delivered.";
    SINK_DELIVERED = Counter, Number, "pgkeep_alert_sink_delivered_total", ["sink"], "Messages delivered.";
    SINK_DROPPED = Counter, Number, "pgkeep_alert_sink_dropped_total", ["sink"], "Messages given up.";
    SINK_FAILING = Gauge, Truth, "pgkeep_alert_sink_failing", ["sink"], "1 from a failed delivery to the next success.";
}

/// The page `config/METRICS.md`.
pub fn page() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Printed from the program's own table (`src/agent/metrics/table.rs`). The agent serves them at `/metrics`, in\n\
         Prometheus's text format; `config/prometheus-rules.yml` has alert rules over them and\n\
         `config/grafana-dashboard.json` a dashboard. Counters begin at 0 with each start of the agent.\n\n\
         | name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let labels = metric.labels.join(", ");
        let unit = metric.unit.as_str();
        text.push_str(&format!("| `{}` | {kind} | {unit} | {labels} | {} |\n", metric.name, metric.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_unit_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in ALL {
            let Metric { name, kind, unit, help, .. } = metric;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.starts_with("pgkeep_") && help.ends_with('.'), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let stem = name.trim_end_matches("_total");
            let suffix = match unit {
                Unit::Seconds | Unit::UnixSeconds => "_seconds",
                Unit::Bytes => "_bytes",
                Unit::BytesPerSecond => "_bytes_per_second",
                Unit::Number | Unit::Truth => "",
            };
            assert!(stem.ends_with(suffix), "{name} does not end in {suffix}");
        }
    }

    #[test]
    fn the_committed_page_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/METRICS.md");
        if std::env::var_os("PGKEEP_WRITE_GENERATED").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page(),
            "METRICS.md is stale: PGKEEP_WRITE_GENERATED=1 cargo test writes it anew"
        );
    }
}
