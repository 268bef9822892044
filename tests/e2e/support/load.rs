//! WAL that fills segments and belongs to no transaction: a load beside a ledger, which must be the only one that commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::pg::Pg;

/// About 256 kB that hardly compress.
const MESSAGE: &str = "select pg_logical_emit_message(false, 'load', string_agg(md5(random()::text), '')) \
     from generate_series(1, 8000)";

/// Runs until it is stopped, dropped, or its server goes away.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn begin(pg: &Pg, pause: Duration) -> Self {
        let session = pg.session();
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) && session.try_sql(MESSAGE).is_ok() {
                std::thread::sleep(pause);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
