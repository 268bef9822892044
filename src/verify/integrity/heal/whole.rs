//! A backup whose record is lost or cannot be believed: record and signature from a repository where they are trusted, and
//! before them every object that is not here, so that a backup that comes back is whole when it is seen.

use super::{Cx, Healed, LARGEST_SIGNATURE, Outcome, healed, object, put_beside};
use crate::error::{Code, Result};
use crate::model::BackupId;
use crate::repository::keys::backup;
use crate::repository::record::BackupRecord;
use crate::storage;
use crate::verify::integrity::finding::Kind;
use crate::verify::integrity::records::{About, Survey, Wrong};
use crate::verify::integrity::signed;

pub(super) async fn backup(
    cx: &Cx<'_>,
    survey: &Survey,
    id: &BackupId,
    outcome: &mut Outcome,
) -> Result<Option<Healed>> {
    let key = backup::record(cx.cluster, id);
    let signature_key = backup::signature(cx.cluster, id);
    for other in &cx.others {
        let Ok(bytes) = signed::read(other, &key, cx.trust).await else { continue };
        let Ok(record) = BackupRecord::parse(&bytes, &other.place(&key)) else { continue };
        // A signature is right for whatever lies under it.
        if record.id != *id || record.cluster != *cx.cluster {
            continue;
        }
        objects(cx, survey, &record, outcome).await?;
        let signature = storage::get_bytes(&*other.storage, &signature_key, LARGEST_SIGNATURE).await?;
        put_beside(cx, &signature_key, signature).await?;
        let replacement = put_beside(cx, &key, bytes).await?;
        return Ok(Some(healed(cx, &key, replacement, other)));
    }
    Ok(None)
}

/// Those that are not here as long as they were stored. What the others hold is read by the next run.
async fn objects(cx: &Cx<'_>, survey: &Survey, record: &BackupRecord, outcome: &mut Outcome) -> Result<()> {
    let mut unread = 0;
    for entry in &record.objects {
        cx.cancelled()?;
        let key = backup::object(cx.cluster, &record.id, &entry.key);
        let fits = |key: &str| survey.listed.get(key) == Some(&entry.bytes);
        if fits(&key) || fits(&backup::healed(&key, entry.sha256)) {
            unread += 1;
            continue;
        }
        let missing = match object(cx, &key, entry).await {
            Ok(Some(healed)) => {
                outcome.healed.push(healed);
                continue;
            }
            Ok(None) => "it is not here as it was stored, and no other repository has a good copy".to_owned(),
            Err(error) if error.code() == Code::Cancelled => return Err(error),
            Err(error) => format!("it is not here as it was stored, and could not be brought: {error}"),
        };
        let about = About::Backup(record.id.clone(), Some(entry.key.clone()));
        outcome.wrong.push(Wrong { kind: Kind::Missing, key, about, what: missing });
    }
    if unread > 0 {
        outcome.unproved.push(format!(
            "{unread} objects of {}: they were here without a record that says what they are; the next run reads them",
            record.id
        ));
    }
    Ok(())
}
