//! Signs of life. A task that goes round and round says at each turn by when it will be back; the watchdog is told that
//! all is well only while nobody is late. A task that never says anything is not missed: the supervisor sees its end,
//! and this sees only a loop that hangs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Pulse {
    /// The loop `name` is alive and beats again within this time. Be generous: late means that the whole agent is
    /// killed and started again.
    pub fn beat(&self, name: &str, within: Duration) {
        let back = Instant::now() + within;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(name) {
            Some(at) => *at = back,
            None => drop(all.insert(name.to_owned(), back)),
        }
    }
    /// It has ended and is not to be missed.
    pub fn rest(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
    /// Who should have been back.
    pub fn late(&self) -> Vec<String> {
        let now = Instant::now();
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, back)| **back < now).map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_late_until_it_beats_again_or_rests() {
        let pulse = Pulse::default();
        pulse.beat("a", Duration::ZERO);
        pulse.beat("b", Duration::from_hours(1));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(pulse.late(), ["a"]);
        pulse.beat("a", Duration::from_hours(1));
        assert!(pulse.late().is_empty());
        pulse.beat("a", Duration::ZERO);
        pulse.rest("a");
        std::thread::sleep(Duration::from_millis(1));
        assert!(pulse.late().is_empty());
    }
}
