//! SQL that PostgreSQL's own programs wrote, read as far as a restore must understand it: where a statement ends, which
//! role or tablespace it is about, which roles it names, and the name of the database in it. Pure.
//!
//! The text is that of `pg_dump` and `pg_dumpall` (`dumputils.c`, `pg_dumpall.c`): keywords are written plainly, and a
//! name that could be taken for one is quoted.

/// A piece of a statement, with its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    kind: Kind,
    from: usize,
    to: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A keyword or a plain name.
    Word(String),
    /// A name between double quotes, without them.
    Quoted(String),
    /// A literal.
    Literal(String),
    Sign(char),
}

impl Kind {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let from = at;
        let rest = &text[at..];
        if rest.starts_with("--") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        at += c.len_utf8();
        let kind = match c {
            '"' => Kind::Quoted(quoted(text, &mut at, '"', false)),
            '\'' => {
                let escapes = matches!(found.last(), Some(Token { kind: Kind::Word(e), to, .. })
                    if *to == from && e.eq_ignore_ascii_case("e"));
                if escapes {
                    found.pop();
                }
                Kind::Literal(quoted(text, &mut at, '\'', escapes))
            }
            c if c.is_whitespace() => continue,
            c if is_of_word(c) => {
                at += text[at..].find(|c| !is_of_word(c)).unwrap_or(text.len() - at);
                Kind::Word(text[from..at].to_owned())
            }
            other => Kind::Sign(other),
        };
        found.push(Token { kind, from, to: at });
    }
    found
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()
}

/// What stands between quotes; `at` is just behind the first and comes to stand behind the last.
fn quoted(text: &str, at: &mut usize, quote: char, escapes: bool) -> String {
    let mut inside = String::new();
    let mut chars = text[*at..].char_indices().peekable();
    while let Some((n, c)) = chars.next() {
        if c == '\\' && escapes {
            inside.extend(chars.next().map(|(_, c)| c));
        } else if c != quote {
            inside.push(c);
        } else if chars.next_if(|(_, c)| *c == quote).is_some() {
            inside.push(quote);
        } else {
            *at += n + 1;
            return inside;
        }
    }
    *at = text.len();
    inside
}

/// The statements of a script, each with its semicolon. Comments and `psql`'s own commands are left out.
pub fn statements(script: &str) -> Vec<String> {
    // psql's commands have lines of their own.
    let lines = script.lines().filter(|line| !line.starts_with('\\'));
    let script = lines.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    let mut begin = None;
    for token in tokens(&script) {
        let from = *begin.get_or_insert(token.from);
        if token.kind == Kind::Sign(';') {
            found.push(script[from..token.to].to_owned());
            begin = None;
        }
    }
    found
}

/// What a statement of `pg_dumpall --globals-only` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    Role(String),
    Tablespace(String),
}

/// None for settings of the session, and what is not known here. A membership is about its member.
pub fn about(statement: &str) -> Option<About> {
    let all: Vec<Kind> = tokens(statement).into_iter().map(|t| t.kind).collect();
    let after = |keyword: &str| {
        let at = all.iter().position(|kind| kind.is(keyword))?;
        all.get(at + 1)?.name().map(str::to_owned)
    };
    let is = |at: usize, keyword: &str| all.get(at).is_some_and(|kind| kind.is(keyword));
    if is(0, "grant") || is(0, "revoke") {
        if all.windows(2).any(|two| two[0].is("on") && two[1].is("tablespace")) {
            return after("tablespace").map(About::Tablespace);
        }
        return after(if is(0, "grant") { "to" } else { "from" }).map(About::Role);
    }
    let object = match () {
        () if is(0, "create") || is(0, "alter") => all.get(1..)?,
        () if is(0, "comment") || is(0, "security") => {
            let on = all.iter().position(|kind| kind.is("on"))?;
            all.get(on + 1..)?
        }
        () => return None,
    };
    let name = object.get(1)?.name()?.to_owned();
    match () {
        () if object[0].is("role") => Some(About::Role(name)),
        () if object[0].is("tablespace") => Some(About::Tablespace(name)),
        () => None,
    }
}

/// The roles that grants, default privileges, policies and settings of a role name. `PUBLIC` is none.
pub fn roles(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in statements(text) {
        let all: Vec<Kind> = tokens(&statement).into_iter().map(|t| t.kind).collect();
        let is = |at: usize, keyword: &str| all.get(at).is_some_and(|kind| kind.is(keyword));
        match () {
            // What follows a setting's TO is its value.
            () if is(0, "alter") && is(1, "database") => {}
            () if is(0, "alter") && is(1, "role") => {
                found.extend(all.get(2).and_then(Kind::name).map(str::to_owned));
            }
            () => listed_roles(&all, &mut found),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn listed_roles(all: &[Kind], found: &mut Vec<String>) {
    let lists = ["to", "from", "role", "authorization"];
    let mut at = 0;
    // An expression names none.
    while at < all.len() && !all[at].is("using") && !all[at].is("check") {
        if !lists.iter().any(|keyword| all[at].is(keyword)) {
            at += 1;
            continue;
        }
        loop {
            let known = |kind: &&Kind| !kind.is("public") && !kind.is("default");
            found.extend(all.get(at + 1).filter(known).and_then(Kind::name).map(str::to_owned));
            at += 2;
            if all.get(at) != Some(&Kind::Sign(',')) {
                break;
            }
        }
    }
}

/// Statements about the database `from`, made to be about `to` (quoted already). None where one does not name it so.
pub fn of_other_database(text: &str, from: &str, to: &str) -> Option<String> {
    let mut changed = String::with_capacity(text.len());
    for statement in statements(text) {
        let all = tokens(&statement);
        let at = all.windows(2).find(|two| two[0].kind.is("database") && two[1].kind.name() == Some(from));
        match at {
            Some(two) => {
                changed.push_str(&statement[..two[1].from]);
                changed.push_str(to);
                changed.push_str(&statement[two[1].to..]);
            }
            // `SET SESSION AUTHORIZATION` around the grants of another role.
            None if all.first().is_some_and(|t| t.kind.is("set") || t.kind.is("reset")) => {
                changed.push_str(&statement);
            }
            None => return None,
        }
        changed.push('\n');
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        let script = "--\n-- Roles; all\n--\n\\restrict a;b\nSET x = 'a;''b';\nCREATE ROLE \"a;\"\"b\";\n\
                      ALTER ROLE x PASSWORD E'\\';' -- no;\n VALID UNTIL 'infinity';\n\\unrestrict a\n";
        assert_eq!(
            statements(script),
            [
                "SET x = 'a;''b';",
                "CREATE ROLE \"a;\"\"b\";",
                "ALTER ROLE x PASSWORD E'\\';' -- no;\n VALID UNTIL 'infinity';"
            ]
        );
    }

    #[test]
    fn a_global_statement_is_about_one_role_or_tablespace() {
        let role = |name: &str| Some(About::Role(name.to_owned()));
        let space = |name: &str| Some(About::Tablespace(name.to_owned()));
        for (statement, expected) in [
            ("CREATE ROLE \"Owner É\";", role("Owner É")),
            ("ALTER ROLE app WITH NOSUPERUSER PASSWORD 'SCRAM-SHA-256$4096:x';", role("app")),
            ("ALTER ROLE app SET role TO 'x';", role("app")),
            ("COMMENT ON ROLE app IS 'tablespace x';", role("app")),
            ("SECURITY LABEL FOR p ON ROLE app IS 'x';", role("app")),
            ("GRANT readers TO app WITH ADMIN OPTION GRANTED BY postgres;", role("app")),
            ("GRANT SET ON PARAMETER work_mem TO app;", role("app")),
            ("CREATE TABLESPACE fast OWNER app LOCATION '/srv/fast';", space("fast")),
            ("ALTER TABLESPACE fast SET (random_page_cost=1.1);", space("fast")),
            ("GRANT ALL ON TABLESPACE \"Fast 1\" TO app;", space("Fast 1")),
            ("COMMENT ON TABLESPACE fast IS 'x';", space("fast")),
            ("SET client_encoding = 'UTF8';", None),
        ] {
            assert_eq!(about(statement), expected, "{statement}");
        }
    }

    #[test]
    fn roles_are_found_where_grants_and_policies_name_them() {
        let grants = "REVOKE ALL ON TABLE \"to\" FROM PUBLIC;\nSET SESSION AUTHORIZATION boss;\nGRANT SELECT(\"from\",b) ON \
                      TABLE t TO \"Reader X\" WITH GRANT OPTION;\nRESET SESSION AUTHORIZATION;";
        assert_eq!(roles(grants), ["Reader X", "boss"]);
        let default =
            "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA app GRANT SELECT ON TABLES TO reader;";
        assert_eq!(roles(default), ["owner", "reader"]);
        let policy = "CREATE POLICY own ON app.secret FOR SELECT TO a, \"B\" USING ((who = CURRENT_USER) AND f(x, 'to y'));";
        assert_eq!(roles(policy), ["B", "a"]);
        assert!(roles("CREATE POLICY own ON s USING (extract(day from at) = 1);").is_empty());
        let settings =
            "ALTER DATABASE x SET search_path TO a, 'b'; ALTER ROLE r IN DATABASE x SET work_mem TO '7MB';";
        assert_eq!(roles(settings), ["r"]);
    }

    #[test]
    fn statements_of_a_database_are_made_for_another() {
        let text = "ALTER DATABASE \"a \"\"b\" SET search_path TO 'DATABASE \"a b\"', 'x';\nSET SESSION AUTHORIZATION x;\n\
                    ALTER ROLE r IN DATABASE \"a \"\"b\" SET work_mem TO '1MB';\nCOMMENT ON DATABASE \"a \"\"b\" IS 'ALTER DATABASE x;';";
        assert_eq!(
            of_other_database(text, "a \"b", "\"new\"").unwrap(),
            "ALTER DATABASE \"new\" SET search_path TO 'DATABASE \"a b\"', 'x';\nSET SESSION AUTHORIZATION x;\n\
             ALTER ROLE r IN DATABASE \"new\" SET work_mem TO '1MB';\nCOMMENT ON DATABASE \"new\" IS 'ALTER DATABASE x;';\n"
        );
        assert_eq!(of_other_database("ALTER DATABASE other SET a TO 1;", "app", "x"), None);
        assert_eq!(of_other_database("UPDATE pg_database SET x = 1;", "app", "x"), None);
    }
}
