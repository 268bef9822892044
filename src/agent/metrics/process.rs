//! What the agent itself costs, from `/proc/self/status` and `getrusage(2)`.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// None where this system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessFacts {
    pub resident_bytes: Option<u64>,
    /// User and system, since the process began.
    pub cpu_seconds: Option<f64>,
}

pub fn facts() -> ProcessFacts {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok();
    let micros = usage.map(|u| u.user_time().num_microseconds() + u.system_time().num_microseconds());
    ProcessFacts { resident_bytes: resident(&status), cpu_seconds: micros.map(|m| m as f64 / 1e6) }
}

/// `VmRSS:   12345 kB`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_the_processor() {
        let facts = facts();
        assert!(facts.resident_bytes.unwrap() > 1 << 20);
        assert!(facts.cpu_seconds.unwrap() > 0.0);
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\n"), Some(1234 * 1024));
        assert_eq!(resident(""), None);
    }
}
