//! Which table comes next, and how fast.
//!
//! All are done when the last one is, and a table is sent by one process of the server. Where processors are scarce, the
//! connection that has the most to send would get no more of them than the others, and go on alone when those have ended. So
//! a connection that can do all that is left in less time keeps behind the busiest: it is never further on its way than that
//! one on its own, by the sizes that the tables have in the database and the rows that PostgreSQL has counted in them. What
//! it does not read, the server does not send.
//!
//! A guess that is wrong (a table that is mostly dead rows) costs time and nothing else: nobody waits for one that has ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So much ahead is nothing to wait for.
const SLACK: u64 = 8 << 20;
/// Until it is looked again; a piece takes about as long.
const LOOK: Duration = Duration::from_millis(4);

/// Tables that wait, the largest first.
pub(super) struct Queue<T> {
    tables: VecDeque<(T, u64)>,
    waiting: u64,
    /// The connection that has taken the most.
    busiest: Option<Way>,
}

/// What one connection has to do, and has done.
#[derive(Debug, Clone)]
struct Way {
    sent: Arc<AtomicU64>,
    whole: u64,
}

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Lane {
    taken: u64,
    sent: Arc<AtomicU64>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        // At its end, however it comes.
        self.sent.store(u64::MAX, Ordering::Relaxed);
    }
}

/// For one table on its connection.
#[derive(Debug)]
pub(super) struct Pace {
    own: Way,
    behind: Option<Way>,
}

impl<T> Queue<T> {
    /// Each with its size.
    pub(super) fn new(tables: impl IntoIterator<Item = (T, u64)>) -> Self {
        let tables: VecDeque<(T, u64)> = tables.into_iter().collect();
        Self { waiting: tables.iter().map(|(_, bytes)| bytes).sum(), tables, busiest: None }
    }

    pub(super) fn take(&mut self, lane: &mut Lane) -> Option<(T, Pace)> {
        let (table, bytes) = self.tables.pop_front()?;
        self.waiting -= bytes;
        lane.taken += bytes;
        let way = |whole| Way { sent: lane.sent.clone(), whole };
        let own = way(lane.taken + self.waiting);
        let most = self.busiest.as_ref().map_or(0, |busiest| busiest.whole);
        let behind = self.busiest.clone().filter(|busiest| own.whole < busiest.whole);
        if lane.taken > most {
            self.busiest = Some(way(lane.taken));
        }
        Some((table, Pace { own, behind }))
    }
}

impl Pace {
    /// Called before so many of the table's bytes go on their way; returns when it is time.
    pub(super) async fn keep(&self, bytes: u64) {
        self.own.sent.fetch_add(bytes, Ordering::Relaxed);
        while self.is_ahead() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_ahead(&self) -> bool {
        let Some(busiest) = &self.behind else { return false };
        let sent = |way: &Way| u128::from(way.sent.load(Ordering::Relaxed));
        sent(&self.own).saturating_sub(SLACK.into()) * u128::from(busiest.whole)
            > sent(busiest) * u128::from(self.own.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each turn keeps behind somebody; a turn is the number of the connection that takes the next table.
    fn behind(tables: &[u64], turns: &[usize]) -> Vec<bool> {
        let mut queue = Queue::new(tables.iter().map(|bytes| ((), *bytes)));
        let mut lanes = [Lane::default(), Lane::default(), Lane::default()];
        turns.iter().map(|turn| queue.take(&mut lanes[*turn]).unwrap().1.behind.is_some()).collect()
    }

    #[test]
    fn only_a_connection_that_can_do_all_the_rest_in_the_time_of_the_busiest_keeps_behind_it() {
        assert_eq!(behind(&[14, 5, 1], &[0, 1, 1]), [false, true, true]);
        assert_eq!(behind(&[14, 9, 6], &[0, 1, 1]), [false, false, false]);
        assert_eq!(behind(&[14, 9, 2, 2], &[0, 1, 2, 2]), [false, true, true, true]);
        assert_eq!(behind(&[7, 7], &[0, 1]), [false, false]);
        assert_eq!(behind(&[0, 0], &[0, 0]), [false, false]);
        let mut queue = Queue::new([((), 1)]);
        queue.take(&mut Lane::default());
        assert!(queue.take(&mut Lane::default()).is_none());
    }

    #[tokio::test]
    async fn it_goes_on_as_the_busiest_does_and_waits_for_none_that_has_ended() {
        const MIB: u64 = 1 << 20;
        let mut queue = Queue::new([((), 1000 * MIB), ((), 500 * MIB)]);
        let (mut first, mut second) = (Lane::default(), Lane::default());
        let ((), leads) = queue.take(&mut first).unwrap();
        let ((), follows) = queue.take(&mut second).unwrap();
        // The busiest waits for nobody; the other not for the slack.
        follows.keep(SLACK).await;
        assert!(!follows.is_ahead());
        leads.keep(100 * MIB).await;
        follows.keep(50 * MIB).await;
        let waits = async |bytes| tokio::time::timeout(10 * LOOK, follows.keep(bytes)).await;
        assert!(waits(MIB).await.is_err());
        leads.keep(2 * MIB).await;
        assert!(!follows.is_ahead());
        assert!(waits(300 * MIB).await.is_err());
        drop(first);
        assert!(waits(100 * MIB).await.is_ok());
    }
}
