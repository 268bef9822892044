//! The canary in WAL: which of the agent's rows was committed last before a place.
//!
//! The agent writes one row a minute (`postgres::canary`) and says its number in the same transaction with a transactional
//! message (`pg_logical_emit_message`), which PostgreSQL writes into WAL whatever `wal_level` is and whatever the table's own
//! record looks like. So WAL alone, without the table, says which row a recovery that ends here must have as its last.

use super::facts::Fact;
use super::record::Record;
use super::transaction::TransactionMark;
use crate::model::{Timestamp, Xid};

/// What the messages are marked with.
pub const PREFIX: &str = "pgkeep.canary";
/// Transactions whose end has not been seen. The agent has one at a time; others may only be forged.
const OPEN: usize = 64;

/// A row whose commit was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canary {
    /// The object id of the database that its table is in.
    pub database: u32,
    pub number: u64,
    /// As the row says: the server's clock just before the commit.
    pub written: Timestamp,
    pub commit: TransactionMark,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    xid: Xid,
    database: u32,
    number: u64,
    written: Timestamp,
}

/// Is shown records in order and keeps the last row that was committed.
#[derive(Debug, Clone, Default)]
pub struct CanaryWatch {
    open: Vec<Said>,
    last: Option<Canary>,
}

impl CanaryWatch {
    pub fn observe(&mut self, record: &Record<'_>, fact: Option<&Fact<'_>>) {
        match fact {
            Some(Fact::LogicalMessage { database, transactional: true, prefix, message })
                if *prefix == PREFIX.as_bytes() =>
            {
                let Some((number, written)) = parse(message) else { return };
                if self.open.len() == OPEN {
                    self.open.remove(0);
                }
                self.open.push(Said { xid: record.xid(), database: *database, number, written });
            }
            Some(Fact::Transaction(end)) => {
                let Some(at) = self.open.iter().position(|said| said.xid == end.xid) else { return };
                let said = self.open.remove(at);
                if end.committed {
                    let Said { database, number, written, .. } = said;
                    self.last =
                        Some(Canary { database, number, written, commit: TransactionMark::of(record, end) });
                }
            }
            _ => {}
        }
    }

    pub fn last(&self) -> Option<Canary> {
        self.last
    }
}

/// `NUMBER MICROSECONDS`, since 1970.
fn parse(message: &[u8]) -> Option<(u64, Timestamp)> {
    let text = std::str::from_utf8(message).ok()?;
    let (number, written) = text.split_once(' ')?;
    let written = chrono::DateTime::from_timestamp_micros(written.parse().ok()?)?;
    Some((number.parse().ok()?, Timestamp(written)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Lsn, Timestamp};
    use crate::wal::synth::{MIB, SYSTEM, Synth, at};
    use crate::wal::{Flow, WalReader};

    fn watched(wal: &Synth, until: Lsn) -> Option<(u64, u32)> {
        let mut watch = CanaryWatch::default();
        let mut reader = WalReader::new(wal.start, MIB, Some(SYSTEM));
        reader.feed(&wal.segment(0), &mut |record| {
            if record.end_lsn <= until {
                watch.observe(record, Fact::of(record).unwrap().as_ref());
            }
            Flow::Continue
        });
        watch.last().map(|canary| (canary.number, canary.database))
    }

    fn row(wal: &mut Synth, xid: u32, number: u64, written: Timestamp) {
        wal.message(xid, 5, true, PREFIX, &format!("{number} {}", written.0.timestamp_micros()));
    }

    #[test]
    fn the_last_row_is_the_one_whose_commit_came_last_before_the_end() {
        let mut wal = Synth::new(16 << 20);
        row(&mut wal, 700, 1, at(0));
        wal.commit(700, at(0));
        row(&mut wal, 701, 2, at(60));
        let before_the_commit = wal.lsn();
        wal.filler(300);
        wal.commit(701, at(60));
        let after = wal.lsn();
        row(&mut wal, 702, 3, at(120));
        wal.abort(702, at(120));
        wal.commit(703, at(121));
        assert_eq!(watched(&wal, before_the_commit), Some((1, 5)));
        assert_eq!(watched(&wal, after), Some((2, 5)));
        assert_eq!(watched(&wal, wal.lsn()), Some((2, 5)), "what was rolled back was never there");
    }

    #[test]
    fn what_others_say_is_no_canary() {
        let mut wal = Synth::new(16 << 20);
        wal.message(700, 5, true, "pgkeep.canaries", "1 1790000000000000");
        wal.message(700, 5, false, PREFIX, "2 1790000000000000");
        for garbage in ["", "1", "1 x", "x 1", "-1 5", "1 99999999999999999999"] {
            wal.message(700, 5, true, PREFIX, garbage);
        }
        wal.commit(700, at(0));
        assert_eq!(watched(&wal, wal.lsn()), None);
        assert_eq!(
            parse(b"7 1790000000123456").unwrap().1,
            at(0).plus(std::time::Duration::from_micros(123_456))
        );
    }

    #[test]
    fn transactions_that_never_end_do_not_pile_up() {
        let mut wal = Synth::new(16 << 20);
        for xid in 0..200 {
            row(&mut wal, 1000 + xid, u64::from(xid), at(0));
        }
        wal.commit(1000, at(1));
        wal.commit(1199, at(2));
        assert_eq!(watched(&wal, wal.lsn()), Some((199, 5)));
    }
}
