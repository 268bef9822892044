//! One connection through the proxy: one request, its fate, its answer.

use std::io::{ErrorKind, Result};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::http::{Answer, BodyLength, Request, closing, error_answer, read_answer, read_request};
use super::{Fault, Shared, judge};

const CHUNK: usize = 16 << 10;

/// How a connection with the client ends.
enum End {
    /// In order.
    Close,
    /// With a RST, as when a host dies or a firewall forgets.
    Reset,
}

pub(super) async fn serve(client: TcpStream, upstream: String, state: Shared) {
    let _ = client.set_nodelay(true);
    let (read, mut write) = client.into_split();
    let mut read = BufReader::new(read);
    let end = match read_request(&mut read).await {
        Ok(Some(request)) => {
            let fault = judge(&state, &request);
            answer(&mut read, &mut write, &request, fault, &upstream, &state).await.unwrap_or(End::Reset)
        }
        // A connection of the client's pool that was never used.
        _ => End::Close,
    };
    let Ok(stream) = read.into_inner().reunite(write) else { return };
    if matches!(end, End::Reset) {
        let _ = stream.set_zero_linger();
    }
}

async fn answer(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    request: &Request,
    fault: Fault,
    upstream: &str,
    state: &Shared,
) -> Result<End> {
    match fault {
        Fault::ResetBefore => return Ok(End::Reset),
        Fault::Stall => {
            until_closed(read).await;
            return Ok(End::Close);
        }
        Fault::Status(status) => {
            // The body is read first: a server that answers before is a fault of another kind.
            if request.expects_continue {
                write.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            discard(read, request.body).await?;
            write.write_all(&error_answer(status, &request.method)).await?;
            write.shutdown().await?;
            return Ok(End::Close);
        }
        Fault::Latency(span) => tokio::time::sleep(span).await,
        _ => {}
    }
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    let (server_read, mut server_write) = server.into_split();
    let mut server_read = BufReader::new(server_read);
    server_write.write_all(&closing(&request.raw, None)).await?;
    if request.expects_continue {
        let interim = read_answer(&mut server_read, &request.method).await?;
        if interim.status != 100 {
            return finish(&mut server_read, write, &interim, fault, state).await;
        }
        write.write_all(&interim.raw).await?;
    }
    // A server may answer before it has read the whole body, and then not read on.
    let head = {
        let sent = send_body(read, &mut server_write, request, fault, state);
        let head = final_answer(&mut server_read, &request.method);
        let (mut sent, mut head) = (std::pin::pin!(sent), std::pin::pin!(head));
        tokio::select! {
            done = &mut sent => {
                done?;
                head.await?
            }
            early = &mut head => early?,
        }
    };
    finish(&mut server_read, write, &head, fault, state).await
}

/// Passes over interim answers.
async fn final_answer(server: &mut BufReader<OwnedReadHalf>, method: &str) -> Result<Answer> {
    loop {
        let head = read_answer(server, method).await?;
        if head.status >= 200 {
            return Ok(head);
        }
    }
}

async fn send_body(
    read: &mut BufReader<OwnedReadHalf>,
    server: &mut OwnedWriteHalf,
    request: &Request,
    fault: Fault,
    state: &Shared,
) -> Result<()> {
    let pace = pace_of(fault);
    let add = |n| state.lock().unwrap().counts.bytes_up += n;
    let BodyLength::Bytes(length) = request.body else {
        return copy(read, server, u64::MAX, pace, add).await;
    };
    if fault == Fault::ResetMidway {
        copy(read, server, length / 2, pace, add).await?;
        return Err(ErrorKind::ConnectionReset.into());
    }
    copy(read, server, length, pace, add).await
}

/// Passes the answer on, as far as the fault lets it.
async fn finish(
    server: &mut BufReader<OwnedReadHalf>,
    client: &mut OwnedWriteHalf,
    head: &Answer,
    fault: Fault,
    state: &Shared,
) -> Result<End> {
    let add = |n| state.lock().unwrap().counts.bytes_down += n;
    let length = match head.body {
        BodyLength::Bytes(n) => n,
        BodyLength::ToTheEnd => u64::MAX,
    };
    let known = matches!(head.body, BodyLength::Bytes(n) if n > 1) && head.status < 300;
    match fault {
        Fault::LoseAnswer => {
            // To its end, so that the server has surely done the work.
            copy(server, &mut tokio::io::sink(), length, None, add).await?;
            return Ok(End::Reset);
        }
        Fault::CutBody | Fault::StallMidway if known => {
            client.write_all(&closing(&head.raw, None)).await?;
            copy(server, client, length / 2, None, add).await?;
            client.flush().await?;
            if fault == Fault::StallMidway {
                // Ends with the proxy at the latest.
                std::future::pending::<()>().await;
            }
        }
        Fault::ShortBody if known => {
            client.write_all(&closing(&head.raw, Some(length / 2))).await?;
            copy(server, client, length / 2, None, add).await?;
        }
        _ => {
            client.write_all(&closing(&head.raw, None)).await?;
            copy(server, client, length, pace_of(fault), add).await?;
        }
    }
    client.shutdown().await?;
    Ok(End::Close)
}

fn pace_of(fault: Fault) -> Option<u64> {
    if let Fault::Bandwidth(rate) = fault { Some(rate.max(1)) } else { None }
}

/// Copies `length` bytes, or what there is before the end; no faster than `pace` bytes a second.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    length: u64,
    pace: Option<u64>,
    mut add: impl FnMut(u64),
) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let n = from.read(&mut chunk[..room]).await?;
        if n == 0 {
            break;
        }
        if let Some(pace) = pace {
            tokio::time::sleep(Duration::from_secs_f64(n as f64 / pace as f64)).await;
        }
        to.write_all(&chunk[..n]).await?;
        left -= n as u64;
        add(n as u64);
    }
    to.flush().await
}

async fn discard(read: &mut BufReader<OwnedReadHalf>, body: BodyLength) -> Result<()> {
    match body {
        BodyLength::Bytes(n) => copy(read, &mut tokio::io::sink(), n, None, |_| {}).await,
        BodyLength::ToTheEnd => Ok(()),
    }
}

/// Reads and forgets until the client hangs up.
async fn until_closed(read: &mut BufReader<OwnedReadHalf>) {
    let _ = copy(read, &mut tokio::io::sink(), u64::MAX, None, |_| {}).await;
}
