//! Is there a recovery kit, and would it still do?

use super::Subject;
use super::findings::Findings;
use crate::error::Result;
use crate::repository::{Repository, access, host_keys};
use crate::util::clock;
use crate::verify::kit::{Contents, record};

const CHECK: &str = "recovery kit";
const MAKE: &str = "`pgkeep key kit --out DIR` makes one, where the identity is";

/// Of what the repositories remember.
pub async fn all(subject: &Subject<'_>, repositories: &[Repository], findings: &mut Findings) {
    if repositories.is_empty() {
        return;
    }
    match newest(subject, repositories).await {
        Ok(None) => findings.warn(
            CHECK,
            "none has been made: whoever restores from nothing must find identity, configuration and host keys in several places",
            MAKE,
        ),
        Ok(Some(kit)) => match outdated(subject, &kit) {
            Ok(why) if why.is_empty() => findings.ok(CHECK, kit.words()),
            Ok(why) => findings.warn(CHECK, format!("{}: {}", kit.words(), why.join("; ")), MAKE),
            Err(error) => findings.error(CHECK, &error),
        },
        Err(error) => findings.error_if(false, CHECK, &error),
    }
}

async fn newest(subject: &Subject<'_>, repositories: &[Repository]) -> Result<Option<Contents>> {
    let trust = access::trust(subject.config)?;
    let mut newest: Option<Contents> = None;
    for repository in repositories {
        let found = record::newest(repository, &subject.cluster.name, &trust, clock::now()).await?;
        newest = found.into_iter().chain(newest).max_by_key(|kit| kit.made_at);
    }
    Ok(newest)
}

fn outdated(subject: &Subject<'_>, kit: &Contents) -> Result<Vec<String>> {
    let own = host_keys::own_public_key(subject.config)?.map(|key| key.line());
    Ok(record::outdated(kit, subject.config, own.as_deref()))
}
