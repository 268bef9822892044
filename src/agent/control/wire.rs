//! One JSON object per line, with a bound on the line.

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::error::{Code, Error, Result};

/// A longer line is refused: nobody has so much to ask.
pub const LONGEST_REQUEST: u64 = 64 * 1024;
/// A status of many clusters fits.
pub const LONGEST_ANSWER: u64 = 16 * 1024 * 1024;

/// The next line without its end; None when the other side has ended.
pub async fn read_line<R: AsyncBufRead + Unpin>(from: &mut R, longest: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    (&mut *from).take(longest).read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 + 1 >= longest => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of more than {longest} bytes")))
        }
        Some(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line has no end")),
    }
}

/// Writes one line, within this time.
pub async fn write_line<W: AsyncWrite + Unpin>(to: &mut W, line: &Value, within: Duration) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    tokio::time::timeout(within, to.write_all(&bytes))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads the answer")))
}

/// `{"ok": true, …}`; what is no object stands under `value`.
pub fn success(answer: Value) -> Value {
    let mut all = Map::new();
    all.insert("ok".into(), Value::Bool(true));
    match answer {
        Value::Object(fields) => all.extend(fields),
        Value::Null => {}
        other => drop(all.insert("value".into(), other)),
    }
    Value::Object(all)
}

/// `{"ok": false, "code": …, "what": …, "hint": …}`
pub fn failure(error: &Error) -> Value {
    json!({
        "ok": false,
        "code": error.code().as_str(),
        "what": error.to_string(),
        "hint": error.hint_text(),
    })
}

/// The agent's answer as a result: its error is told as if it were our own.
pub fn outcome(mut line: Value) -> Result<Value> {
    let fields = line.as_object_mut();
    let ok = fields.and_then(|fields| fields.remove("ok")).and_then(|ok| ok.as_bool());
    match ok {
        Some(true) => Ok(line),
        Some(false) => Err(told(&line)),
        None => Err(Error::internal("the agent's answer is neither yes nor no").at(line)),
    }
}

fn told(line: &Value) -> Error {
    let text = |key| line.get(key).and_then(Value::as_str);
    let code = text("code").and_then(|code| Code::ALL.iter().find(|known| known.as_str() == code));
    let error =
        Error::new(code.copied().unwrap_or(Code::Internal), text("what").unwrap_or("the agent refused"));
    match text("hint") {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_passes_the_socket_with_code_and_hint() {
        let error = Error::new(Code::StoreDenied, "no").at("eu").hint("look at the keys");
        let told = outcome(failure(&error)).unwrap_err();
        assert_eq!((told.code(), told.to_string()), (Code::StoreDenied, "no, eu".to_owned()));
        assert_eq!(told.hint_text(), Some("look at the keys"));
    }

    #[test]
    fn an_answer_comes_back_as_it_was_given() {
        assert_eq!(outcome(success(json!({"pid": 7}))).unwrap(), json!({"pid": 7}));
        assert_eq!(outcome(success(json!([1]))).unwrap(), json!({"value": [1]}));
        assert_eq!(outcome(json!({"neither": 1})).unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn a_line_without_end_or_of_endless_length_is_refused() {
        let mut short: &[u8] = b"one\ntwo";
        assert_eq!(read_line(&mut short, 100).await.unwrap().unwrap(), b"one");
        assert_eq!(read_line(&mut short, 100).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_line(&mut short, 100).await.unwrap(), None);
        let mut long: &[u8] = &[b'x'; 200];
        assert_eq!(read_line(&mut long, 100).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
