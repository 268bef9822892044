//! Sequences of columns. One of production's own never goes back: numbers that were given out since then may be known
//! elsewhere. One that was just made stands where it stood at that moment.

use crate::error::Result;
use crate::postgres::session::Session;
use crate::postgres::user_tables::{SequenceState, SequenceValue};
use crate::restore::table::Way;
use crate::restore::table::take_out::Taken;

/// Sets them; what cannot be set, for the reader.
pub async fn set(session: &Session, taken: &Taken) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (way, then) in &taken.sequences {
        let SequenceState { sequence, column, .. } = then;
        if !session.relation_exists(sequence).await? {
            notes.push(format!("sequence {sequence} of column {column} is gone in production"));
            continue;
        }
        if *way != Way::Rows || is_ahead(then, session.sequence_value(sequence).await?) {
            session.set_sequence(sequence, then.value).await?;
        }
    }
    Ok(notes)
}

/// `state` has given out numbers that the sequence has still to give out.
fn is_ahead(state: &SequenceState, now: SequenceValue) -> bool {
    let then = state.value;
    let further = if state.increment < 0 { then.last < now.last } else { then.last > now.last };
    further || then.last == now.last && then.called && !now.called
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;

    #[test]
    fn a_sequence_never_goes_back_whichever_way_it_counts() {
        let state = |last, called, increment| SequenceState {
            sequence: TableName::new("app", "s"),
            column: "id".into(),
            increment,
            value: SequenceValue { last, called },
        };
        let now = |last, called| SequenceValue { last, called };
        assert!(is_ahead(&state(5, true, 1), now(4, true)) && !is_ahead(&state(5, true, 1), now(6, false)));
        assert!(is_ahead(&state(5, true, 1), now(5, false)) && !is_ahead(&state(5, false, 1), now(5, true)));
        assert!(
            is_ahead(&state(-5, true, -1), now(-4, true)) && !is_ahead(&state(-5, true, -1), now(-6, true))
        );
    }
}
