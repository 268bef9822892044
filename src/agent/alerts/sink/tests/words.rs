//! Programs and mails.

use super::*;

fn command(words: &[&str], timeout: Duration) -> NamedSink {
    let kind = SinkKind::Command(words.iter().map(|word| (*word).to_owned()).collect());
    NamedSink::of(&SinkConfig { name: "ops".to_owned(), min_severity: Severity::Warning, timeout, kind })
}

#[tokio::test]
async fn a_command_is_run_without_a_shell_and_reads_the_webhooks_json() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!("printf '%s|' \"$@\" > {0}; cat >> {0}", out.display());
    let words = ["/bin/sh", "-c", script.as_str(), "sh", "one word", "$HOME; true"];
    command(&words, Duration::from_secs(10)).send(&of(Event::Opened)).await.unwrap();
    let written = std::fs::read_to_string(&out).unwrap();
    let body = written.strip_prefix("one word|$HOME; true|").unwrap_or_else(|| panic!("{written}"));
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body, webhook::document(&of(Event::Opened)));
}

#[tokio::test]
async fn a_command_that_fails_says_why_and_one_that_hangs_is_killed_with_its_children() {
    let long = Duration::from_secs(10);
    let failing = command(&["/bin/sh", "-c", "echo no such pager >&2; exit 3"], long);
    let refusal = failing.send(&of(Event::Opened)).await.unwrap_err();
    let text = refusal.error().to_string();
    assert!(text.contains("no such pager") && text.contains('3'), "{text}");
    assert!(command(&["/no/such/program"], long).send(&of(Event::Opened)).await.is_err());
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let begun = Instant::now();
    // Long enough for a shell to write a line on a busy machine.
    let hanging = command(&["/bin/sh", "-c", &script], Duration::from_secs(3));
    let refusal = hanging.send(&of(Event::Opened)).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(9) && matches!(refusal, Refusal::Later(_)));
    let child = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let child = nix::unistd::Pid::from_raw(child);
    crate::agent::alerts::tests::until("the grandchild is gone", || is_gone(child)).await;
}

fn is_gone(pid: nix::unistd::Pid) -> bool {
    // Killed and not yet waited for by the new parent counts.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn mail() -> SmtpConfig {
    SmtpConfig {
        server: "mail.example.com".to_owned(),
        port: 25,
        tls: SmtpTls::None,
        login: None,
        from: "pgkeep <pgkeep@example.com>".to_owned(),
        to: vec!["dba@example.com".to_owned(), "on-call@example.com".to_owned()],
        ca_file: None,
    }
}

#[test]
fn no_text_of_an_alert_becomes_a_header_or_an_end_of_a_mail() {
    let mut notice = of(Event::Opened);
    notice.alert.summary = "disk\r\nBcc: thief@example.com\r\n\r\nhello\u{1b}[31m\r\n.\r\nQUIT".to_owned();
    notice.host = "db1\r\nX-Evil: yes".to_owned();
    let mail = String::from_utf8(smtp::message(&mail(), &notice).unwrap().formatted()).unwrap();
    let (head, body) = mail.split_once("\r\n\r\n").unwrap();
    let names: Vec<&str> = head
        .lines()
        .filter(|l| !l.starts_with(' '))
        .filter_map(|l| l.split_once(':'))
        .map(|(n, _)| n)
        .collect();
    assert!(!names.contains(&"Bcc") && !names.contains(&"X-Evil"), "{head}");
    let expected = ["Content-Transfer-Encoding", "Content-Type", "Date", "From", "Subject", "To"];
    let mut names: Vec<&str> = names.into_iter().filter(|name| *name != "MIME-Version").collect();
    names.sort_unstable();
    assert_eq!(names, expected, "{head}");
    assert!(body.contains("pgkeep check --cluster main"), "{body}");
    assert!(body.contains("runbooks/archiving-stalled.md"), "{body}");
    let mut wrong = super::words::mail();
    wrong.to = vec!["not an address".to_owned()];
    assert!(smtp::message(&wrong, &notice).is_err());
}
