//! Has the work of a scheduled time been done already? Hosts of one cluster share their repositories, so the backup that
//! another took shows there, under the job's label. Only a trusted, undamaged one counts, and only in every required
//! repository: whoever can write a store must not be able to silence backups.

use super::kind;
use crate::agent::stores::Stores;
use crate::config::{Config, JobConfig};
use crate::error::Result;
use crate::model::Timestamp;
use crate::repository::record::BackupRecord;
use crate::repository::{access, catalog};

/// The backup of this job that was begun at or after its scheduled time, if each required repository has it. What makes
/// no backup is done by every host that has the job.
pub(super) async fn done_already(
    config: &Config,
    stores: &Stores,
    job: &JobConfig,
    slot: Timestamp,
) -> Result<Option<BackupRecord>> {
    let Some(kind) = job.work.backup_kind() else { return Ok(None) };
    let trust = access::trust(config)?;
    let (available, _) = stores.get().await.required()?;
    let label = kind::label(&job.name);
    let mut common: Option<Vec<BackupRecord>> = None;
    for repository in available.iter().filter(|repository| repository.required) {
        let found = catalog::trusted_since(repository, &job.cluster, kind, slot, &trust).await?;
        let ours = found.into_iter().filter(|record| record.label.as_deref() == Some(label.as_str()));
        common = Some(match common {
            None => ours.collect(),
            Some(before) => {
                let here: Vec<_> = ours.map(|record| record.id).collect();
                before.into_iter().filter(|record| here.contains(&record.id)).collect()
            }
        });
    }
    Ok(common.unwrap_or_default().into_iter().next_back())
}
