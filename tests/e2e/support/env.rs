//! A place to test in: a root with a server, a repository, keys and a configuration, wired together.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use age::secrecy::ExposeSecret as _;

use super::pg::{Build, Pg, PgOptions};
use super::pgkeep::Pgkeep;
use super::root::Root;
use super::s3::S3;
use super::store::RawStore;

/// The agent's control socket, in the root.
const SOCKET: &str = "agent.sock";

/// What kind of place; `EnvOptions::new(major)` is a server with a repository in a directory, encrypted.
pub struct EnvOptions {
    pg: PgOptions,
    repositories: Vec<RepoOptions>,
    encrypted: bool,
    extra: String,
    agent: String,
    init: bool,
    archiving: bool,
}

struct RepoOptions {
    name: String,
    required: bool,
    place: RepoPlace,
}

enum RepoPlace {
    Dir,
    /// A fresh bucket; the endpoint to configure when it is not the server's own (a fault proxy, HTTPS).
    S3 {
        store: Box<S3>,
        endpoint: String,
    },
}

impl EnvOptions {
    pub fn new(major: u32) -> Self {
        Self::on(Build::of(major))
    }
    pub fn on(build: Build) -> Self {
        Self {
            pg: PgOptions::new(build),
            repositories: Vec::new(),
            encrypted: true,
            extra: String::new(),
            agent: "http = \"none\"".to_owned(),
            init: true,
            archiving: true,
        }
    }
    /// Changes how the server is made.
    pub fn pg(mut self, change: impl FnOnce(PgOptions) -> PgOptions) -> Self {
        self.pg = change(self.pg);
        self
    }
    /// A repository in a directory. Without any, the environment gets one of the name `repo`.
    pub fn dir_repository(mut self, name: &str, required: bool) -> Self {
        self.repositories.push(RepoOptions { name: name.to_owned(), required, place: RepoPlace::Dir });
        self
    }
    pub fn s3_repository(self, name: &str, required: bool) -> Self {
        let store = S3::fresh_bucket();
        let endpoint = store.endpoint().to_owned();
        self.s3_repository_at(name, required, store, &endpoint)
    }
    /// As above through another way in, for example a `FaultProxy` in front of the server.
    pub fn s3_repository_at(mut self, name: &str, required: bool, store: S3, endpoint: &str) -> Self {
        let place = RepoPlace::S3 { store: Box::new(store), endpoint: endpoint.to_owned() };
        self.repositories.push(RepoOptions { name: name.to_owned(), required, place });
        self
    }
    /// `encryption = "none"`, so that a test can read what is stored.
    pub fn plain(mut self) -> Self {
        self.encrypted = false;
        self
    }
    /// Tables appended to the configuration file.
    pub fn config(mut self, text: &str) -> Self {
        self.extra += text;
        self.extra.push('\n');
        self
    }
    /// Keys of `[agent]` besides the socket, instead of `http = "none"`; port 0 takes a free one.
    pub fn agent(mut self, keys: &str) -> Self {
        keys.clone_into(&mut self.agent);
        self
    }
    /// The server is made but `pgkeep init` is not run and nothing is archived.
    pub fn uninitialised(mut self) -> Self {
        self.init = false;
        self.archiving = false;
        self
    }
    /// `archive_mode` stays off.
    pub fn not_archiving(mut self) -> Self {
        self.archiving = false;
        self
    }

    /// Makes the server, starts it, writes keys and configuration, runs `pgkeep init` and turns archiving on.
    #[track_caller]
    pub fn build(mut self) -> TestEnv {
        if self.repositories.is_empty() {
            self = self.dir_repository("repo", true);
        }
        let root = Root::new();
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        let identity_file = root.file("identity.txt", 0o600, identity.to_string().expose_secret());
        let state = root.dir("state", 0o700);
        if self.archiving {
            self.pg = self.pg.conf("archive_mode = on").conf("archive_command = 'false'");
        }
        let pg = self.pg.create(&root);
        let (mut stores, mut tables) = (Vec::new(), String::new());
        for repo in self.repositories {
            tables += &repository_table(&root, &repo);
            stores.push(raw_store(&root, repo));
        }
        let agent = format!("[agent]\nsocket = \"{}\"\n{}\n", root.join(SOCKET).display(), self.agent);
        let text = Parts {
            state: &state,
            pg: &pg,
            repositories: &tables,
            encryption: &encryption(self.encrypted, &recipient, &identity_file),
            extra: &format!("{agent}\n{}", self.extra),
        };
        let config_path = root.file("pgkeep.toml", 0o644, &text.render());
        let pgkeep = Pgkeep::with_config(&config_path);
        let env = TestEnv { pg, pgkeep, stores, identity_file, recipient, config_path, state, root };
        env.pg.start();
        if self.init {
            env.pgkeep.run(["init"]).ok();
        }
        if self.archiving {
            env.turn_archiving_on();
        }
        env
    }
}

struct Parts<'a> {
    state: &'a Path,
    pg: &'a Pg,
    repositories: &'a str,
    encryption: &'a str,
    extra: &'a str,
}

impl Parts<'_> {
    fn render(&self) -> String {
        let Self { state, pg, repositories, encryption, extra } = self;
        let (conninfo, data, bin) = (pg.conninfo(), pg.data.display(), pg.build.bin.display());
        // A bare key must stand before the first table.
        let (before, after) = if encryption.starts_with('[') { ("", *encryption) } else { (*encryption, "") };
        format!(
            "state_directory = \"{}\"\n{before}\n[cluster.main]\nconnection = \"{conninfo}\"\n\
             data_directory = \"{data}\"\nbin_directory = \"{bin}\"\n\n{repositories}\n{after}\n{extra}",
            state.display()
        )
    }
}

fn encryption(on: bool, recipient: &str, identity_file: &Path) -> String {
    if on {
        let file = identity_file.display();
        format!("[encryption]\nrecipients = [\"{recipient}\"]\nidentity_file = \"{file}\"\n")
    } else {
        "encryption = \"none\"\n".to_owned()
    }
}

fn repository_table(root: &Root, repo: &RepoOptions) -> String {
    let mut text = format!("[[repository]]\nname = \"{}\"\nrequired = {}\n", repo.name, repo.required);
    match &repo.place {
        RepoPlace::Dir => {
            let dir = root.dir(&repo.name, 0o750);
            writeln!(text, "url = \"file://{}\"", dir.display()).unwrap();
        }
        RepoPlace::S3 { store, endpoint } => {
            let server = store.server();
            write!(
                text,
                "url = \"s3://{}/prod\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\npath_style = true\n",
                store.bucket()
            )
            .unwrap();
            let access = root.file(&format!("{}.access", repo.name), 0o600, &server.access_key);
            let secret = root.file(&format!("{}.secret", repo.name), 0o600, &server.secret_key);
            writeln!(text, "[repository.credentials]").unwrap();
            writeln!(text, "access_key_id = {{ file = \"{}\" }}", access.display()).unwrap();
            writeln!(text, "secret_access_key = {{ file = \"{}\" }}", secret.display()).unwrap();
        }
    }
    text.push('\n');
    text
}

fn raw_store(root: &Root, repo: RepoOptions) -> (String, RawStore) {
    let store = match repo.place {
        RepoPlace::Dir => RawStore::Dir(root.join(&repo.name)),
        RepoPlace::S3 { store, .. } => RawStore::S3 { store, prefix: "prod/".to_owned() },
    };
    (repo.name, store)
}

/// A server with its repositories. Dropped, everything is gone.
pub struct TestEnv {
    // Dropped in this order: the server before the directory it lives in.
    pub pg: Pg,
    pub pgkeep: Pgkeep,
    stores: Vec<(String, RawStore)>,
    pub identity_file: PathBuf,
    pub recipient: String,
    pub config_path: PathBuf,
    pub state: PathBuf,
    pub root: Arc<Root>,
}

impl TestEnv {
    /// The usual place: this major, one directory repository, encrypted, initialised, archiving.
    #[track_caller]
    pub fn new(major: u32) -> Self {
        EnvOptions::new(major).build()
    }
    /// The raw objects of a repository.
    #[track_caller]
    pub fn store(&self, name: &str) -> &RawStore {
        let found = self.stores.iter().find(|(n, _)| n == name);
        &found.unwrap_or_else(|| panic!("no repository {name}")).1
    }
    /// The raw objects of the only (or first) repository.
    pub fn repo(&self) -> &RawStore {
        &self.stores[0].1
    }
    /// The line for `archive_command`, without its quotes.
    pub fn archive_command(&self) -> String {
        self.pgkeep.clone().global("--cluster").global("main").shell_command("wal push %p")
    }
    pub fn turn_archiving_on(&self) {
        self.configure_archiving();
        self.pg.reload();
    }
    /// The same for a server that is not running.
    pub fn configure_archiving(&self) {
        self.pg.add_conf(&format!("archive_command = '{}'", self.archive_command()));
    }
    /// Where this environment's agent listens.
    pub fn agent_socket(&self) -> PathBuf {
        self.root.join(SOCKET)
    }
    /// The agent, started and answering.
    #[track_caller]
    pub fn start_agent(&self) -> super::agent::Agent {
        super::agent::Agent::start(self)
    }
    pub fn config_text(&self) -> String {
        std::fs::read_to_string(&self.config_path).unwrap()
    }
    /// A second configuration beside the first, made from its text, and the program that uses it.
    pub fn with_config(&self, name: &str, change: impl FnOnce(String) -> String) -> Pgkeep {
        let path = self.root.file(name, 0o644, &change(self.config_text()));
        Pgkeep::with_config(&path)
    }
    /// The configuration of pgkeep on the host of a standby: its server, a state directory and a socket of its own. And the
    /// state directory.
    pub fn beside(&self, standby: &Pg) -> (Pgkeep, PathBuf) {
        let (state, socket) = (self.root.dir("standby.state", 0o700), self.root.join("standby.sock"));
        let there = self.with_config("standby.toml", |text| {
            text.replace(&self.pg.conninfo(), &standby.conninfo())
                .replace(self.pg.data.to_str().unwrap(), standby.data.to_str().unwrap())
                .replace(self.state.to_str().unwrap(), state.to_str().unwrap())
                .replace(self.agent_socket().to_str().unwrap(), socket.to_str().unwrap())
        });
        (there, state)
    }
    /// `pgkeep backup full`, and its id.
    #[track_caller]
    pub fn backup(&self) -> String {
        let json = self.pgkeep.clone().global("--json").run(["backup", "full"]).ok().json();
        json["id"].as_str().unwrap_or_else(|| panic!("no id in {json}")).to_owned()
    }
    /// A directory for a side instance; its parent lets every user through.
    pub fn side_dir(&self, name: &str) -> PathBuf {
        self.root.dir(name, 0o700)
    }
    /// The server of a restored data directory, started by pgkeep or not at all yet.
    pub fn side(&self, data: &Path) -> Pg {
        Pg::at(&self.root, data, self.pg.build.clone())
    }
}
