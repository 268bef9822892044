//! Making a kit: what it will hold is gathered and proved first, the identity locked and the files written afterwards.

use std::collections::BTreeMap;

use super::configuration::{self, Stripped};
use super::proof;
use super::{
    CONFIGURATION, Certificate, Contents, FORMAT, IDENTITY, INSTRUCTIONS, Kit, KitCluster, KitRepository,
    fingerprint, instructions, recipients,
};
use crate::codec::{Identities, Passphrase};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::model::{RepoName, Timestamp};
use crate::repository::configured::{self, Patience};
use crate::repository::{Repository, access, host_keys};
use crate::util::host;

/// Everything of a kit but the identity.
pub struct Draft {
    contents: Contents,
    files: BTreeMap<String, Vec<u8>>,
    identities: Option<Identities>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// A repository was not asked whether the identity opens its backups.
    pub untried: bool,
    /// Those that answered.
    pub repositories: Vec<Repository>,
}

/// Whom the kit is for: the identity must open what is written now. None only where nothing is encrypted, or where somebody
/// has asked for a kit that cannot restore.
pub fn check_identity(config: &Config, identities: Option<&Identities>) -> Result<()> {
    config.require_encryption()?;
    let (wanted, Some(identities)) = (recipients(config), identities) else { return Ok(()) };
    let own = identities.recipients();
    if wanted.iter().any(|recipient| own.contains(recipient)) {
        return Ok(());
    }
    Err(Error::new(
        Code::WrongKey,
        "the identity opens nothing of what is written: it belongs to none of the recipients",
    )
    .at(config.path.display())
    .hint("`pgkeep key show` compares them; give the right one with --identity FILE"))
}

/// Gathers and proves. Writes nothing.
pub async fn draft(
    config: &Config,
    only: Option<&RepoName>,
    identities: Option<Identities>,
    now: Timestamp,
) -> Result<Draft> {
    check_identity(config, identities.as_ref())?;
    let wanted = recipients(config);
    let identities = identities.filter(|_| !wanted.is_empty());
    let mut draft = Draft {
        contents: Contents {
            format: FORMAT,
            made_at: now,
            host: host::name(),
            pgkeep_version: env!("CARGO_PKG_VERSION").to_owned(),
            clusters: Vec::new(),
            repositories: Vec::new(),
            fingerprint: fingerprint(&wanted),
            recipients: wanted,
            opens: identities.as_ref().map(Identities::recipients).unwrap_or_default(),
            trusted_hosts: trusted_hosts(config)?,
            proved: Vec::new(),
            certificates: Vec::new(),
        },
        files: BTreeMap::new(),
        identities,
        notes: Vec::new(),
        untried: false,
        repositories: Vec::new(),
    };
    if draft.contents.trusted_hosts.is_empty() {
        draft
            .notes
            .push("no host's key is known here: a restore will need --trust for every backup".to_owned());
    }
    draft.open(config, only).await?;
    draft.try_all(config).await?;
    draft.fill(config)?;
    Ok(draft)
}

/// All that are believed, this host first.
fn trusted_hosts(config: &Config) -> Result<Vec<String>> {
    let mut hosts: Vec<String> =
        host_keys::own_public_key(config)?.map(|key| key.line()).into_iter().collect();
    for host in &config.trust_hosts {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    Ok(hosts)
}

impl Draft {
    async fn open(&mut self, config: &Config, only: Option<&RepoName>) -> Result<()> {
        let opened = configured::open_all(config, only, Patience::default()).await?;
        let (repositories, down) = opened.required()?;
        for (name, error) in down {
            self.untried = true;
            self.notes.push(format!("optional repository {name} was not asked: {error}"));
        }
        self.repositories = repositories;
        if let Some(only) = only
            && config.repositories.len() > 1
        {
            self.untried = true;
            self.notes.push(format!("only repository {only} was asked; the kit names them all"));
        }
        Ok(())
    }

    /// Without an identity there is nothing to try.
    async fn try_all(&mut self, config: &Config) -> Result<()> {
        let trust = access::trust(config)?;
        let complete = self.contents.is_complete();
        for cluster in &config.clusters {
            let mut postgres = None;
            for repository in &self.repositories {
                if !complete {
                    continue;
                }
                let tried =
                    proof::try_backups(repository, &cluster.name, &trust, self.identities.as_ref()).await?;
                self.contents.proved.extend(tried.opened);
                self.notes.extend(tried.notes);
                postgres = postgres.or(tried.postgres);
            }
            self.contents.clusters.push(KitCluster { name: cluster.name.clone(), postgres });
        }
        Ok(())
    }

    fn fill(&mut self, config: &Config) -> Result<()> {
        let head = format!(
            "# pgkeep's configuration from a recovery kit, {}.\n# It holds no secrets; INSTRUCTIONS.md says what else is needed.\n",
            self.contents.words()
        );
        let text = std::fs::read_to_string(&config.path)
            .map_err(|e| Error::io("cannot read the configuration", &config.path, e))?;
        let stripped = configuration::strip(config, &text, &self.contents.trusted_hosts, &head)?;
        let Stripped { text, left_out, variables, certificates } = stripped;
        for (from, file) in certificates {
            let bytes = std::fs::read(&from)
                .map_err(|e| Error::io("cannot read the certificates of a repository", &from, e))?;
            if memchr::memmem::find(&bytes, b"PRIVATE KEY").is_some() {
                return Err(Error::new(Code::Refused, "there is a private key among the certificates")
                    .at(from.display())
                    .hint("give ca_file a file with certificates alone"));
            }
            self.files.insert(file.clone(), bytes);
            let installed = format!("{}/{file}", super::HOME);
            self.contents.certificates.push(Certificate { file, installed });
        }
        for (repository, (_, variables)) in config.repositories.iter().zip(variables) {
            let opened = self.repositories.iter().find(|one| one.name == repository.name);
            self.contents.repositories.push(KitRepository {
                name: repository.name.clone(),
                url: repository.store.url.clone(),
                endpoint: repository.store.endpoint.clone(),
                id: opened.map(|one| one.id.clone()),
                variables,
            });
        }
        self.files.insert(CONFIGURATION.to_owned(), text.into_bytes());
        let page = instructions::page(&self.contents, &left_out);
        self.files.insert(INSTRUCTIONS.to_owned(), page.into_bytes());
        for (name, page) in instructions::RUNBOOKS {
            self.files.insert(name.to_owned(), page.as_bytes().to_vec());
        }
        Ok(())
    }

    /// A passphrase is needed to finish it.
    pub fn needs_passphrase(&self) -> bool {
        self.identities.is_some()
    }

    /// The kit, with the identity locked.
    pub fn finish(mut self, passphrase: Option<&Passphrase>) -> Result<Kit> {
        if let Some(identities) = &self.identities {
            let passphrase = passphrase.ok_or_else(|| Error::internal("a kit without a passphrase"))?;
            self.files.insert(IDENTITY.to_owned(), super::files::locked(identities, passphrase)?);
        }
        Kit::new(self.contents, self.files)
    }
}
