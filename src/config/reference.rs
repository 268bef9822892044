//! Every key with its meaning, default and unit, in one table. `pgkeep config example` and the committed
//! `config/pgkeep.example.toml` and `config/REFERENCE.md` are printed from it; tests prove that the table and the
//! reader know the same keys, and that the committed files are fresh.

mod alerts;
mod canary;
mod dump;
mod jobs;
mod prefetch;
mod proof;
mod tail;
mod verify;

/// Areas with a table of their own, in the order in which they are printed after those of this file.
const AREAS: &[(&[SectionDoc], &[KeyDoc])] = &[
    (tail::SECTIONS, tail::KEYS),
    (dump::SECTIONS, dump::KEYS),
    (prefetch::SECTIONS, prefetch::KEYS),
    (verify::SECTIONS, verify::KEYS),
    (jobs::SECTIONS, jobs::KEYS),
    (proof::SECTIONS, proof::KEYS),
    (canary::SECTIONS, canary::KEYS),
    (alerts::SECTIONS, alerts::KEYS),
];

/// A key of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct KeyDoc {
    /// The table's head as it is written: `[cluster.NAME]`; empty for the top of the file.
    pub section: &'static str,
    pub key: &'static str,
    /// text, path, duration, size, bandwidth, number, yes/no, choice, list, secret.
    pub kind: &'static str,
    /// As TOML; "required" and "none" in words.
    pub default: &'static str,
    /// A value that the reader accepts, as TOML.
    pub example: &'static str,
    pub meaning: &'static str,
}

/// What a section is for.
#[derive(Debug, Clone, Copy)]
pub struct SectionDoc {
    pub head: &'static str,
    /// As it stands in the example.
    pub example_head: &'static str,
    pub meaning: &'static str,
}

const CLUSTER: &str = "[cluster.NAME]";
const SERVICE: &str = "[cluster.NAME.service]";
const REPOSITORY: &str = "[[repository]]";
const CREDENTIALS: &str = "[repository.credentials]";
const ENCRYPTION: &str = "[encryption]";
const TRUST: &str = "[trust]";
const BACKUP: &str = "[backup]";
const ARCHIVE: &str = "[archive]";
const RESTORE: &str = "[restore]";
const AGENT: &str = "[agent]";

/// Every section, in the order of the page.
pub fn sections() -> impl Iterator<Item = &'static SectionDoc> {
    SECTIONS.iter().chain(AREAS.iter().flat_map(|(sections, _)| *sections))
}

/// Every key, by section.
pub fn keys() -> impl Iterator<Item = &'static KeyDoc> {
    KEYS.iter().chain(AREAS.iter().flat_map(|(_, keys)| *keys))
}

const SECTIONS: &[SectionDoc] = &[
    SectionDoc { head: "", example_head: "", meaning: "Above the first table." },
    SectionDoc {
        head: CLUSTER,
        example_head: "[cluster.main]",
        meaning: "A PostgreSQL cluster. Its name is the first part of its keys in the repositories. With several, \
                  commands need --cluster.",
    },
    SectionDoc {
        head: SERVICE,
        example_head: "[cluster.main.service]",
        meaning: "Shell commands that stop and start this PostgreSQL. Without them pg_ctlcluster, systemctl and \
                  pg_ctl are tried, whichever runs it.",
    },
    SectionDoc {
        head: REPOSITORY,
        example_head: "[[repository]]",
        meaning: "A place for backups and WAL; there may be several, and each is written at the same time.",
    },
    SectionDoc {
        head: CREDENTIALS,
        example_head: "[repository.credentials]",
        meaning: "S3 keys of the repository above. Without it: environment, shared files, web identity, container, \
                  instance, in this order. A secret is { env = \"NAME\" }, { file = \"/path\" } or \
                  { command = \"…\" }, never a text.",
    },
    SectionDoc {
        head: ENCRYPTION,
        example_head: "[encryption]",
        meaning: "Who can read the backups. Instead of this table, `encryption = \"none\"` at the top of the file \
                  stores everything in the clear; with neither, commands that write refuse.",
    },
    SectionDoc { head: TRUST, example_head: "[trust]", meaning: "Whose backups are believed." },
    SectionDoc { head: BACKUP, example_head: "[backup]", meaning: "Base backups." },
    SectionDoc { head: ARCHIVE, example_head: "[archive]", meaning: "`wal push` and `wal fetch`." },
    SectionDoc { head: RESTORE, example_head: "[restore]", meaning: "Restores." },
    SectionDoc { head: AGENT, example_head: "[agent]", meaning: "The service, `pgkeep agent`." },
];

const fn key(
    section: &'static str,
    key: &'static str,
    kind: &'static str,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> KeyDoc {
    KeyDoc { section, key, kind, default, example, meaning }
}

#[rustfmt::skip]
const KEYS: &[KeyDoc] = &[
    key("", "state_directory", "path", "\"/var/lib/pgkeep\"", "\"/var/lib/pgkeep\"",
        "This host's own keys. Belongs to the owner of the data directory, mode 0700."),

    key(CLUSTER, "connection", "text", "required", "\"host=/var/run/postgresql user=pgkeep dbname=postgres\"",
        "A libpq connection string or URL. Data directory, port, version and tools are found through it. A \
         password does not stand here: use a pass file."),
    key(CLUSTER, "dump_connection", "text", "connection", "\"host=/var/run/postgresql user=pgkeep_dump dbname=postgres\"",
        "The same for dumps and exports, where a role of their own may read every table. `pgkeep check` says what it lacks."),
    key(CLUSTER, "data_directory", "path", "asked of the server", "\"/var/lib/postgresql/17/main\"",
        "Asked of the running server where it is not set; needed to restore when the server is gone. `init` writes it down."),
    key(CLUSTER, "bin_directory", "path", "found", "\"/usr/lib/postgresql/17/bin\"",
        "PostgreSQL's programs of the cluster's major version."),
    key(CLUSTER, "primary", "text", "none", "\"host=db1 user=pgkeep dbname=postgres\"",
        "On a standby: how to reach the primary, which must switch WAL and hold the lock of a base backup."),

    key(SERVICE, "stop", "text", "detected", "\"systemctl stop postgresql@17-main\"", "Stops PostgreSQL and waits."),
    key(SERVICE, "start", "text", "detected", "\"systemctl start postgresql@17-main\"", "Starts PostgreSQL."),
    key(SERVICE, "status", "text", "detected", "\"systemctl is-active postgresql@17-main\"",
        "Exit 0 while PostgreSQL runs."),

    key(REPOSITORY, "name", "text", "required", "\"eu\"", "For --repo and messages."),
    key(REPOSITORY, "url", "text", "required", "\"s3://backups/prod\"",
        "`s3://bucket/prefix`, or `file:///srv/pgkeep` for a directory, which must not lie in the data or state \
         directory, nor the reverse."),
    key(REPOSITORY, "required", "yes/no", "true", "true",
        "Archiving and backups succeed only when every required repository has everything. With false, a failure \
         here is reported and holds up nothing."),
    key(REPOSITORY, "region", "text", "environment or profile, else \"us-east-1\"", "\"eu-central-1\"", "S3: the region."),
    key(REPOSITORY, "endpoint", "text", "AWS", "\"https://s3.example.com\"", "S3: the server, for stores other than AWS."),
    key(REPOSITORY, "path_style", "yes/no", "true with an endpoint", "true",
        "S3: the bucket's name in the path, not in the host name."),
    key(REPOSITORY, "ca_file", "path", "the system's", "\"/etc/pgkeep/ca.pem\"",
        "S3: certificates (PEM) trusted besides the system's."),
    key(REPOSITORY, "storage_class", "text", "the bucket's", "\"STANDARD_IA\"", "S3: the class of what is written."),
    key(REPOSITORY, "checksum", "choice", "\"when_required\"", "\"when_required\"",
        "S3: \"when_supported\" sends checksum headers with every write; stores from before 2025 may refuse them. \
         `pgkeep check` finds out."),
    key(REPOSITORY, "conditional_writes", "yes/no", "false", "false",
        "S3: `If-None-Match: *` on writes. Only for stores that `pgkeep check` has seen obey it."),
    key(REPOSITORY, "profile", "text", "AWS_PROFILE, else \"default\"", "\"backup\"", "S3: the profile of the shared files."),
    key(REPOSITORY, "upload_bandwidth", "bandwidth", "unlimited", "\"20MiB/s\"", "Bytes per second, all uploads together."),
    key(REPOSITORY, "download_bandwidth", "bandwidth", "unlimited", "\"100MiB/s\"", "Bytes per second, all downloads together."),
    key(REPOSITORY, "concurrency", "number", "16", "16", "Requests at once."),
    key(REPOSITORY, "capacity", "size", "a directory's disk", "\"2TiB\"",
        "What it can hold, for the alert `repository-usage` and the metrics. A bucket has no end of its own."),
    key(REPOSITORY, "part_size", "size", "\"8MiB\"", "\"8MiB\"", "S3: bytes of a part of a long upload, 5MiB to 1GiB."),
    key(REPOSITORY, "connect_timeout", "duration", "\"3s\"", "\"3s\"", "S3: until a connection stands."),
    key(REPOSITORY, "operation_deadline", "duration", "\"5m\"", "\"5m\"",
        "One request or part with all its retries."),

    key(CREDENTIALS, "access_key_id", "secret", "required", "{ env = \"BACKUP_ACCESS_KEY_ID\" }", "The key's id."),
    key(CREDENTIALS, "secret_access_key", "secret", "required", "{ file = \"/etc/pgkeep/s3.secret\" }", "The key."),
    key(CREDENTIALS, "session_token", "secret", "none", "{ command = \"print-session-token\" }",
        "The token of temporary keys."),
    key(CREDENTIALS, "expire_at", "time", "none", "\"2027-03-01T00:00:00Z\"",
        "When the store takes these keys no longer. The agent warns before; it cannot know by itself. Credentials that it finds elsewhere renew themselves."),

    key(ENCRYPTION, "recipients", "list", "required",
        "[\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]",
        "age public keys. Each of their identities opens everything; list a second one that is kept elsewhere."),
    key(ENCRYPTION, "identity_file", "path", "none", "\"/etc/pgkeep/identity.txt\"",
        "The private key, only where restores run; readable by its owner alone. A host that backs up needs none."),

    key(TRUST, "hosts", "list", "[]", "[\"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"]",
        "Minisign public keys of other hosts whose backups are believed. Each host believes its own; `pgkeep key \
         show` prints the line for the others."),

    key(BACKUP, "workers", "number", "one per core, at most 8", "2", "Packs compressed and encrypted at once."),
    key(BACKUP, "compression", "number", "2", "2", "zstd's level, 1 to 19. Up to 5 it changes speed more than size."),
    key(BACKUP, "after_damage", "yes/no", "true", "true",
        "When WAL is archived damaged or is lost for good, no older backup can be recovered past it: the agent takes a \
         full one by itself, once for each such place and not more often than every hour."),

    key(ARCHIVE, "push_deadline", "duration", "\"60s\"", "\"60s\"",
        "`wal push` fails after this, and PostgreSQL tries again: a store that hangs must not hang archiving."),
    key(ARCHIVE, "fetch_deadline", "duration", "\"60s\"", "\"60s\"", "`wal fetch` fails after this."),
    key(ARCHIVE, "optional_grace", "duration", "\"1s\"", "\"1s\"",
        "How long a repository with required = false may take after the required ones are done."),
    key(ARCHIVE, "compression", "number", "1", "1", "zstd's level, 1 to 19. Up to 5 it changes speed more than size."),
    key(ARCHIVE, "workers", "number", "3", "3", "Files that the agent compresses and encrypts at once, 1 to 16. Those that are being sent are bounded by memory: 96 MiB."),

    key(RESTORE, "workers", "number", "one per core, at most 8", "2", "Packs fetched and unpacked at once."),
    key(RESTORE, "look_ahead", "number", "8", "8", "WAL segments kept ready ahead of PostgreSQL's replay."),
    key(RESTORE, "scratch_directory", "path", "`scratch` in the state directory", "\"/srv/scratch\"",
        "Where `restore table`, drills and restore tests make their instances, which have the size of the whole cluster."),

    key(AGENT, "socket", "path", "\"/run/pgkeep/agent.sock\"", "\"/run/pgkeep/agent.sock\"",
        "Where `wal push` and the commands reach the agent. At most 107 bytes."),
    key(AGENT, "http", "text", "\"127.0.0.1:9797\"", "\"127.0.0.1:9797\"",
        "Where metrics and health are served, to everybody who can reach it; \"none\" turns them off."),
    key(AGENT, "server_interval", "duration", "\"15s\"", "\"15s\"",
        "How often PostgreSQL and the disk of pg_wal are asked how they are, 500ms to 2m."),
];

/// Keys that a minimal file has; the example comments out all others.
fn is_essential(doc: &KeyDoc) -> bool {
    const NEEDED: [&str; 3] = [CLUSTER, REPOSITORY, ENCRYPTION];
    doc.default == "required" && NEEDED.contains(&doc.section)
}

/// A complete commented configuration. It is valid as it stands (with somebody else's recipient).
pub fn example() -> String {
    render(is_essential)
}

fn render(is_active: impl Fn(&KeyDoc) -> bool) -> String {
    let mut text = String::from(
        "# pgkeep's configuration, with every key. Lines that begin with `#` and a key are at their defaults or not\n\
         # set. Durations: \"30s\", \"5m\", \"7d\". Sizes: \"64MiB\". Paths are absolute. Unknown keys are refused.\n",
    );
    for section in sections() {
        let keys = || keys().filter(|doc| doc.section == section.head);
        let active = keys().any(&is_active);
        text.push('\n');
        if !section.head.is_empty() {
            text.push_str(&wrapped(section.meaning, "# "));
            let mark = if active { "" } else { "#" };
            text.push_str(&format!("{mark}{}\n", section.example_head));
        }
        for doc in keys() {
            let default =
                if doc.default == "required" { String::new() } else { format!(" Default: {}.", doc.default) };
            text.push_str(&wrapped(&format!("{}{default}", doc.meaning), "# "));
            let mark = if is_active(doc) { "" } else { "#" };
            text.push_str(&format!("{mark}{} = {}\n", doc.key, doc.example));
        }
    }
    text
}

/// The same as a page.
pub fn reference_page() -> String {
    let mut text = String::from(
        "# Configuration reference\n\n\
         Printed from the program's own table (`src/config/reference.rs`); `pgkeep config example` prints it as a\n\
         commented file. TOML; unknown keys are refused, and every fault is reported at once with its line.\n",
    );
    for section in sections() {
        let head = if section.head.is_empty() { "At the top" } else { section.head };
        let meaning = if section.head.is_empty() { "Before the first table." } else { section.meaning };
        text.push_str(&format!(
            "\n## `{head}`\n\n{meaning}\n\n| key | kind | default | meaning |\n|---|---|---|---|\n"
        ));
        for doc in keys().filter(|doc| doc.section == section.head) {
            let meaning = doc.meaning.replace('|', "\\|");
            text.push_str(&format!("| `{}` | {} | {} | {meaning} |\n", doc.key, doc.kind, doc.default));
        }
    }
    text
}

fn wrapped(text: &str, prefix: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && prefix.len() + line.chars().count() + 1 + word.chars().count() > 110 {
            lines.push_str(&format!("{prefix}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines + &format!("{prefix}{line}\n")
}

#[cfg(test)]
pub(super) fn everything_set() -> String {
    // A file whose S3 repository has both a profile and credentials would be refused; the profile is tried apart.
    render(|doc| doc.key != "profile" && !alerts::is_for_another_kind(doc) && !jobs::is_for_another_kind(doc))
}
