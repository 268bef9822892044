//! The whole cluster as it was at a moment: restored from base backup and WAL without archiving, and opened.

use std::collections::BTreeMap;

use super::Side;
use crate::error::{Code, Error, Result};
use crate::postgres::service::PidFile;
use crate::restore::prepare::Prepared;
use crate::restore::table::request::From;
use crate::restore::table::{Job, place};
use crate::restore::{connect, execute};
use crate::util::failpoint;

pub(super) async fn make(job: &Job<'_>, prepared: Prepared, place: &place::Place) -> Result<Side> {
    let From::Moment(request) = &job.request.from else {
        return Err(Error::internal("a moment that nobody asked for"));
    };
    let task = job.task(request, place::data_directory(&place.directory));
    let tools = prepared.tools.clone();
    let executed = Box::pin(execute::run(&task, prepared)).await?;
    if let Some(proof) = executed.report.proofs.iter().find(|p| !p.holds) {
        let what = format!("{} is {}, and {} was planned", proof.what, proof.found, proof.planned);
        return Err(Error::new(Code::RecoveryFailed, what).at(task.data_directory.display()));
    }
    failpoint::reach("table-after-side")?;
    let session = connect::any(&task, &executed.plan).await.ok_or_else(nobody)?;
    let superuser = session.some_superuser().await?.ok_or_else(nobody)?;
    let file = PidFile::read(&task.data_directory)?;
    let file = file.ok_or_else(|| Error::new(Code::Service, "the side instance has ended"))?;
    let last = executed.plan.target.last_kept;
    let kept = last.map_or_else(|| "none after the backup began".to_owned(), |commit| commit.to_string());
    Ok(Side {
        socket: task.data_directory.join(file.socket_dir.unwrap_or_default()),
        port: file.port,
        superuser,
        tools,
        owner: job.owner.clone(),
        stands_at: format!("{}; last commit kept: {kept}", executed.plan.target.target),
        recorded_rows: BTreeMap::new(),
        phases: executed.report.phases,
    })
}

fn nobody() -> Error {
    Error::new(Code::Connect, "no role with all rights can log in to the side instance")
        .hint("at that moment the cluster had no superuser with LOGIN; choose another moment")
}
