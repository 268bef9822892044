//! `wal fetch` with an agent: has it received this segment? Anything but a clear answer leaves the work to this process.

use std::path::Path;
use std::time::Duration;

use super::{converse, knock};
use crate::agent::control::{Request, wire};
use crate::agent::prefetch::{Answer, Question};
use crate::archive::fetch::Told;
use crate::model::{ClusterName, SegmentName};
use crate::util::clock::Deadline;

/// Asks the agent that listens at `socket`. Takes no longer than `within`, the deadline of a fetch.
pub fn ask(
    agent: &Path,
    cluster: Option<&ClusterName>,
    data_directory: &Path,
    segment: SegmentName,
    within: Duration,
) -> Told {
    let Some(data_directory) = data_directory.to_str() else { return Told::Nothing };
    let question = Request::Fetch(Question {
        cluster: cluster.cloned(),
        data_directory: data_directory.to_owned(),
        name: segment.to_string(),
    });
    let Ok(stream) = knock(agent) else { return Told::Nothing };
    let answer = match converse(stream, &question, Deadline::after(within)) {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(%error, "the agent does not answer: fetching without it");
            return Told::Nothing;
        }
    };
    // An agent of before does not know the question.
    let Ok(answer) = wire::outcome(answer) else { return Told::Nothing };
    match serde_json::from_value(answer) {
        Ok(Answer::Spooled(spooled)) => Told::Spooled(spooled),
        Ok(Answer::Failed(error)) => match wire::outcome(error) {
            Err(error) => Told::Failed(error),
            Ok(_) => Told::Nothing,
        },
        Ok(Answer::Declined(_)) | Err(_) => Told::Nothing,
    }
}
