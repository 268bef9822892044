//! The archiver's loop: what happens, one thing after another, and what follows from it. Nothing here waits for a disk
//! or a store but in tasks whose ends are heard.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::acks::Acks;
use super::facts::Tally;
use super::inherited::Inheritance;
use super::push::{Answer, Archived};
use super::queue::Queue;
use super::scan::{self, Scan};
use super::ship::{self, Done};
use super::watch::Watch;
use super::{AHEAD, Ask, Door, RESCAN, holes};
use crate::agent::services::Services;
use crate::agent::state::acks::Ack;
use crate::archive::push::Fingerprint;
use crate::archive::ship::Shipper;
use crate::config::ClusterConfig;
use crate::error::{Code, Error, Result};
use crate::model::WalFileName;
use crate::postgres::as_owner;

/// Notifications come in crowds: scans are not made faster after each other.
const REST: Duration = Duration::from_millis(20);
/// While more waits than can be begun, a look finds nothing to do, and costs more the more waits.
const LONG_REST: Duration = Duration::from_millis(250);
/// Between two reports.
const REPORT_REST: Duration = Duration::from_millis(100);
/// After a history file was archived: PostgreSQL writes it a moment before it is a primary.
const PROMOTION: Duration = Duration::from_millis(300);
/// The loop turns at least as often as it scans; one that has not for so long hangs.
const HANGS: Duration = Duration::from_mins(5);
/// A file that changes under every look is left to a push of its own.
const LOOKS: u32 = 3;
/// After so many failures the repositories are opened anew: credentials may have changed, a disk may be mounted again.
const REOPEN_AFTER: u32 = 4;
/// An optional repository that could not be opened is tried again after this.
const COMPLETE_AFTER: Duration = Duration::from_mins(1);

/// Who waits for a file, and for which content of it.
struct Waiter {
    fingerprint: Fingerprint,
    looks: u32,
    reply: oneshot::Sender<Answer>,
}

type Opened = (Result<Arc<Shipper>>, bool);

pub(super) struct Archiver {
    services: Services,
    cluster: ClusterConfig,
    door: Door,
    queue: Queue,
    waiters: HashMap<WalFileName, Vec<Waiter>>,
    /// The last look that succeeded, and where.
    seen: Option<(PathBuf, Scan)>,
    shipper: Option<Arc<Shipper>>,
    /// Only with a shipper.
    acks: Option<Acks>,
    /// When the shipper is to be opened again, for it lacks an optional repository.
    complete_at: Option<Instant>,
    opening: Option<JoinHandle<Opened>>,
    scanning: Option<JoinHandle<Result<(PathBuf, Scan)>>>,
    scan_at: Instant,
    /// Notifications do not lead to a scan before.
    rest_until: Instant,
    inheritance: Inheritance,
    shipping: JoinSet<(WalFileName, Result<Done>)>,
    wake: Arc<Notify>,
    watch: Watch,
    tally: Tally,
    report_at: Instant,
}

impl Archiver {
    pub(super) fn new(services: Services, cluster: ClusterConfig, door: Door) -> Self {
        let wake = Arc::new(Notify::new());
        Self {
            tally: Tally::new(&services.hub, &cluster.name),
            services,
            cluster,
            door,
            queue: Queue::default(),
            waiters: HashMap::new(),
            seen: None,
            shipper: None,
            acks: None,
            complete_at: None,
            opening: None,
            scanning: None,
            scan_at: Instant::now(),
            rest_until: Instant::now(),
            inheritance: Inheritance::default(),
            shipping: JoinSet::new(),
            watch: Watch::new(wake.clone()),
            wake,
            report_at: Instant::now(),
        }
    }

    /// Until the generation ends; questions that are then unanswered are declined.
    pub(super) async fn run(mut self, heard: &mut mpsc::Receiver<Ask>) -> Result<()> {
        let shutdown = self.services.hub.shutdown.clone();
        let holes = holes::Watcher::new(&self.services, &self.cluster.name);
        let _holes = AbortOnDropHandle::new(tokio::spawn(holes.clone().run()));
        let (pulse, name) = (self.services.hub.pulse.clone(), format!("archiver {}", self.cluster.name));
        loop {
            pulse.beat(&name, HANGS);
            self.begin_what_is_due();
            let next = self.next_instant().min(self.report(&holes));
            let wake = self.wake.clone();
            tokio::select! {
                () = shutdown.cancelled() => {
                    pulse.rest(&name);
                    return Ok(());
                }
                Some(ask) = heard.recv() => self.asked(ask),
                Some(ended) = self.shipping.join_next(), if !self.shipping.is_empty() => {
                    self.shipped(ended.map_err(panicked)?);
                }
                ended = end_of(&mut self.scanning) => self.scanned(ended.map_err(panicked)?),
                ended = end_of(&mut self.opening) => self.opened(ended.map_err(panicked)?, &holes),
                ended = end_of(self.inheritance.looking()) => {
                    if self.inheritance.looked(ended, Instant::now()) {
                        self.scan_at = Instant::now();
                    }
                }
                () = wake.notified() => self.scan_at = self.scan_at.min(Instant::now().max(self.rest_until)),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    fn begin_what_is_due(&mut self) {
        let now = Instant::now();
        if self.scanning.is_none() && self.scan_at <= now {
            self.scan_at = now + RESCAN;
            let (cluster, known) = (self.cluster.clone(), self.door.data_directory());
            let also = self.inheritance.names().to_vec();
            self.scanning = Some(tokio::task::spawn_blocking(move || {
                let found = find(&cluster, known)?;
                scan::scan(&found, &also).map(|scan| (found, scan))
            }));
        }
        let Some((data_directory, seen)) = &self.seen else { return };
        if self.complete_at.is_some_and(|at| at <= now) && self.shipping.is_empty() {
            self.complete_at = None;
            self.shipper = None;
        }
        let Some(shipper) = &self.shipper else {
            if self.opening.is_none() && self.queue.is_due_at(now) {
                let opened =
                    ship::open(self.services.clone(), self.cluster.name.clone(), seen.system, seen.size);
                self.opening = Some(tokio::spawn(opened));
            }
            return;
        };
        self.inheritance.look(shipper, data_directory, seen, now);
        while let Some(name) = self.queue.next(AHEAD, now) {
            let known = self.acks.as_ref().and_then(|acks| acks.digest(name));
            let (shipper, at) = (shipper.clone(), self.services.hub.clock.now());
            self.shipping.spawn(ship::one(shipper, data_directory.clone(), name, known, at));
        }
    }

    /// When something is due, if nothing else happens.
    fn next_instant(&self) -> Instant {
        let now = Instant::now();
        let queue = self.queue.wake_at(now);
        let scan = if self.scanning.is_some() { now + RESCAN } else { self.scan_at };
        [Some(scan), queue, self.complete_at].into_iter().flatten().min().unwrap_or(scan)
    }

    fn asked(&mut self, ask: Ask) {
        let Ask { system, name, fingerprint, reply } = ask;
        if self.seen.as_ref().is_some_and(|(_, seen)| seen.system != system) {
            // The directory is another cluster's now, and we have not looked yet.
            self.wake.notify_one();
            let _ = reply.send(Answer::Declined("the data directory has another cluster in it".to_owned()));
            return;
        }
        if let Some(ack) = self.acks.as_ref().and_then(|acks| acks.of(name, &fingerprint)) {
            let _ = reply.send(yes(name, ack, Vec::new()));
            return;
        }
        if !self.queue.ask(name) {
            // A notification was lost, and more may be ready.
            self.wake.notify_one();
        }
        self.waiters.entry(name).or_default().push(Waiter { fingerprint, looks: 0, reply });
    }

    fn scanned(&mut self, ended: Result<(PathBuf, Scan)>) {
        self.scanning = None;
        let rest = if self.queue.names().nth(2 * AHEAD).is_some() { LONG_REST } else { REST };
        self.rest_until = Instant::now() + rest;
        self.scan_at = self.scan_at.max(self.rest_until);
        let (data_directory, scan) = match ended {
            Ok(found) => found,
            Err(error) => return self.tally.cannot_look(&error),
        };
        self.watch.follow(&scan.status_directory, scan.identity);
        let same = |seen: &Scan| (seen.system, seen.size) == (scan.system, scan.size);
        if self.seen.as_ref().is_some_and(|(_, seen)| !same(seen)) {
            self.begin_anew();
        }
        let acked = |name, fingerprint: &_| {
            self.acks.as_ref().is_some_and(|acks| acks.of(name, fingerprint).is_some())
        };
        let waiting = scan.ready.iter().filter(|ready| !acked(ready.name, &ready.fingerprint));
        let waiting: Vec<_> = waiting.map(|r| (r.name, r.fingerprint.bytes, r.since)).collect();
        self.queue.found(&waiting);
        self.tally.looked(scan.system);
        self.door.found_at(data_directory.clone());
        self.seen = Some((data_directory, scan));
    }

    /// Another cluster, or one of another segment size, is where ours was.
    fn begin_anew(&mut self) {
        self.shipping = JoinSet::new();
        self.queue = Queue::default();
        self.inheritance = Inheritance::default();
        (self.shipper, self.acks, self.complete_at) = (None, None, None);
        self.waiters.clear();
        if let Some(opening) = self.opening.take() {
            opening.abort();
        }
    }

    fn opened(&mut self, (opened, complete): Opened, holes: &holes::Watcher) {
        self.opening = None;
        let shipper = match opened {
            Ok(shipper) => shipper,
            Err(error) => {
                self.queue.hold(Instant::now());
                for (_, waiters) in self.waiters.drain() {
                    for waiter in waiters {
                        // Who went away needs no answer.
                        let _ = waiter.reply.send(Answer::refusal(&error));
                    }
                }
                return self.failed(None, &error);
            }
        };
        self.complete_at = (!complete).then(|| Instant::now() + COMPLETE_AFTER);
        let hub = &self.services.hub;
        let acks = Acks::load(&hub.state, shipper.system(), shipper.holders(), hub.clock.now());
        self.acks = Some(acks);
        holes.look_in(shipper.system(), shipper.segment_size());
        self.shipper = Some(shipper);
        // Some of what waits may be acknowledged already, and some who wait may be answered.
        self.scan_at = Instant::now();
        let waiting = std::mem::take(&mut self.waiters);
        for (name, waiters) in waiting {
            for Waiter { fingerprint, looks, reply } in waiters {
                match self.acks.as_ref().and_then(|acks| acks.of(name, &fingerprint)) {
                    Some(ack) => drop(reply.send(yes(name, ack, Vec::new()))),
                    None => {
                        self.waiters.entry(name).or_default().push(Waiter { fingerprint, looks, reply });
                    }
                }
            }
        }
    }

    fn shipped(&mut self, (name, ended): (WalFileName, Result<Done>)) {
        let now = self.services.hub.clock.now();
        match ended {
            Ok(done) => {
                self.queue.succeeded(name);
                if matches!(name, WalFileName::History(_)) {
                    // PostgreSQL has been promoted, or is about to be: what it inherited may soon be removed.
                    self.scan_at = self.scan_at.min(Instant::now() + PROMOTION);
                }
                let warnings = self.tally.done(name, &done, now);
                let (digest, fingerprint, damage) = match done {
                    Done::Shipped(shipped) => (shipped.digest, shipped.fingerprint, shipped.damage),
                    Done::Known(digest, fingerprint) => {
                        let known = self.acks.as_ref().and_then(|acks| acks.get(name));
                        (digest, fingerprint, known.and_then(|ack| ack.damage.clone()))
                    }
                };
                let ack = Ack { name, digest, fingerprint, damage, at: now };
                self.answer(&ack, &warnings);
                if let Some(acks) = &mut self.acks {
                    acks.add(vec![ack], now);
                }
            }
            Err(error) => {
                self.queue.failed(name, error.code(), Instant::now());
                for waiter in self.waiters.remove(&name).into_iter().flatten() {
                    let _ = waiter.reply.send(Answer::refusal(&error));
                }
                self.failed(Some(name), &error);
            }
        }
    }

    /// Tells those who wait for this content; who waits for another one of the name is looked at again.
    fn answer(&mut self, ack: &Ack, warnings: &[String]) {
        for waiter in self.waiters.remove(&ack.name).into_iter().flatten() {
            if waiter.fingerprint == ack.fingerprint {
                let _ = waiter.reply.send(yes(ack.name, ack, warnings.to_vec()));
            } else if waiter.looks + 1 < LOOKS && !waiter.reply.is_closed() {
                self.queue.ask(ack.name);
                let again = Waiter { fingerprint: ack.fingerprint, looks: waiter.looks + 1, ..waiter };
                self.waiters.entry(ack.name).or_default().push(again);
            } else {
                let _ =
                    waiter.reply.send(Answer::Declined("the file changes while it is looked at".to_owned()));
            }
        }
    }

    fn failed(&mut self, name: Option<WalFileName>, error: &Error) {
        self.tally.failed(name, error, self.services.hub.clock.now());
        let failures = self.queue.failures();
        let again =
            error.code() == Code::StoreDenied || (failures > 0 && failures.is_multiple_of(REOPEN_AFTER));
        if again && name.is_some() && self.shipping.is_empty() {
            self.shipper = None;
            let (services, config) = (self.services.clone(), self.services.hub.config.clone());
            tokio::spawn(async move {
                for repository in &config.repositories {
                    services.stores.close(&repository.name).await;
                }
            });
        }
    }

    /// Not after each event: it goes through all that is remembered. Says when it is due again at the latest.
    fn report(&mut self, holes: &holes::Watcher) -> Instant {
        let now = Instant::now();
        let Some((_, scan)) = &self.seen else { return now + RESCAN };
        if self.report_at > now {
            return self.report_at;
        }
        self.tally.report(scan, &self.queue, self.acks.as_ref(), holes);
        self.report_at = now + REPORT_REST;
        // The next event wakes the loop, and is told when the rest is over.
        now + RESCAN
    }
}

/// Where the cluster is: as configured, as the running server's lock file says, or where it was.
fn find(cluster: &ClusterConfig, known: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(configured) = &cluster.data_directory {
        return Ok(configured.clone());
    }
    let running = as_owner::data_directory(&cluster.connection)?;
    running.or(known).ok_or_else(|| {
        Error::new(
            Code::NotReady,
            format!("cannot tell where the data directory of cluster {} is", cluster.name),
        )
        .hint("start PostgreSQL, or set data_directory of the cluster in the configuration")
    })
}

fn yes(name: WalFileName, ack: &Ack, warnings: Vec<String>) -> Answer {
    Answer::Archived(Archived { name: name.to_string(), damage: ack.damage.clone(), warnings })
}

/// The end of a task, if there is one; else never.
async fn end_of<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

fn panicked(error: JoinError) -> Error {
    Error::internal("a step of the archiver panicked").because(error)
}
