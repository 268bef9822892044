//! The list of errors for `runbooks/ERRORS.md`, printed from the codes themselves.

use crate::error::{Code, ExitClass};

/// The page.
pub fn page() -> String {
    let mut text = String::from(
        "# Errors\n\n\
         Printed from the program's own table (`src/error.rs`). Every error says `error[CODE]: what, where`, then\n\
         `hint:` with what to do next, and where there is one `see:` with the page that helps. Codes do not change once\n\
         released. With `--json` the same is `{\"error\": {\"code\", \"message\", \"hint\", \"runbook\"}}` on standard output.\n\n\
         | exit | means |\n|---|---|\n\
         | 0 | done |\n| 1 | failed |\n| 2 | wrong usage or configuration |\n| 3 | refused for safety |\n\
         | 4 | a check found something wrong |\n\n\
         `pgkeep wal fetch`, which PostgreSQL calls as `restore_command`, has its own: 0 delivered, 1 does not exist, 200\n\
         everything else.\n\n\
         | code | exit | means | page |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let exit = match code.exit() {
            ExitClass::Failed => 1,
            ExitClass::Usage => 2,
            ExitClass::Refused => 3,
            ExitClass::Finding => 4,
        };
        let page = code.runbook().map_or_else(String::new, |page| format!("[{page}]({page})"));
        text += &format!("| `{}` | {exit} | {} | {page} |\n", code.as_str(), code.meaning().trim());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_committed_list_of_errors_is_fresh() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks/ERRORS.md");
        if std::env::var_os("PGKEEP_WRITE_GENERATED").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page(),
            "runbooks/ERRORS.md is stale: PGKEEP_WRITE_GENERATED=1 cargo test writes it anew"
        );
    }

    #[test]
    fn every_page_that_an_error_names_exists() {
        for code in Code::ALL {
            if let Some(page) = code.runbook() {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks").join(page);
                assert!(path.exists(), "{} names {page}", code.as_str());
            }
        }
    }
}
