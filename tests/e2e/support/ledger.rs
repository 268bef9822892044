//! A table of commits whose every number, time and place in WAL the test knows, so that for any recovery target it
//! can say which row must be the last one: the oracle of all restore tests.
//!
//! The ledger must be the only writer: then the row ids are in commit order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use pgkeep::model::{Inclusion, Lsn, Target, Timestamp, Xid};

use super::pg::Pg;
use super::sql::{Session, describe};

const TABLE: &str = "create table if not exists ledger (id int primary key, note text not null, \
     at timestamptz not null default clock_timestamp())";

/// One committed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: u32,
    pub xid: Xid,
    /// At or before the commit record's first byte, after the row's own record. As a target `--after` it ends with
    /// this row, unless the server wrote a record of its own just there; prefer `end`.
    pub before_commit: Lsn,
    /// Past the commit record's last byte. As a target it ends with this row, `--before` and `--after` alike: the
    /// record that begins there is not a commit.
    pub end: Lsn,
    /// The commit record's own time.
    pub at: Timestamp,
}

/// The rows so far. Not connected between calls, so that the server may be stopped.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub entries: Vec<Entry>,
    /// Restore points, with the last row before each.
    points: Vec<(String, u32)>,
    /// Goes into every note.
    marker: String,
}

impl Ledger {
    /// Makes the table.
    pub fn create(pg: &Pg) -> Self {
        pg.sql(TABLE);
        Self::default()
    }
    /// As `create`; every note contains `marker`, to be looked for where it must not be.
    pub fn with_marker(pg: &Pg, marker: &str) -> Self {
        Self { marker: marker.to_owned(), ..Self::create(pg) }
    }
    /// Commits `count` rows, one by one; returns the last.
    pub fn write(&mut self, pg: &Pg, count: u32) -> Entry {
        let session = pg.session();
        for _ in 0..count {
            self.entries.push(commit_row(&session, self.last_id() + 1, &self.marker));
        }
        self.entries.last().expect("count > 0").clone()
    }
    /// Writes from a thread of its own until `Writer::stop`.
    pub fn write_in_background(self, pg: &Pg, pause: Duration) -> Writer {
        let session = pg.session();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut ledger = self;
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let entry = commit_row(&session, ledger.last_id() + 1, &ledger.marker);
                ledger.entries.push(entry);
                std::thread::sleep(pause);
            }
            ledger
        });
        Writer { stop, thread }
    }
    /// Writes from a thread of its own until the server is gone; the last row that it confirmed is then the last one.
    pub fn write_until_death(self, pg: &Pg, pause: Duration) -> JoinHandle<Self> {
        let session = pg.session();
        let mut ledger = self;
        std::thread::spawn(move || {
            while let Ok(entry) = try_commit_row(&session, ledger.last_id() + 1, &ledger.marker) {
                ledger.entries.push(entry);
                std::thread::sleep(pause);
            }
            ledger
        })
    }
    pub fn restore_point(&mut self, pg: &Pg, name: &str) -> Lsn {
        self.points.push((name.to_owned(), self.last_id()));
        pg.one(&format!("select pg_create_restore_point('{name}')")).parse().unwrap()
    }
    pub fn last_id(&self) -> u32 {
        self.entries.last().map_or(0, |e| e.id)
    }
    pub fn entry(&self, id: u32) -> &Entry {
        self.entries.iter().find(|e| e.id == id).unwrap_or_else(|| panic!("no row {id}"))
    }
    /// Forgets what comes after row `id`: the history that a recovery left behind. Later rows take up their numbers.
    pub fn rewind_to(&mut self, id: u32) {
        self.entries.retain(|e| e.id <= id);
        self.points.retain(|(_, last)| *last <= id);
    }

    /// The last row that a recovery to `target` must bring back; 0 for none. Not for `backup`, which only says that
    /// everything up to the end of the backup is there.
    pub fn expect_last(&self, target: &Target, inclusion: Inclusion) -> u32 {
        let inclusive = inclusion == Inclusion::After;
        let last =
            |keep: &dyn Fn(&Entry) -> bool| self.entries.iter().filter(|e| keep(e)).map(|e| e.id).max();
        match target {
            Target::Latest => Some(self.last_id()),
            // xlogrecovery.c, recoveryStopsBefore: commits of exactly the target time are kept when inclusive.
            Target::Time(t) => last(&|e| if inclusive { e.at <= *t } else { e.at < *t }),
            Target::Xid(xid) => {
                let id = self.entries.iter().find(|e| e.xid == *xid).expect("an xid of the ledger").id;
                Some(if inclusive { id } else { id - 1 })
            }
            // The target stops at the first record that begins at or after it.
            Target::Lsn(lsn) => {
                last(&|e| e.end <= *lsn || (inclusive && e.before_commit <= *lsn && *lsn < e.end))
            }
            Target::Name(name) => {
                let point =
                    self.points.iter().find(|(n, _)| n == name).expect("a restore point of the ledger");
                Some(point.1)
            }
            Target::Backup => panic!("the end of a backup is not a row"),
        }
        .unwrap_or(0)
    }
    /// Panics unless the server holds exactly the rows 1 to `last`, as they were written.
    #[track_caller]
    pub fn assert_ends_at(&self, pg: &Pg, last: u32) {
        assert_eq!(Self::ids(pg), (1..=last).collect::<Vec<_>>(), "the ledger must end at row {last}");
        let note = note_of("id", &self.marker);
        let changed = pg.one(&format!("select count(*) from ledger where note <> {note}"));
        assert_eq!(changed, "0", "rows with another text than was written");
    }
    /// Panics unless the server holds the rows from 1 on without a hole, at least `from` of them; their number.
    #[track_caller]
    pub fn assert_contiguous(pg: &Pg, from: u32) -> u32 {
        let ids = Self::ids(pg);
        let n = u32::try_from(ids.len()).unwrap();
        assert_eq!(ids, (1..=n).collect::<Vec<_>>());
        assert!(n >= from, "only {n} rows, expected {from} or more");
        n
    }
    /// Read through the table and through the index, which must agree.
    #[track_caller]
    pub fn ids(pg: &Pg) -> Vec<u32> {
        let session = pg.session();
        let read = |settings: &str| -> Vec<u32> {
            let rows = session.sql(&format!("{settings}; select id from ledger order by id"));
            rows.into_iter().map(|mut row| row.remove(0).unwrap().parse().unwrap()).collect()
        };
        let heap =
            read("set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off");
        let index = read("reset all; set enable_seqscan = off; set enable_sort = off");
        assert_eq!(heap, index, "table and index disagree");
        heap
    }
}

/// What row `id` (a number or a column's name) must say, as an SQL expression.
fn note_of(id: &str, marker: &str) -> String {
    format!("'{marker} row ' || {id} || ' ' || md5(({id})::text)")
}

/// One row in one transaction, and where it went.
fn commit_row(session: &Session, id: u32, marker: &str) -> Entry {
    try_commit_row(session, id, marker).unwrap_or_else(|e| panic!("row {id}: {}", describe(&e)))
}

fn try_commit_row(session: &Session, id: u32, marker: &str) -> Result<Entry, tokio_postgres::Error> {
    let one = |text: &str| -> Result<String, tokio_postgres::Error> {
        Ok(session.try_sql(text)?.remove(0).remove(0).unwrap_or_default())
    };
    session.try_sql("begin")?;
    let xid: u64 = one(&format!(
        "insert into ledger (id, note) values ({id}, {}) returning pg_current_xact_id()",
        note_of(&id.to_string(), marker)
    ))?
    .parse()
    .unwrap();
    let before_commit = one("select pg_current_wal_insert_lsn()")?.parse().unwrap();
    session.try_sql("commit")?;
    let row = session.try_sql(&format!(
        "select pg_current_wal_insert_lsn(), \
         to_char(pg_xact_commit_timestamp('{xid}'::xid) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    ))?;
    let column = |n: usize| row[0][n].clone().unwrap();
    // Targets and WAL records carry the low 32 bits.
    let xid = Xid(u32::try_from(xid & u64::from(u32::MAX)).unwrap());
    Ok(Entry { id, xid, before_commit, end: column(0).parse().unwrap(), at: column(1).parse().unwrap() })
}

/// A ledger that is being written.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ledger>,
}

impl Writer {
    pub fn stop(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
