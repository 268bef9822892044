//! The page that a woken stranger follows word for word. Pure. Its `sh` blocks are run by a test as they stand.

use std::fmt::Write as _;

use super::{CHECKSUMS, CONFIGURATION, Contents, HOME, IDENTITY, IDENTITY_FILE, KitCluster};

/// The pages that matter on such a night, as the repository has them.
pub const RUNBOOKS: [(&str, &str); 7] = [
    ("runbooks/complete-loss.md", include_str!("../../../runbooks/complete-loss.md")),
    ("runbooks/restore-to-a-moment.md", include_str!("../../../runbooks/restore-to-a-moment.md")),
    ("runbooks/restore-a-dump.md", include_str!("../../../runbooks/restore-a-dump.md")),
    ("runbooks/key-lost.md", include_str!("../../../runbooks/key-lost.md")),
    (
        "runbooks/opening-a-backup-without-pgkeep.md",
        include_str!("../../../runbooks/opening-a-backup-without-pgkeep.md"),
    ),
    ("runbooks/dump-by-hand.md", include_str!("../../../runbooks/dump-by-hand.md")),
    ("runbooks/csv-by-hand.md", include_str!("../../../runbooks/csv-by-hand.md")),
];

/// The page for this kit. `left_out`: what the configuration lacks, a line each.
pub fn page(contents: &Contents, left_out: &[String]) -> String {
    [
        opening(contents),
        programs(contents),
        configuration(contents),
        identity(contents),
        stores(contents),
        restore(contents),
        afterwards(left_out),
        otherwise(contents),
    ]
    .concat()
}

fn clusters(contents: &Contents) -> String {
    let names: Vec<&str> = contents.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    names.join(", ")
}

fn opening(contents: &Contents) -> String {
    let Contents { host, pgkeep_version, fingerprint, .. } = contents;
    let mut text = format!(
        "# Bringing {} back from this kit\n\n\
         Made {} on {host} by pgkeep {pgkeep_version}. Fingerprint of the recipients: {fingerprint}.\n\n",
        clusters(contents),
        contents.made_at.human(),
    );
    if !contents.is_complete() {
        text.push_str(
            "**THIS KIT CANNOT RESTORE BY ITSELF.** It was made without an identity. You need the identity file (a line\n\
             `AGE-SECRET-KEY-1…`) from wherever it is kept. Without it nobody can open the backups.\n\n",
        );
    }
    text.push_str("You need:\n\n1. this kit");
    if contents.opens.is_empty() {
        text.push_str(",\n");
    } else {
        text.push_str(", and its passphrase,\n");
    }
    text.push_str("2. a machine with room for the data, and the right to work on it as root,\n3. a way to the backups:\n");
    for repository in &contents.repositories {
        let at = repository.endpoint.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let keys = if repository.variables.is_empty() { "mounted here" } else { "with its access keys" };
        let _ = writeln!(text, "   * repository `{}`: {}{at}, {keys}", repository.name, repository.url);
    }
    if contents.repositories.len() > 1 {
        text.push_str("\n   One of them is enough: add `--repo NAME` to every command below.\n");
    }
    let proved: Vec<String> =
        contents.proved.iter().map(|one| format!("{} in {}", one.backup, one.repository)).collect();
    let proved = match (contents.is_complete(), proved.as_slice()) {
        (false, _) => "none, for there was no identity to try".to_owned(),
        (true, []) => "none: there was no backup yet".to_owned(),
        (true, proved) => proved.join(", "),
    };
    let _ = write!(
        text,
        "\nBackups that the identity was seen to open when the kit was made: {proved}. Newer ones are opened as long as\n\
         the recipients are still those of the fingerprint.\n\n\
         ## 1. Is the kit whole?\n\nWhere you have put it:\n\n```sh\nKIT=/root/pgkeep-recovery-kit\n```\n\n\
         Every line must say OK:\n\n```sh\ncd \"$KIT\" && sha256sum -c {CHECKSUMS}\n```\n\n",
    );
    text
}

fn programs(contents: &Contents) -> String {
    let majors: Vec<String> = contents
        .clusters
        .iter()
        .filter_map(|KitCluster { name, postgres }| Some(format!("{} for {name}", postgres.as_ref()?)))
        .collect();
    let needed = if majors.is_empty() {
        "PostgreSQL of the major version that was lost".to_owned()
    } else {
        format!("PostgreSQL {}: a base backup opens with no other major version", majors.join(", "))
    };
    let package = contents.clusters.iter().find_map(|cluster| cluster.postgres.as_ref());
    let package = package.map_or_else(|| "postgresql".to_owned(), |major| format!("postgresql-{major}"));
    format!(
        "## 2. Programs\n\n{needed}. pgkeep {} or newer. age, which opens the identity. On Debian, as root:\n\n\
         ```\napt install {package} age\napt install ./pgkeep_VERSION_amd64.deb\n```\n\n\
         The package of PostgreSQL makes an empty cluster of its own. pgkeep never overwrites it: stop it, and move its data\n\
         directory away ([runbooks/complete-loss.md](runbooks/complete-loss.md), step 1). pgkeep cannot be had? Go on with\n\
         [runbooks/opening-a-backup-without-pgkeep.md](runbooks/opening-a-backup-without-pgkeep.md): age, zstd and tar do.\n\n",
        contents.pgkeep_version,
    )
}

fn configuration(contents: &Contents) -> String {
    let mut commands = format!(
        "install -d -m 0755 {HOME}\ninstall -m 0644 \"$KIT/{CONFIGURATION}\" {HOME}/{CONFIGURATION}\n"
    );
    for certificate in &contents.certificates {
        let _ = writeln!(commands, "install -m 0644 \"$KIT/{}\" {}", certificate.file, certificate.installed);
    }
    format!(
        "## 3. The configuration\n\n```sh\n{commands}pgkeep config check\n```\n\n\
         `data_directory` in it is where the cluster will be, `bin_directory`, if it is there, where PostgreSQL's programs were.\n\
         Does this machine keep them elsewhere, change these lines. What the file lacks stands at its top.\n\n"
    )
}

fn identity(contents: &Contents) -> String {
    let mut text = "## 4. The identity\n\n".to_owned();
    if contents.recipients.is_empty() {
        text.push_str("Nothing is encrypted: none is needed.\n\n");
        return text;
    }
    let private = format!("chown postgres: {IDENTITY_FILE} && chmod 0600 {IDENTITY_FILE}\n");
    if contents.is_complete() {
        let _ = write!(
            text,
            "age asks for the passphrase. From here on everything can be read on this machine.\n\n\
             ```sh\n(umask 077 && age -d -o {IDENTITY_FILE} \"$KIT/{IDENTITY}\")\n{private}```\n\n"
        );
    } else {
        let _ = write!(
            text,
            "It is not in this kit. Bring the file that belongs to one of these recipients, as {IDENTITY_FILE}:\n\n{}\n\
             ```sh\n{private}```\n\n",
            contents
                .recipients
                .iter()
                .fold(String::new(), |list, recipient| format!("{list}* `{recipient}`\n")),
        );
    }
    text
}

fn stores(contents: &Contents) -> String {
    let mut text = "## 5. The way to the backups\n\n".to_owned();
    for repository in &contents.repositories {
        if let Some(directory) = repository.url.strip_prefix("file://") {
            let _ = writeln!(
                text,
                "* `{}`: the directory {directory} must be here, mounted as it was.",
                repository.name
            );
        }
    }
    let variables: Vec<&String> = contents.repositories.iter().flat_map(|one| &one.variables).collect();
    if variables.is_empty() {
        text.push('\n');
        return text;
    }
    text.push_str(
        "\nThe access keys are in no kit. Whoever runs the store makes new ones if the old are lost; for the restore alone, reading\n\
         is enough. In the shell in which you go on (only those of the repository that you use):\n\n```sh\n",
    );
    for variable in &variables {
        let _ = writeln!(text, "read -rsp '{variable}: ' {variable} && export {variable}");
    }
    text.push_str(
        "```\n\nPostgreSQL does not see the variables of your shell, and the restored cluster archives again. So that it can, put the\n\
         keys into files that are its user's alone:\n\n```sh\n",
    );
    for variable in &variables {
        let file = format!("{HOME}/{variable}");
        let _ = writeln!(text, "printf %s \"${variable}\" | install -m 0600 -o postgres /dev/stdin {file}");
        let _ = writeln!(text, "sed -i 's#env = \"{variable}\"#file = \"{file}\"#' {HOME}/{CONFIGURATION}");
    }
    text.push_str(
        "```\n\nOn a machine that has its rights from elsewhere (a role, a profile) remove `[repository.credentials…]` from the\n\
         configuration instead. Temporary keys need a third one: `session_token = { env = \"…\" }`.\n\n",
    );
    text
}

fn restore(contents: &Contents) -> String {
    let several = contents.clusters.len() > 1;
    let first = contents.clusters.first().map(|cluster| cluster.name.as_str()).unwrap_or_default();
    let cluster = if several { format!(" --cluster {first}") } else { String::new() };
    let each = if several { "For each cluster, with its name after `--cluster`:\n\n" } else { "" };
    format!(
        "## 6. Look\n\n{each}What is there, how far it reaches, and what a restore would do. Nothing is written.\n\n\
         ```sh\npgkeep list{cluster}\npgkeep window{cluster}\npgkeep restore --to latest --dry-run{cluster}\n```\n\n\
         `untrusted`: a host has signed that this kit does not know yet; `--trust RW…` takes its key for once. A wrong key:\n\
         the recipients have changed since the kit was made; find a newer kit, or the other identity\n\
         ([runbooks/key-lost.md](runbooks/key-lost.md)).\n\n\
         ## 7. Restore\n\nIt shows the plan, asks, and ends with a report that names the last commit kept.\n\n\
         ```sh\npgkeep restore --to latest{cluster}\n```\n\n\
         To a moment before an accident instead: `--to \"2026-11-21 14:25:00+00\"`\n\
         ([runbooks/restore-to-a-moment.md](runbooks/restore-to-a-moment.md)). Beside something that must stay:\n\
         `--target-dir /srv/side`. A single database from a dump:\n\
         [runbooks/restore-a-dump.md](runbooks/restore-a-dump.md). Interrupted? The same command again goes on.\n\n"
    )
}

fn afterwards(left_out: &[String]) -> String {
    let mut text = format!(
        "## 8. Afterwards\n\n\
         1. `pgkeep init` makes this host's own keys; `pgkeep check` proves archiving; `pgkeep backup` takes the first backup.\n\
         2. Take the identity away again: `shred -u {IDENTITY_FILE}`.\n\
         3. `pgkeep key kit --out DIR --identity FILE` makes a new kit, for the keys of the hosts have changed.\n",
    );
    if !left_out.is_empty() {
        text.push_str("4. What the lost host had besides, and the kit's configuration lacks:\n\n");
        for line in left_out {
            text.push_str(&format!("   * {line}\n"));
        }
    }
    text.push('\n');
    text
}

fn otherwise(contents: &Contents) -> String {
    let mut text = format!(
        "## Rehearse it, before the night\n\n\
         On any machine with PostgreSQL and pgkeep, with the keys of step 5 in the environment. It uses nothing but this kit,\n\
         restores beside whatever runs there, proves it, and removes it again:\n\n\
         ```\npgkeep drill --kit \"$KIT\" --scratch-dir /srv/scratch\n```\n\n\
         ## What is in the kit\n\n\
         * `{CONFIGURATION}`: the configuration, without secrets\n"
    );
    if contents.is_complete() && !contents.recipients.is_empty() {
        let _ =
            writeln!(text, "* `{IDENTITY}`: the identity, encrypted to the passphrase; `age -d` opens it");
    }
    text.push_str("* `kit.json`: recipients, repositories, trusted hosts, backups that were tried\n* `runbooks/`: what to do when it goes differently\n");
    let _ = writeln!(text, "* `{CHECKSUMS}`: for `sha256sum -c`\n");
    text.push_str("The public keys of the hosts whose backups are believed:\n\n");
    if contents.trusted_hosts.is_empty() {
        text.push_str("* none was known: every backup needs `--trust RW…`\n");
    }
    for host in &contents.trusted_hosts {
        text.push_str(&format!("* `{host}`\n"));
    }
    text
}
