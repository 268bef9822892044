//! Alerts as their receivers hear them: a real Alertmanager, a real mail server, a web server and a program.

use std::time::Duration;

use serde_json::json;

use crate::support::receivers::{Alertmanager, Certificate, Hook, MailServer, told, told_by_alertmanager};
use crate::support::{EnvOptions, Pgkeep, Root, TestEnv, eventually};

const SOON: Duration = Duration::from_secs(30);

/// All kinds of receivers, and the tables that configure them.
struct Receivers {
    root: std::sync::Arc<Root>,
    hook: Hook,
    alertmanager: Alertmanager,
    mail: MailServer,
    tables: String,
}

const NAMES: [&str; 6] = ["chat", "pager", "hook", "am", "mail", "program"];

impl Receivers {
    fn start() -> Self {
        let root = Root::new();
        let hook = Hook::start();
        let alertmanager = Alertmanager::start(&root, &hook.url("/am"));
        let certificate = Certificate::make(&root);
        let mail = MailServer::start(&root, "starttls", Some(&certificate));
        let out = root.dir("out", 0o777).join("alerts");
        let tables = format!(
            r#"
            [[alert_sink]]
            name = "chat"
            kind = "slack"
            url = {{ env = "CHAT" }}
            [[alert_sink]]
            name = "pager"
            kind = "pagerduty"
            routing_key = {{ env = "PAGER" }}
            url = "{pager}"
            [[alert_sink]]
            name = "hook"
            kind = "webhook"
            url = "{webhook}"
            [[alert_sink]]
            name = "am"
            kind = "alertmanager"
            url = "{alertmanager}"
            [[alert_sink]]
            name = "mail"
            kind = "smtp"
            server = "localhost"
            port = {port}
            user = "pgkeep"
            password = {{ env = "MAIL" }}
            from = "pgkeep@example.com"
            to = ["dba@example.com"]
            ca_file = "{ca}"
            [[alert_sink]]
            name = "program"
            kind = "command"
            run = ["/bin/sh", "-c", "cat >> {out}; echo >> {out}"]
            "#,
            pager = hook.url("/pager"),
            webhook = hook.url("/hook"),
            alertmanager = alertmanager.url(),
            port = mail.port,
            ca = certificate.ca.display(),
            out = out.display(),
        );
        Self { root, hook, alertmanager, mail, tables }
    }
    /// The program with the secrets of these receivers.
    fn let_in(&self, pgkeep: &Pgkeep) -> Pgkeep {
        let chat = self.hook.url("/services/hush");
        pgkeep.clone().env("CHAT", chat).env("PAGER", "R0UT1NG").env("MAIL", "opensesame")
    }
    fn program_read(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.root.join("out/alerts")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn alerts_test_reaches_every_kind_of_receiver_and_names_those_that_fail_without_their_secrets() {
    let receivers = Receivers::start();
    let env = EnvOptions::new(17).uninitialised().config(&receivers.tables).build();
    let pgkeep = receivers.let_in(&env.pgkeep);
    let ran = pgkeep.run(["alerts", "test"]).ok();
    for name in NAMES {
        assert!(ran.stdout.contains(&format!("{name}: took an alert and its resolution")), "{ran}");
    }
    let actions = |path: &str, field: &str| -> Vec<String> {
        let posted = receivers.hook.posted(path);
        posted.iter().map(|body| body[field].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(actions("/pager", "event_action"), ["trigger", "resolve"]);
    assert_eq!(actions("/hook", "event"), ["opened", "resolved"]);
    assert_eq!(receivers.hook.posted("/services/hush").len(), 2);
    assert_eq!(
        (receivers.alertmanager.received("firing"), receivers.alertmanager.received("resolved")),
        (1, 1)
    );
    let mails = receivers.mail.mails();
    assert_eq!(mails.len(), 2);
    for mail in &mails {
        assert_eq!((&mail["tls"], &mail["login"]), (&json!(true), &json!(true)), "{mail}");
        assert!(mail["text"].as_str().unwrap().contains("This is a test. Nothing is wrong."), "{mail}");
        assert_eq!(mail["to"], json!(["dba@example.com"]));
    }
    let read = receivers.program_read();
    assert!(read.len() == 2 && read.iter().all(|notice| notice["test"] == true), "{read:?}");

    // Each fails in its own way.
    receivers.hook.answer(403, "invalid_token for {path} and {key}");
    let ran = pgkeep.clone().env("MAIL", "wrong-but-secret").run(["alerts", "test"]);
    let ran = ran.fails_with("alert-undelivered", 1).says("4 of 6 receivers of alerts did not take the test");
    for (name, says) in [("chat", "403"), ("pager", "403"), ("hook", "invalid_token"), ("mail", "535")] {
        let line = ran.stdout.lines().find(|line| line.starts_with(&format!("{name}: FAILED"))).unwrap();
        assert!(line.contains(says), "{ran}");
    }
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for secret in ["hush", "R0UT1NG", "wrong-but-secret"] {
        assert!(!said.contains(secret), "{secret} in {ran}");
    }
    pgkeep.run(["alerts", "test", "--sink", "am"]).ok();
    pgkeep.run(["alerts", "test", "--sink", "no-such"]).fails_with("usage", 2).says("am");
}

#[test]
fn mail_goes_through_tls_or_in_the_clear_as_configured_and_never_to_a_server_that_nobody_vouches_for() {
    let root = Root::new();
    let certificate = Certificate::make(&root);
    let (plain, tls) =
        (MailServer::start(&root, "plain", None), MailServer::start(&root, "tls", Some(&certificate)));
    let table = |name: &str, port: u16, tls: &str, more: &str| {
        format!(
            "[[alert_sink]]\nname = \"{name}\"\nkind = \"smtp\"\nserver = \"localhost\"\nport = {port}\ntls = \
             \"{tls}\"\nfrom = \"a@example.com\"\nto = [\"b@example.com\"]\n{more}\n"
        )
    };
    let ca = format!("ca_file = \"{}\"", certificate.ca.display());
    let tables = [
        table("plain", plain.port, "none", ""),
        table("tls", tls.port, "tls", &ca),
        table("stranger", tls.port, "tls", ""),
        // It does not speak TLS: nothing is sent instead of in the clear.
        table("downgrade", plain.port, "starttls", &ca),
    ];
    let env = EnvOptions::new(17).uninitialised().config(&tables.concat()).build();
    let ran = env.pgkeep.run(["alerts", "test"]).fails_with("alert-undelivered", 1);
    ran.clone().says("2 of 4 receivers").says("stranger, downgrade");
    assert_eq!((plain.mails().len(), tls.mails().len()), (2, 2), "{ran}");
    assert!(tls.mails().iter().all(|mail| mail["tls"] == true));
}

/// A repository that is away while this lives.
struct Away<'a>(&'a TestEnv);

impl<'a> Away<'a> {
    fn take(env: &'a TestEnv) -> Self {
        std::fs::rename(env.repo().path(), env.repo().path().with_extension("away")).unwrap();
        Self(env)
    }
}
impl Drop for Away<'_> {
    fn drop(&mut self) {
        std::fs::rename(self.0.repo().path().with_extension("away"), self.0.repo().path()).unwrap();
    }
}

#[test]
fn an_alert_rises_and_is_resolved_once_at_each_receiver_though_the_agent_is_killed_meanwhile() {
    let receivers = Receivers::start();
    let beat = receivers.hook.url("/beat");
    let config = format!(
        "{}\n[alerts]\ncheck_interval = \"500ms\"\nstore_unreachable = \"1s\"\nsettle = \"2s\"\n[heartbeat]\nurl = \
         \"{beat}\"\ninterval = \"500ms\"\n",
        receivers.tables
    );
    let env = EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).config(&config).build();
    let pgkeep = receivers.let_in(&env.pgkeep);
    let agent = crate::support::Agent::start_as(&env, &pgkeep);
    let beats = || receivers.hook.posted("/beat").len();
    eventually("the heart beats", SOON, || beats() > 1);
    let key = "store-unreachable:repo";
    let away = Away::take(&env);
    // Something to ask the store for.
    env.pg.switch_wal();
    eventually(&format!("the alert is told; {}", agent.log()), SOON, || {
        told(&receivers.hook, "/hook").contains_key(key)
    });
    eventually("the Alertmanager shows it", SOON, || {
        receivers.alertmanager.firing().iter().any(|alert| {
            alert["labels"]["alertname"] == "pgkeep-store-unreachable"
                && alert["labels"]["severity"] == "critical"
        })
    });
    let shown = pgkeep.run(["alerts"]).exits(4);
    assert!(shown.stdout.contains("CRITICAL  store-unreachable:repo"), "{shown}");
    let silent = beats();
    agent.kill();
    let agent = crate::support::Agent::start_as(&env, &pgkeep);
    let shown = pgkeep.run(["alerts"]).exits(4);
    assert!(shown.stdout.contains(key), "{shown}");
    drop(away);
    eventually(&format!("its end is told; {}", agent.log()), SOON, || {
        told(&receivers.hook, "/hook")[key].last().is_some_and(|event| event == "resolved")
    });
    eventually("the Alertmanager has told it", SOON, || {
        told_by_alertmanager(&receivers.hook, "/am").get(key).is_some_and(|all| all.len() == 2)
    });
    eventually("the heart beats again", SOON, || beats() > silent + 1);
    // A beat may have been on its way when the alert rose.
    assert!(told(&receivers.hook, "/hook")[key] == ["opened", "resolved"]);
    assert_eq!(told_by_alertmanager(&receivers.hook, "/am")[key], ["firing", "resolved"]);
    let pages = receivers.hook.posted("/pager");
    let of_it = |dedup: &serde_json::Value| dedup.as_str().is_some_and(|dedup| dedup.ends_with(key));
    let pages: Vec<_> = pages.iter().filter(|page| of_it(&page["dedup_key"])).collect();
    assert_eq!((pages.len(), &pages[0]["event_action"]), (2, &json!("trigger")));
    assert_eq!(pages[1]["event_action"], "resolve");
    let read = receivers.program_read();
    let read: Vec<_> = read.iter().filter(|notice| notice["alert"]["key"] == key).collect();
    assert_eq!(read.len(), 2, "{read:?}");
    let subject = |mail: &serde_json::Value| {
        mail["text"].as_str().is_some_and(|text| text.contains("store-unreachable"))
    };
    eventually("both mails are there", SOON, || {
        receivers.mail.mails().iter().filter(|m| subject(m)).count() == 2
    });
}
