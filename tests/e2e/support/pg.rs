//! PostgreSQL servers of every major, without TCP, as an unprivileged user, in the test's own process group: who
//! kills the test kills its servers.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::root::{Ids, Root, postmaster_pid, remove_shared_memory, shared_memory_of, wait_deserted};
use super::sql::{Session, describe};
use super::wait::eventually;

/// The servers' own logs are read from this far back in a failure's message.
const LOG_TAIL: usize = 3000;
const PATIENCE: Duration = Duration::from_secs(90);

/// One build of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub major: u32,
    pub bin: PathBuf,
    /// What `LD_LIBRARY_PATH` must be for its programs; none for a packaged build.
    pub lib: Option<PathBuf>,
}

impl Build {
    pub const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

    /// The relocatable build of a major that `scripts/install-test-deps` installed.
    pub fn of(major: u32) -> Self {
        let home = std::env::var_os("PGKEEP_TEST_HOME").unwrap_or_else(|| "/opt/pgkeep-test".into());
        let base = Path::new(&home).join("pg").join(major.to_string());
        Self { major, bin: base.join("bin"), lib: Some(base.join("lib")) }.checked()
    }
    /// Debian's own PostgreSQL 15.
    pub fn debian() -> Self {
        Self { major: 15, bin: "/usr/lib/postgresql/15/bin".into(), lib: None }.checked()
    }
    fn checked(self) -> Self {
        let server = self.bin.join("postgres");
        assert!(server.exists(), "no {}: run scripts/install-test-deps", server.display());
        self
    }
    /// One of its programs, to be run as the servers' user.
    pub fn tool(&self, name: &str) -> Command {
        let ids = Ids::server();
        let mut command = Command::new(self.bin.join(name));
        command.current_dir("/").env("LC_ALL", "C").env("TZ", "UTC").stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(ids.uid).gid(ids.gid);
        }
        if let Some(lib) = &self.lib {
            command.env("LD_LIBRARY_PATH", lib);
        }
        command
    }
    /// Runs one of its programs and returns what it printed; panics when it fails.
    #[track_caller]
    pub fn run_tool<A: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = A>,
    ) -> String {
        let output = self.tool(name).args(args).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name} failed ({}): {out}{err}", output.status);
        out.into_owned()
    }
}

/// How a server is made.
#[derive(Debug, Clone)]
pub struct PgOptions {
    name: String,
    build: Build,
    segment_mib: u32,
    checksums: bool,
    initdb: Vec<String>,
    conf: Vec<String>,
    conf_outside: bool,
}

impl PgOptions {
    pub fn new(build: Build) -> Self {
        let name = "main".to_owned();
        Self {
            name,
            build,
            segment_mib: 16,
            checksums: true,
            initdb: Vec::new(),
            conf: Vec::new(),
            conf_outside: false,
        }
    }
    /// Debian's layout: the configuration in a directory of its own, with an empty `conf.d`.
    pub fn conf_outside(mut self) -> Self {
        self.conf_outside = true;
        self
    }
    /// Names its directories; must differ between the servers of one root.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
    pub fn segment_mib(mut self, mib: u32) -> Self {
        self.segment_mib = mib;
        self
    }
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }
    pub fn initdb_arg(mut self, arg: impl Into<String>) -> Self {
        self.initdb.push(arg.into());
        self
    }
    /// A line of postgresql.conf; a later one wins.
    pub fn conf(mut self, line: impl Into<String>) -> Self {
        self.conf.push(line.into());
        self
    }

    /// Runs initdb; the server is not started.
    pub fn create(self, root: &Arc<Root>) -> Pg {
        let mut pg = Pg::place(root, &self.name, self.build.clone());
        let mut initdb = self.build.tool("initdb");
        initdb.arg("-D").arg(&pg.data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-locale",
            "-E",
            "UTF8",
            "-N",
        ]);
        initdb.arg(format!("--wal-segsize={}", self.segment_mib));
        match (self.checksums, self.build.major >= 18) {
            (true, _) => drop(initdb.arg("--data-checksums")),
            (false, true) => drop(initdb.arg("--no-data-checksums")),
            (false, false) => {}
        }
        let made = initdb.args(&self.initdb).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        if self.conf_outside {
            pg.move_conf_outside(&self.name);
        }
        pg.write_conf(&self.conf);
        pg
    }
}

/// Settings for quiet, quick servers. Only a power cut could tell `fsync = off` from on, and none comes.
/// No autovacuum: the ledger knows every transaction by number.
const BASE_CONF: &str = "listen_addresses = ''\nfsync = off\nshared_buffers = 16MB\nautovacuum = off\n\
     track_commit_timestamp = on\nwal_level = replica\nmax_wal_senders = 5\nmax_connections = 30\n\
     timezone = 'UTC'\nlog_timezone = 'UTC'\nlog_line_prefix = '%m [%p] '\nlog_checkpoints = off\n";

/// How a server is told to end: PostgreSQL's three modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Smart,
    Fast,
    Immediate,
}

/// A server, running or not. Dropped, it is killed.
pub struct Pg {
    pub build: Build,
    pub data: PathBuf,
    /// Where postgresql.conf is: the data directory, unless made with `conf_outside`.
    pub conf_dir: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    root: Arc<Root>,
}

impl Pg {
    const PORT: u16 = 5432;

    /// Where a server named `name` would be, without making it.
    pub fn place(root: &Arc<Root>, name: &str, build: Build) -> Self {
        Self::at(root, &root.join(name), build)
    }
    /// A data directory that something else makes or starts, such as a restore.
    pub fn at(root: &Arc<Root>, data: &Path, build: Build) -> Self {
        let name = data.file_name().unwrap().to_str().unwrap().to_owned();
        let socket_dir = root.dir(&format!("{name}.s"), 0o755);
        let log = root.join(format!("{name}.log"));
        Self {
            build,
            data: data.to_owned(),
            conf_dir: data.to_owned(),
            socket_dir,
            log,
            child: Mutex::new(None),
            root: Arc::clone(root),
        }
    }
    /// A streaming standby of `primary`, made by pg_basebackup; not started.
    pub fn standby_of(primary: &Self, name: &str) -> Self {
        let standby = Self::place(&primary.root, name, primary.build.clone());
        let mut copy = primary.build.tool("pg_basebackup");
        copy.args(["-X", "stream", "-c", "fast", "-R", "-N", "-U", "postgres", "-D"]).arg(&standby.data);
        copy.arg("-h").arg(&primary.socket_dir).arg("-p").arg(Self::PORT.to_string());
        let made = copy.output().unwrap();
        assert!(made.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&made.stderr));
        standby.add_conf(&format!("unix_socket_directories = '{}'", standby.socket_dir.display()));
        standby
    }

    fn move_conf_outside(&mut self, name: &str) {
        let dir = self.root.dir(&format!("{name}.etc"), 0o755);
        self.root.dir(&format!("{name}.etc/conf.d"), 0o755);
        for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            std::fs::rename(self.data.join(file), dir.join(file)).unwrap();
        }
        self.conf_dir = dir;
        let (data, etc) = (self.data.display(), self.conf_dir.display());
        self.add_conf(&format!(
            "data_directory = '{data}'\nhba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n\
             external_pid_file = '{etc}/main.pid'\ninclude_dir = 'conf.d'"
        ));
    }
    fn write_conf(&self, lines: &[String]) {
        let mut text = BASE_CONF.to_owned();
        let sockets = self.socket_dir.display();
        write!(text, "port = {}\nunix_socket_directories = '{sockets}'\n", Self::PORT).unwrap();
        for line in lines {
            text += line;
            text.push('\n');
        }
        self.add_conf(&text);
    }
    /// Appends to postgresql.conf; a running server does not know until `reload` or `restart`.
    pub fn add_conf(&self, text: &str) {
        let path = self.conf_dir.join("postgresql.conf");
        let conf = std::fs::read_to_string(&path).unwrap() + "\n" + text + "\n";
        std::fs::write(&path, conf).unwrap();
    }

    #[track_caller]
    pub fn start(&self) -> &Self {
        if let Err(why) = self.try_start() {
            panic!("PostgreSQL {} did not start: {why}", self.build.major);
        }
        self
    }
    /// Starts it and waits until it takes connections; if it ends instead, the end of its log.
    pub fn try_start(&self) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let logged = self.log_text().len();
        let mut server = self.build.tool("postgres");
        server.arg("-D").arg(&self.conf_dir).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = server.spawn().unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if self.is_ready() || start.elapsed() > PATIENCE {
                break None;
            }
            std::thread::sleep(Duration::from_millis(15));
        };
        *self.child.lock().unwrap() = Some(child);
        match status {
            None if self.is_ready() => Ok(()),
            None => Err(format!("not ready within {PATIENCE:?}: {}", self.log_tail())),
            Some(status) => Err(format!("{status}: {}", self.log_text().get(logged..).unwrap_or_default())),
        }
    }
    /// What `postmaster.pid` says in its last line (`miscinit.h`): also true for a standby that can be read.
    fn is_ready(&self) -> bool {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let status = text.lines().nth(7).unwrap_or_default().trim();
        // `standby` means that recovery goes on but nobody may connect; with hot standby it becomes `ready`.
        status == "ready" && self.is_running()
    }
    pub fn is_running(&self) -> bool {
        postmaster_pid(&self.data).is_some()
    }

    fn signal(&self, signal: Signal) {
        let mut left = None;
        if let Some(pid) = postmaster_pid(&self.data) {
            left = shared_memory_of(&self.data).filter(|_| signal == Signal::SIGKILL);
            let _ = kill(pid, signal);
        }
        // Ours must be waited for, or it stays as a zombie that still looks alive.
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let start = Instant::now();
            while child.try_wait().unwrap().is_none() {
                assert!(start.elapsed() < PATIENCE, "the server does not end: {}", self.log_tail());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        wait_deserted(&self.data);
        remove_shared_memory(left);
    }
    pub fn stop(&self, mode: Stop) {
        self.signal(match mode {
            Stop::Smart => Signal::SIGTERM,
            Stop::Fast => Signal::SIGINT,
            Stop::Immediate => Signal::SIGQUIT,
        });
    }
    /// The crash: no process of it is left when this returns.
    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
    }
    pub fn restart(&self) -> &Self {
        self.stop(Stop::Fast);
        self.start()
    }
    pub fn reload(&self) {
        self.sql("select pg_reload_conf()");
    }
    pub fn promote(&self) {
        assert_eq!(self.one("select pg_promote(true, 60)"), "t", "{}", self.log_tail());
    }

    /// Host directory and port of its socket: of a running server as it says itself, so that one that was started
    /// by somebody else with other settings is found too.
    pub fn socket(&self) -> (PathBuf, u16) {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let line = |n: usize| text.lines().nth(n).map(str::trim).filter(|l| !l.is_empty());
        let dir = line(4).map_or_else(|| self.socket_dir.clone(), PathBuf::from);
        (self.data.join(dir), line(3).and_then(|p| p.parse().ok()).unwrap_or(Self::PORT))
    }
    /// A connection string for pgkeep's configuration.
    pub fn conninfo(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.socket_dir.display(), Self::PORT)
    }
    /// A connection that stays, in database `postgres` unless named.
    pub fn session(&self) -> Session {
        self.session_in("postgres")
    }
    #[track_caller]
    pub fn session_in(&self, database: &str) -> Session {
        let (dir, port) = self.socket();
        Session::connect(&dir, port, database)
            .unwrap_or_else(|e| panic!("cannot connect: {}: {}", describe(&e), self.log_tail()))
    }
    #[track_caller]
    pub fn sql(&self, text: &str) -> Vec<Vec<Option<String>>> {
        self.session().sql(text)
    }
    #[track_caller]
    pub fn one(&self, text: &str) -> String {
        self.session().one(text)
    }
    /// One statement in autocommit; the server's message when it refuses.
    pub fn try_sql(&self, text: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let (dir, port) = self.socket();
        let session = Session::connect(&dir, port, "postgres").map_err(|e| describe(&e))?;
        session.try_sql(text).map_err(|e| describe(&e))
    }

    /// Ends the current segment; the name of the one that was ended.
    pub fn switch_wal(&self) -> String {
        // Something must be in the segment, or there is nothing to switch.
        self.sql("select pg_create_restore_point('switch')");
        self.one("select pg_walfile_name(pg_switch_wal())")
    }
    /// Waits until PostgreSQL itself holds `segment` to be archived.
    pub fn wait_archived(&self, segment: &str) {
        let status = self.data.join("pg_wal/archive_status");
        let (ready, segment_file) =
            (status.join(format!("{segment}.ready")), self.data.join("pg_wal").join(segment));
        let done = status.join(format!("{segment}.done"));
        eventually(&format!("{segment} is archived: {}", self.log_tail()), Duration::from_mins(1), || {
            !ready.exists() && (done.exists() || !segment_file.exists())
        });
    }
    /// `switch_wal` and `wait_archived`.
    pub fn switch_and_archive(&self) -> String {
        let segment = self.switch_wal();
        self.wait_archived(&segment);
        segment
    }
    pub fn system_id(&self) -> u64 {
        self.one("select system_identifier from pg_control_system()").parse().unwrap()
    }

    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let mut from = text.len().saturating_sub(LOG_TAIL);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text[from..].to_owned()
    }
}

impl Drop for Pg {
    fn drop(&mut self) {
        let running = postmaster_pid(&self.data);
        let left = running.and_then(|_| shared_memory_of(&self.data));
        if let Some(pid) = running {
            let _ = kill(pid, Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.lock().ok().and_then(|mut c| c.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        remove_shared_memory(left);
    }
}
