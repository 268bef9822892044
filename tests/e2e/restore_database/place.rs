//! Into a free name, beside, or in place of what is there.

use super::{count, nothing_changed, restore, restored, shop, whole_server};

#[test]
fn a_database_that_is_there_is_only_replaced_on_wish_and_kept() {
    let env = shop(15);
    env.pgkeep.run(["backup", "dump", "-d", "shop"]).ok();
    env.pg.session_in("shop").sql("truncate orders");
    let args = ["shop", "--from", "latest"];
    let before = whole_server(&env);
    restore(&env.pgkeep, &args).fails_with("not-empty", 3).says("--replace");
    restore(&env.pgkeep, &[&args[..], &["--overwrite"]].concat()).fails_with("usage", 2);
    restore(&env.pgkeep, &["postgres", "--from", "latest", "--replace"]).fails_with("refused", 3);

    let user = env.pg.session_in("shop");
    let pid = user.one("select pg_backend_pid()");
    let replace = [&args[..], &["--replace"]].concat();
    let ran = restore(&env.pgkeep, &replace).fails_with("refused", 3);
    assert!(
        ran.stderr.contains(&format!("(test), process {pid}")) && ran.stderr.contains("--terminate"),
        "{ran}"
    );
    nothing_changed(&env, &before, "refused");
    // Whoever comes back at once does not hold it up.
    let report = restored(&env, &[&replace[..], &["--terminate"]].concat());
    assert!(user.try_sql("select 1").is_err());
    let kept = report["kept_as"].as_str().unwrap().to_owned();
    assert!(kept.starts_with("shop_before_20"), "{report}");
    assert_eq!((count(&env, "shop", "orders"), count(&env, &kept, "orders")), (1500, 0));

    // Its subscription keeps the kept one from being dropped by accident; the new one has one too.
    let drop_subscription = "alter subscription s set (slot_name = none); drop subscription s";
    env.pg.session_in("shop").sql(drop_subscription);
    let report = restored(&env, &[&replace[..], &["--overwrite"]].concat());
    assert_eq!((&report["dropped"], &report["kept_as"]), (&true.into(), &().into()));
    let all = "select string_agg(datname, ',' order by datname) from pg_database where datname like 'shop%'";
    assert_eq!(env.pg.one(all), format!("shop,{kept}"));
}
