//! `pgkeep man [DIR]`: the manual pages, made from the same definitions as `--help`.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::Cli;
use super::context::{Context, Outcome};
use crate::error::{Error, Result};

/// Prints the manual page pgkeep(1), or writes a page for every command.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write `pgkeep.1` and a page for each command into this directory.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

const FILES: [(&str, &str); 4] = [
    (super::args::DEFAULT_CONFIG, "The configuration; `pgkeep config example` prints one with every key."),
    (
        "/etc/pgkeep/identity.txt",
        "Opens the backups. Only where restores run; a copy belongs far from this host.",
    ),
    ("/var/lib/pgkeep/keys/", "This host's own keys."),
    ("/run/pgkeep/agent.sock", "Where the agent answers."),
];
const EXITS: [(&str, &str); 5] = [
    ("0", "Done."),
    ("1", "Failed."),
    ("2", "Wrong usage or configuration."),
    ("3", "Refused for safety."),
    ("4", "A check found something wrong, or a view lacks a required repository."),
];
const FETCH_EXITS: [(&str, &str); 3] = [
    ("0", "Delivered."),
    ("1", "Does not exist."),
    (
        "200",
        "Everything else. PostgreSQL stops its recovery instead of taking it for the end of the archive.",
    ),
];

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    let root = root();
    if let Some(directory) = &args.directory {
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::io("cannot make the directory", directory, e))?;
        write_pages(&root, directory)?;
    } else {
        ctx.print(&page(&root)?)?;
    }
    Ok(Outcome::Done)
}

/// Built, so that every command knows its full name (`pgkeep-wal-push`).
fn root() -> clap::Command {
    let mut root = Cli::command();
    root.build();
    root
}

fn write_pages(command: &clap::Command, directory: &Path) -> Result<()> {
    let path = directory.join(format!("{}.1", full_name(command)));
    std::fs::write(&path, page(command)?).map_err(|e| Error::io("cannot write the page", &path, e))?;
    command.get_subcommands().filter(|sub| !sub.is_hide_set()).try_for_each(|sub| write_pages(sub, directory))
}

fn full_name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &clap::Command) -> Result<String> {
    let name = full_name(command);
    let version = concat!("pgkeep ", env!("CARGO_PKG_VERSION"));
    let mut out = Vec::new();
    let man = Man::new(command.clone()).title(name.to_uppercase()).source(version).manual("pgkeep");
    let written = man.render(&mut out).and_then(|()| closing(name).to_writer(&mut out));
    written.map_err(|e| Error::internal("cannot render a manual page").because(e))?;
    String::from_utf8(out).map_err(|e| Error::internal("a manual page is not UTF-8").because(e))
}

/// What `--help` has no place for.
fn closing(name: &str) -> Roff {
    let mut roff = Roff::new();
    let see = match name {
        "pgkeep" => {
            entries(&mut roff, "EXIT STATUS", &EXITS);
            entries(&mut roff, "FILES", &FILES);
            "The runbooks, where the package put them: /usr/share/doc/pgkeep/runbooks"
        }
        "pgkeep-wal-fetch" => {
            entries(&mut roff, "EXIT STATUS", &FETCH_EXITS);
            "pgkeep(1)"
        }
        _ => "pgkeep(1)",
    };
    roff.control("SH", ["SEE ALSO"]).text([roman(see)]);
    roff
}

fn entries(roff: &mut Roff, heading: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in rows {
        roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_gets_a_page_that_names_its_options_and_leads_back() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(&root(), directory.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        let main = read("pgkeep.1");
        assert!(main.contains(".SH \"EXIT STATUS\"") && main.contains("identity.txt"), "{main}");
        assert!(read("pgkeep-wal-fetch.1").contains("200"));
        assert!(read("pgkeep-restore.1").contains("pgkeep(1)"));
        let commands = root().get_subcommands().count();
        assert!(
            std::fs::read_dir(directory.path()).unwrap().count() > commands,
            "nested commands have pages too"
        );
    }
}
