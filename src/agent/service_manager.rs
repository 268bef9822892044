//! What systemd is told (sd_notify(3)): ready, reloading, stopping, one line of status, and that the watchdog may sleep
//! on. Without systemd (no `NOTIFY_SOCKET`) nothing is said to nobody.
//!
//! The watchdog is reset by a task among the others: a runtime that hangs does not come to it, and a loop that is late
//! ([`super::pulse`]) keeps it from doing so. systemd then kills the agent and starts it again; what it leaves is found
//! by the next start.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::Board;
use super::board::Snapshot;
use super::pulse::Pulse;

/// The status line is looked at so often where there is no watchdog.
const ROUND: Duration = Duration::from_secs(10);
/// Resets in a watchdog's time: one may come late.
const RESETS: u32 = 3;

/// Starting is done, or the reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is read again; [`ready`] follows, also when it was refused.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
    }
}

pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// Keeps status and watchdog up to date until the end of the process.
pub async fn keep_informed(board: Board, pulse: Pulse, end: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    let round = watchdog.map_or(ROUND, |limit| (limit / RESETS).min(ROUND));
    let mut said = String::new();
    loop {
        if watchdog.is_some() && may_reset(&pulse) {
            tell(&[NotifyState::Watchdog]);
        }
        let status = status_line(&board.snapshot());
        if status != said {
            tell(&[NotifyState::Status(&status)]);
            said = status;
        }
        tokio::select! {
            () = tokio::time::sleep(round) => {}
            () = end.cancelled() => return,
        }
    }
}

fn may_reset(pulse: &Pulse) -> bool {
    let late = pulse.late();
    if !late.is_empty() {
        tracing::error!(tasks = ?late, "tasks hang; the watchdog is not reset");
    }
    late.is_empty()
}

/// What `systemctl status` shows: each cluster in a few words, then what is wrong.
fn status_line(now: &Snapshot) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (name, cluster) in &now.clusters {
        let server = match (&cluster.server.error, cluster.server.asked_at) {
            (Some(_), _) => "does not answer",
            (None, None) => "not asked yet",
            (None, Some(_)) if cluster.server.in_recovery => "standby",
            (None, Some(_)) => "primary",
        };
        let waiting = match cluster.archive.waiting_files {
            0 => String::new(),
            files => format!(", {files} WAL files wait"),
        };
        parts.push(format!("{name}: {server}{waiting}"));
    }
    let running = now.jobs.iter().filter(|(_, job)| job.running.is_some()).map(|(name, _)| name.as_str());
    let running: Vec<&str> = running.collect();
    if !running.is_empty() {
        parts.push(format!("running: {}", running.join(", ")));
    }
    if !now.alerts.is_empty() {
        parts.push(format!("{} alerts open", now.alerts.len()));
    }
    parts.join("; ")
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::board::OpenAlert;
    use crate::agent::board::Severity;
    use crate::model::ClusterName;
    use crate::util::clock;

    #[test]
    fn the_watchdog_is_not_reset_while_a_loop_is_late() {
        let pulse = Pulse::default();
        assert!(may_reset(&pulse));
        pulse.beat("archiver", Duration::ZERO);
        std::thread::sleep(Duration::from_millis(1));
        assert!(!may_reset(&pulse));
    }

    #[test]
    fn the_status_line_says_each_cluster_and_what_is_wrong() {
        let now = clock::now();
        let board = Board::new(now);
        assert_eq!(status_line(&board.snapshot()), "");
        let name = ClusterName::parse("main").unwrap();
        board.cluster(&name, |_| ());
        assert_eq!(status_line(&board.snapshot()), "main: not asked yet");
        board.cluster(&name, |cluster| {
            cluster.server.asked_at = Some(now);
            cluster.archive.waiting_files = 3;
        });
        board.update(|all| {
            all.alerts.push(OpenAlert {
                key: "k".into(),
                rule: "r".into(),
                severity: Severity::Warning,
                labels: std::collections::BTreeMap::new(),
                since: now,
                summary: "s".into(),
                mend: "m".into(),
                runbook: None,
            });
        });
        assert_eq!(status_line(&board.snapshot()), "main: primary, 3 WAL files wait; 1 alerts open");
    }
}
