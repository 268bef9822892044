//! What each kind sends, seen from the other end: a server that writes down requests and answers as it is told, and a
//! program that is really run. Real Alertmanagers and mail servers: `tests/e2e/alerts.rs`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};

use super::*;
use crate::agent::alerts::tests::{Wall, notice};
use crate::config::alerts::{HttpConfig, SmtpConfig, SmtpTls};
use crate::config::{Guarded, Secret, SinkConfig};

mod words;

#[derive(Debug, Clone)]
struct Request {
    path: String,
    authorization: Option<String>,
    body: Value,
}

/// Answers as it is told, otherwise 200.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { address, requests: Arc::default(), answers: Arc::default() };
        let handler = this.clone();
        let app = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let this = handler.clone();
            async move { this.handle(&uri, &headers, &body) }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        this
    }
    fn handle(&self, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> (StatusCode, HeaderMap, String) {
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let body = serde_json::from_slice(body).unwrap_or(Value::Null);
        self.requests.lock().unwrap().push(Request { path: uri.to_string(), authorization, body });
        let answer = self.answers.lock().unwrap().pop_front();
        let (status, said) = answer.unwrap_or((200, String::new()));
        let mut headers = HeaderMap::new();
        headers.insert("location", "http://127.0.0.1:1/elsewhere".parse().unwrap());
        (StatusCode::from_u16(status).unwrap(), headers, said)
    }
    fn will_answer(&self, status: u16, said: &str) {
        self.answers.lock().unwrap().push_back((status, said.to_owned()));
    }
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
    fn last(&self) -> Request {
        self.requests().pop().expect("a request arrived")
    }
}

fn http(url: Guarded) -> HttpConfig {
    HttpConfig { url, authorization: None, ca_file: None, proxy: None }
}

fn sink(kind: SinkKind) -> NamedSink {
    let (name, min_severity) = ("ops".to_owned(), Severity::Warning);
    NamedSink::of(&SinkConfig { name, min_severity, timeout: Duration::from_secs(5), kind })
}

fn secret(dir: &tempfile::TempDir, name: &str, value: &str) -> Secret {
    let path = dir.path().join(name);
    std::fs::write(&path, value).unwrap();
    Secret::File(path)
}

fn of(event: Event) -> Notice {
    notice(event, "archive-lag:main", Wall::new().now())
}

#[tokio::test]
async fn a_webhook_gets_the_documented_json_and_its_authorization() {
    let (receiver, dir) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let authorization = Some(secret(&dir, "token", "Bearer opensesame\n"));
    let config = HttpConfig { authorization, ..http(Guarded::Text(receiver.url("/hook?x=1"))) };
    let sink = sink(SinkKind::Webhook(config));
    sink.send(&of(Event::Opened)).await.unwrap();
    let request = receiver.last();
    assert_eq!(request.path, "/hook?x=1");
    assert_eq!(request.authorization.as_deref(), Some("Bearer opensesame"));
    assert_eq!(
        request.body,
        json!({
            "version": 1, "event": "opened", "test": false, "host": "db1", "at": "2026-11-21T14:00:00Z",
            "alert": {
                "key": "archive-lag:main", "rule": "archive-lag", "severity": "critical",
                "labels": {"cluster": "main"}, "since": "2026-11-21T14:00:00Z", "summary": "it waits",
                "mend": "pgkeep check --cluster main", "runbook": "runbooks/archiving-stalled.md",
            },
        })
    );
    sink.send(&of(Event::Resolved)).await.unwrap();
    assert_eq!(receiver.last().body["event"], "resolved");
    // A secret that was rotated is taken up.
    secret(&dir, "token", "Bearer another");
    sink.send(&of(Event::Repeated)).await.unwrap();
    assert_eq!(receiver.last().authorization.as_deref(), Some("Bearer another"));
}

#[tokio::test]
async fn pagerduty_makes_one_incident_of_an_alert_and_ends_it() {
    let (receiver, dir) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let routing_key = secret(&dir, "key", "R0UT1NG");
    let sink =
        sink(SinkKind::PagerDuty { routing_key, http: http(Guarded::Text(receiver.url("/v2/enqueue"))) });
    for event in [Event::Opened, Event::Repeated, Event::Resolved] {
        receiver.will_answer(202, "{\"status\": \"success\"}");
        sink.send(&of(event)).await.unwrap();
    }
    let sent: Vec<Value> = receiver.requests().into_iter().map(|request| request.body).collect();
    let actions: Vec<&str> = sent.iter().map(|body| body["event_action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["trigger", "trigger", "resolve"]);
    for body in &sent {
        assert_eq!(body["dedup_key"], "pgkeep/db1/archive-lag:main");
        assert_eq!(body["routing_key"], "R0UT1NG");
        assert_eq!(body["payload"]["severity"], "critical");
        assert_eq!(body["payload"]["source"], "db1");
    }
    assert_eq!(sent[0]["payload"]["summary"], "CRITICAL db1: it waits");
    // A long key stays the same and fits.
    let long = |event| notice(event, &"x".repeat(400), Wall::new().now());
    let key =
        |notice: &Notice| pagerduty::document(notice, "k")["dedup_key"].as_str().map(str::to_owned).unwrap();
    assert_eq!(key(&long(Event::Opened)), key(&long(Event::Resolved)));
    assert!(key(&long(Event::Opened)).len() <= 255);
}

#[tokio::test]
async fn slack_gets_a_message_in_which_nothing_is_markup_that_should_not_be() {
    let (receiver, dir) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let url = secret(&dir, "url", &receiver.url("/services/T0/B0/secret\n"));
    let sink = sink(SinkKind::Slack(http(Guarded::Secret(url))));
    let mut opened = of(Event::Opened);
    opened.alert.summary = "lag < 10 & <!channel> \n\n rising".to_owned();
    sink.send(&opened).await.unwrap();
    let request = receiver.last();
    assert_eq!(request.path, "/services/T0/B0/secret");
    let said = "CRITICAL db1: lag &lt; 10 &amp; &lt;!channel&gt; rising";
    assert_eq!(request.body["text"], said);
    let section = request.body["blocks"][0]["text"]["text"].as_str().unwrap();
    assert_eq!(section, format!(":rotating_light: *{said}*\n`pgkeep check --cluster main`"));
    let mut endless = of(Event::Resolved);
    endless.alert.summary = "<".repeat(9000);
    let body = slack::document(&endless);
    assert!(body["blocks"][0]["text"]["text"].as_str().unwrap().chars().count() <= 3000);
}

#[tokio::test]
async fn an_alertmanager_is_told_again_of_what_is_open_and_a_worse_alert_takes_the_place_of_the_milder() {
    let receiver = Receiver::start().await;
    let sink = sink(SinkKind::Alertmanager(http(Guarded::Text(receiver.url("/am/")))));
    assert_eq!(sink.refresh_every(), None, "it was not prepared yet");
    let opened = of(Event::Opened);
    sink.send(&opened).await.unwrap();
    assert_eq!(receiver.last().path, "/am/api/v2/alerts");
    let alert = &receiver.last().body[0];
    let labels = json!({
        "alertname": "pgkeep-archive-lag", "cluster": "main", "host": "db1", "severity": "critical"
    });
    assert_eq!(alert["labels"], labels);
    let ends = |alert: &Value| alert["endsAt"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(ends(alert) > opened.at);
    let later = opened.at.plus(Duration::from_hours(1));
    sink.refresh(std::slice::from_ref(&opened.alert), "db1", later).await.unwrap();
    let again = &receiver.last().body[0];
    assert!(again["labels"] == labels && ends(again) > later);
    sink.send(&Notice { risen_from: Some(Severity::Warning), ..opened.clone() }).await.unwrap();
    let body = receiver.last().body;
    assert_eq!(body[1]["labels"]["severity"], "warning");
    assert_eq!(ends(&body[1]), opened.at);
    sink.send(&of(Event::Resolved)).await.unwrap();
    assert_eq!(ends(&receiver.last().body[0]), opened.at);
    let count = receiver.requests().len();
    sink.refresh(&[], "db1", later).await.unwrap();
    assert_eq!(receiver.requests().len(), count, "nothing to say");
}

#[tokio::test]
async fn an_answer_says_whether_to_try_again_and_shows_no_secret() {
    let (receiver, dir) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let url = receiver.url("/services/hush");
    let config = HttpConfig {
        authorization: Some(secret(&dir, "token", "Bearer opensesame")),
        ..http(Guarded::Secret(secret(&dir, "url", &url)))
    };
    let sink = sink(SinkKind::Webhook(config));
    let answers = [(400, true), (401, true), (404, true), (408, false), (429, false), (500, false)];
    for (status, for_good) in answers.into_iter().chain([(503, false), (302, false)]) {
        receiver.will_answer(status, &format!("no {url} with Bearer opensesame\nat /services/hush"));
        let refusal = sink.send(&of(Event::Opened)).await.unwrap_err();
        assert_eq!(matches!(refusal, Refusal::Never(_)), for_good, "{status}");
        let text = format!("{:?} {}", refusal, refusal.error());
        assert!(text.contains(&status.to_string()) && text.contains("127.0.0.1"), "{text}");
        assert!(!text.contains("hush") && !text.contains("opensesame"), "{text}");
    }
    // Not sent on to where the answer of 302 pointed.
    assert_eq!(receiver.requests().len(), 8);
}

#[tokio::test]
async fn a_receiver_that_is_silent_or_not_there_is_given_up_in_time_and_not_named_by_its_url() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let closed = {
        let once = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        once.local_addr().unwrap()
    };
    for (address, says) in [(silent, "does not answer"), (closed, "cannot reach")] {
        let url = Guarded::Text(format!("http://{address}/hush"));
        let config = SinkConfig {
            name: "ops".to_owned(),
            min_severity: Severity::Warning,
            timeout: Duration::from_millis(300),
            kind: SinkKind::Webhook(http(url)),
        };
        let begun = Instant::now();
        let refusal = NamedSink::of(&config).send(&of(Event::Opened)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(4));
        let text = format!("{:?} {}", refusal, refusal.error());
        assert!(matches!(refusal, Refusal::Later(_)) && text.contains(says), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }
}

#[tokio::test]
async fn what_a_receiver_needs_is_read_before_there_is_news_and_again_once_it_is_mended() {
    let (receiver, dir) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let url = Guarded::Secret(Secret::File(dir.path().join("url")));
    let sink = sink(SinkKind::Webhook(http(url)));
    let refusal = sink.ready().await.unwrap_err();
    assert!(refusal.error().to_string().contains("url"), "{}", refusal.error());
    secret(&dir, "url", "ftp://nowhere");
    assert!(sink.ready().await.is_err());
    secret(&dir, "url", &receiver.url("/"));
    sink.ready().await.unwrap();
    assert_eq!(receiver.requests().len(), 0, "nothing is sent for that");
    sink.send(&of(Event::Opened)).await.unwrap();
    // And gone again: a failure of this try, not of the agent.
    std::fs::remove_file(dir.path().join("url")).unwrap();
    assert!(matches!(sink.send(&of(Event::Resolved)).await, Err(Refusal::Later(_))));
}
