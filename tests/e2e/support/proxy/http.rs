//! As much of HTTP/1.1 as the proxy must understand: where a head ends and how long the body after it is.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub body: BodyLength,
    pub expects_continue: bool,
    pub raw: Vec<u8>,
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: BodyLength,
    pub raw: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    Bytes(u64),
    /// Of unknown length: chunked, or to the end of the connection.
    ToTheEnd,
}

/// Lines up to and with the empty one; None when the peer closed instead of beginning one.
async fn read_head(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>> {
    let mut raw = Vec::new();
    loop {
        let before = raw.len();
        let n = from.read_until(b'\n', &mut raw).await?;
        if n == 0 {
            return if before == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        if raw[before..] == *b"\r\n" {
            return Ok(Some(raw));
        }
        if raw.len() > 64 << 10 {
            return Err(Error::other("a head without end"));
        }
    }
}

fn header(raw: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    text.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn first_line(raw: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(raw);
    text.lines().next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn body_length(raw: &[u8], without: BodyLength) -> BodyLength {
    if header(raw, "transfer-encoding").is_some() {
        return BodyLength::ToTheEnd;
    }
    header(raw, "content-length").and_then(|v| v.parse().ok()).map_or(without, BodyLength::Bytes)
}

pub(super) async fn read_request(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Request>> {
    let Some(raw) = read_head(from).await? else { return Ok(None) };
    let line = first_line(&raw);
    let [method, target, _] = line.as_slice() else { return Err(Error::other("not a request")) };
    Ok(Some(Request {
        method: method.clone(),
        target: target.clone(),
        body: body_length(&raw, BodyLength::Bytes(0)),
        expects_continue: header(&raw, "expect").is_some(),
        raw,
    }))
}

pub(super) async fn read_answer(from: &mut (impl AsyncBufRead + Unpin), method: &str) -> Result<Answer> {
    let raw = read_head(from).await?.ok_or(ErrorKind::UnexpectedEof)?;
    let line = first_line(&raw);
    let status: u16 = line.get(1).and_then(|s| s.parse().ok()).ok_or(Error::other("not an answer"))?;
    let none = method == "HEAD" || status < 200 || status == 204 || status == 304;
    let body = if none { BodyLength::Bytes(0) } else { body_length(&raw, BodyLength::ToTheEnd) };
    Ok(Answer { status, body, raw })
}

/// The same head with `Connection: close`, and with another length if one is given.
pub(super) fn closing(raw: &[u8], length: Option<u64>) -> Vec<u8> {
    let text = String::from_utf8_lossy(raw);
    let mut head = String::new();
    for line in text.lines().filter(|l| !l.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let replaced =
            name == "connection" || name == "keep-alive" || (name == "content-length" && length.is_some());
        if !replaced {
            head += line;
            head += "\r\n";
        }
    }
    if let Some(length) = length {
        head.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
    }
    (head + "Connection: close\r\n\r\n").into_bytes()
}

/// S3's error document, as a whole answer.
pub(super) fn error_answer(status: u16, method: &str) -> Vec<u8> {
    let (reason, code) = match status {
        403 => ("Forbidden", "AccessDenied"),
        404 => ("Not Found", "NoSuchKey"),
        500 => ("Internal Server Error", "InternalError"),
        503 => ("Service Unavailable", "SlowDown"),
        _ => ("Error", "Error"),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    );
    let body = if method == "HEAD" { String::new() } else { body };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
