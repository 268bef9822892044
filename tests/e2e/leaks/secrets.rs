//! Secrets in the configuration, in files and in commands: whatever goes right or wrong, none is ever printed.

use crate::support::{EnvOptions, Pgkeep, Ran, Root, S3, TestEnv};

const PASSWORD: &str = "Pw-Zitronenfalter-91";

/// Everything that must never be printed, and everything that was.
struct Watch {
    secrets: Vec<String>,
    printed: Vec<String>,
}

impl Watch {
    #[track_caller]
    fn see(&mut self, ran: Ran) -> Ran {
        let text = ran.to_string();
        for secret in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{secret} in: {text}");
        }
        self.printed.push(text);
        ran
    }
    /// The command as usual, with everything that can be said, and as a document.
    #[track_caller]
    fn every_way(&mut self, pgkeep: &Pgkeep, command: &[&str]) {
        for flag in ["-vv", "--json", "-q"] {
            self.see(
                pgkeep.clone().env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").global(flag).run(command),
            );
        }
    }
}

/// A server that asks for a password, a bucket with a secret key, an identity: `env` and the program that has all.
fn place() -> (TestEnv, Pgkeep, Watch) {
    let env = EnvOptions::new(17).pg(|pg| pg.segment_mib(1)).s3_repository("s3", true).build();
    env.pg.sql(&format!("create role keeper superuser login password '{PASSWORD}'"));
    let hba = env.pg.data.join("pg_hba.conf");
    let text = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, format!("local all keeper scram-sha-256\n{text}")).unwrap();
    env.pg.reload();
    let pass = env.root.file("pgpass", 0o600, &format!("*:*:*:keeper:{PASSWORD}\n"));
    let pgkeep = env
        .with_config("keeper.toml", |text| text.replace("user=postgres", "user=keeper"))
        .env("PGPASSFILE", pass)
        .dir(&env.pg.data);
    let identity = std::fs::read_to_string(&env.identity_file).unwrap();
    let secrets =
        vec![PASSWORD.to_owned(), identity.trim().to_owned(), S3::fresh_bucket().server().secret_key.clone()];
    (env, pgkeep, Watch { secrets, printed: Vec::new() })
}

#[test]
fn no_command_prints_a_secret_when_all_is_well() {
    let (env, pgkeep, mut watch) = place();
    let segment = format!("pg_wal/{}", env.pg.switch_and_archive());
    let id = watch.see(pgkeep.clone().global("-vv").run(["backup", "full"]).ok()).stdout;
    assert!(!id.is_empty());
    let out = env.root.dir("out", 0o700).join("segment");
    let commands: [&[&str]; 11] = [
        &["backup", "full"],
        &["config", "show"],
        &["config", "check"],
        &["key", "show"],
        &["list"],
        &["window"],
        &["check"],
        &["init"],
        &["wal", "push", &segment],
        &["wal", "fetch", &segment["pg_wal/".len()..], out.to_str().unwrap()],
        &["restore", "--to", "latest", "--target-dir", "/nonexistent/side", "--dry-run"],
    ];
    for command in commands {
        watch.every_way(&pgkeep, command);
    }
    let config = std::fs::read_to_string(env.root.join("keeper.toml")).unwrap();
    assert!(watch.secrets.iter().all(|secret| !config.contains(secret.as_str())));
    assert!(watch.secrets.iter().all(|secret| !env.pg.log_text().contains(secret.as_str())));
}

#[test]
fn no_error_repeats_a_secret() {
    let (env, pgkeep, mut watch) = place();
    let wrong = "Wrong-Pw-Trauermantel-17";
    watch.secrets.push(wrong.to_owned());
    let segment = format!("pg_wal/{}", env.pg.switch_and_archive());
    let commands: [&[&str]; 5] =
        [&["backup", "full"], &["check"], &["list"], &["wal", "push", &segment], &["init"]];
    // A password that the server refuses, in a pass file and in the environment.
    let pass = env.root.file("pgpass.wrong", 0o600, &format!("*:*:*:keeper:{wrong}\n"));
    let refused = watch.see(pgkeep.clone().env("PGPASSFILE", pass).run(["backup", "full"]));
    assert!(refused.code != Some(0) && refused.stderr.contains("keeper"), "{refused}");
    watch.every_way(&pgkeep.clone().env("PGPASSWORD", wrong), &["backup", "full"]);
    // A secret key that the store refuses, from each kind of place.
    let from = format!("secret_access_key = {{ file = \"{}\" }}", env.root.join("s3.secret").display());
    env.root.file("wrong.secret", 0o600, wrong);
    let file = format!("secret_access_key = {{ file = \"{}\" }}", env.root.join("wrong.secret").display());
    let variable = "secret_access_key = { env = \"WRONG_SECRET\" }".to_owned();
    let command =
        format!("secret_access_key = {{ command = \"cat {}\" }}", env.root.join("wrong.secret").display());
    for (number, to) in [file, variable, command].into_iter().enumerate() {
        let broken = env
            .with_config(&format!("wrong{number}.toml"), |text| {
                assert!(text.contains(&from), "{text}");
                text.replace(&from, &to)
            })
            .env("WRONG_SECRET", wrong)
            .dir(&env.pg.data);
        for command in commands {
            watch.every_way(&broken, command);
        }
        assert_ne!(watch.see(broken.run(["list"])).code, Some(0));
    }
}

/// Faulty configurations, each of which has the secret in the faulty line itself.
fn faulty(config: &str, secret: &str) -> Vec<String> {
    let connection = |text: &str| config.replace("connection = \"", &format!("connection = \"{text} "));
    let key = |line: &str| {
        config.replace("path_style = true", &format!("path_style = true\n[repository.credentials]\n{line}"))
    };
    vec![
        connection(&format!("password={secret}")),
        connection(&format!("password = '{secret}")),
        config
            .replace("connection = \"", &format!("connection = \"postgresql://keeper:{secret}@/postgres?x=")),
        config.replace("[[repository]]", &format!("[[repository]]\nsession_token = \"{secret}\"")),
        key(&format!("secret_access_key = \"{secret}\" \"{secret}\"")),
        key(&format!("secret_access_key = \"{secret}")),
        key(&format!("secret_access_key = {{ value = \"{secret}\" }}")),
        key(&format!("secret = \"{secret}\"")),
        key(secret),
        config.replace("identity_file = \"", &format!("identity_file = \"{secret}\"\nx = \"")),
        config.replace("recipients = [\"", &format!("recipients = [\"{secret}\", \"")),
        config.replace("url = \"s3://", &format!("url = \"s3://key:{secret}@")),
        config.replace("endpoint = \"http://", &format!("endpoint = \"http://key:{secret}@")),
    ]
}

#[test]
fn a_fault_in_the_configuration_is_described_without_the_secret_in_that_line() {
    let root = Root::new();
    let secret = "AGE-SECRET-KEY-1QZRKMMWTJ0J59EG44P5YFNNV6MY6HC2GMUVUQR2LLNJZHHHJXD7QSDL4JC";
    let config = format!(
        "state_directory = \"{0}/state\"\n[cluster.main]\nconnection = \"user=keeper\"\n[[repository]]\nname = \"s3\"\n\
         url = \"s3://bucket/prod\"\nregion = \"us-east-1\"\nendpoint = \"http://127.0.0.1:1\"\npath_style = true\n\
         [encryption]\nrecipients = [\"age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg\"]\n\
         identity_file = \"{0}/identity\"\n",
        root.path().display()
    );
    let mut watch = Watch { secrets: vec![secret.to_owned()], printed: Vec::new() };
    let texts = faulty(&config, secret);
    for (number, text) in texts.iter().enumerate() {
        assert!(text.contains(secret), "{number}");
        let path = root.file(&format!("faulty{number}.toml"), 0o644, text);
        let pgkeep = Pgkeep::with_config(&path);
        let ran = watch.see(pgkeep.run(["config", "check"]));
        assert_ne!(ran.code, Some(0), "{number}: {ran}\n{text}");
        watch.every_way(&pgkeep, &["config", "show"]);
        watch.every_way(&pgkeep, &["list"]);
    }
}
