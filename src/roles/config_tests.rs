//! What the configuration accepts, refuses and shows.

use super::*;
use crate::adapters::system::SystemClock;

fn with_file(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fleet.toml");
    std::fs::write(&file, text).expect("a file");
    std::fs::write(folder.path().join("secret.txt"), "geheim\n").expect("a file");
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let sources = Sources { file: Some(file), environment: pairs(environment), flags: pairs(flags) };
    load(&sources).map(|loaded| loaded.config).map_err(|wrong| {
        wrong.iter().map(|problem| problem.to_string().replace(&folder.path().display().to_string(), "DIR")).collect()
    })
}

#[test]
fn the_stronger_source_wins() {
    let text = "default_region = 'FR'\n[batch]\npriority = 1\nsignature = 'file'\n[log]\nlevel = 'info'";
    let environment = [("SMSFLEET_BATCH__PRIORITY", "2"), ("SMSFLEET_LOG__LEVEL", "debug"), ("PATH", "/bin")];
    let config = with_file(text, &environment, &[("log.level", "trace")]).expect("it is valid");
    assert_eq!((config.default_region.as_str(), config.batch.signature.as_str()), ("FR", "file"));
    assert_eq!((config.batch.priority, config.log.level.as_str()), (2, "trace"));
    assert_eq!(config.batch.min_recipients_per_lane, 5_000, "the default stays");
}

#[test]
fn texts_of_the_environment_stay_as_they_were_written() {
    let environment = [
        ("SMSFLEET_BATCH__EXT_CODE", "007"),
        ("SMSFLEET_BATCH__SIGNATURE", "12"),
        ("SMSFLEET_BATCH__TENANT", "true"),
        ("SMSFLEET_ACCOUNTS__MAIN__SMPP__PASSWORD", "1234"),
    ];
    let config = with_file("", &environment, &[]).expect("it is valid");
    assert_eq!((config.batch.ext_code.as_str(), config.batch.signature.as_str()), ("007", "12"));
    assert_eq!(config.batch.tenant, "true");
    assert_eq!(config.accounts["main"].smpp.password.expose(), "1234");
}

#[test]
fn all_problems_are_told_at_once_with_key_place_and_the_nearest_key() {
    let text = "
        defualt_region = 'CN'
        [batch]
        priority = 'high'
        on_uncertain = 'hodl'
        [accounts.main]
        rate = -1
        [accounts.main.smpp]
        windw = 5
        password = 77
    ";
    let wrong = with_file(text, &[("SMSFLEET_LOG__LEVLE", "x")], &[]).expect_err("it is not valid");
    for expected in [
        "DIR/fleet.toml: defualt_region: is no key; did you mean `default_region`?",
        "DIR/fleet.toml: batch.priority: is string \"high\", and must be u8",
        "DIR/fleet.toml: batch.on_uncertain: is `hodl`; did you mean `hold`?",
        "DIR/fleet.toml: accounts.main.smpp.windw: is no key; did you mean `window`?",
        "environment: log.levle: is no key; did you mean `level`?",
    ] {
        assert!(wrong.iter().any(|problem| problem == expected), "{expected} is not in {wrong:#?}");
    }
    assert_eq!(wrong.len(), 7, "{wrong:#?}");
    assert!(wrong.iter().all(|problem| !problem.contains("77")), "a secret is shown: {wrong:#?}");
}

#[test]
fn secrets_come_from_files_and_are_never_printed() {
    let config = with_file("[accounts.main.smpp]\npassword_file = 'secret.txt'", &[], &[]).expect("it is valid");
    assert_eq!(config.accounts["main"].smpp.password.expose(), "geheim");
    let printed = toml::to_string(&config).expect("it is written");
    assert!(!printed.contains("geheim") && printed.contains("***"), "{printed}");
    let shown = toml::to_string(&config).expect("it is written");
    assert!(!shown.contains("geheim") && !shown.contains("secret.txt"), "{shown}");
    let wrong = with_file("[accounts.main.smpp]\npassword_file = 'nowhere.txt'", &[], &[]).expect_err("no such file");
    assert!(wrong[0].contains("accounts.main.smpp.password_file: cannot be read"), "{wrong:?}");
}

#[test]
fn a_secret_file_that_says_nothing_is_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret.txt").display().to_string();
    let named = [("accounts.main.smpp.password_file", path.as_str())];
    for text in ["", "\n", "\nbehind an empty line", "\r\n", "a\0b"] {
        std::fs::write(&path, text).expect("a file");
        let wrong = with_file("", &[], &named).expect_err("it is empty, or is no text");
        let expected = "command line: accounts.main.smpp.password_file: cannot be read: it is empty, or is no text";
        assert_eq!(wrong, [expected], "{text:?}");
    }
    std::fs::write(&path, "geheim").expect("a file");
    let config = with_file("", &[], &named).expect("it is valid");
    assert_eq!(config.accounts["main"].smpp.password.expose(), "geheim");
}

#[test]
fn no_duration_ends_behind_the_clocks() {
    let settings = [
        ("accounts.main.smpp", "enquire_link"),
        ("accounts.main.smpp", "reconnect_max"),
        ("accounts.main.http", "retry_max"),
        ("accounts.main", "answer_timeout"),
        ("accounts.main.receipts", "wait"),
        ("limits", "drain"),
        ("azure_tables.main", "retry_for"),
        ("object_stores.main", "retry_for"),
        ("serve", "stall_timeout"),
    ];
    for (table, key) in settings {
        for (number, is_fit) in [("315360000", true), ("315360001", false), ("1e19", false), ("inf", false), ("-1", false)] {
            let number = if number.parse::<i64>().is_ok() { format!("{number}.0") } else { number.to_owned() };
            let read = with_file(&format!("[{table}]\n{key} = {number}"), &[], &[]);
            let told = "seconds must be a number from 0 to 315360000, which is ten years";
            match read {
                Ok(_) => assert!(is_fit, "{table}.{key} = {number} is taken"),
                Err(wrong) => {
                    assert!(!is_fit, "{wrong:?}");
                    assert_eq!(wrong, [format!("DIR/fleet.toml: {table}.{key}: {told}")]);
                }
            }
        }
    }
}

#[test]
fn keys_of_object_stores_are_secrets_too() {
    let text =
        "[object_stores.main]\nbuckets = ['lists']\nsecret_file = 'secret.txt'\nsas = 'sv=1&sig=geheim2'\ntoken = 'geheim3'";
    let config = with_file(text, &[], &[]).expect("it is valid");
    assert_eq!(config.object_stores["main"].secret.expose(), "geheim");
    let printed = format!("{}{config:?}", toml::to_string(&config).expect("it is written"));
    assert!(!printed.contains("geheim"), "{printed}");
}

#[test]
fn a_file_that_is_no_toml_or_is_not_there_is_a_problem() {
    assert!(with_file("= nothing", &[], &[]).expect_err("no TOML")[0].contains("is no TOML"));
    let sources = Sources { file: Some("/nowhere/fleet.toml".into()), ..Sources::default() };
    assert!(load(&sources).expect_err("no file")[0].text.contains("cannot be read"));
}

#[test]
fn a_line_that_is_no_toml_is_named_and_not_shown() {
    let text = "data_dir = 'x'\n[accounts.main.smpp]\nhost = 'h'\npassword = \"Geheimwort";
    let problems = with_file(text, &[], &[]).expect_err("the quote is never closed");
    assert!(problems[0].contains("is no TOML: line 4, column ") && !problems[0].contains("Geheim"), "{problems:?}");
    let twice = with_file("data_dir = 'x'\ndata_dir = 'y'", &[], &[]).expect_err("the key comes twice");
    assert!(twice[0].contains("line 2, column 1: duplicate key"), "{twice:?}");
}

#[test]
fn values_and_keys_without_a_bottom_are_wrong_and_no_more() {
    for opening in ["[", "{a="] {
        let value = opening.repeat(100_000);
        let problems = with_file("", &[("SMSFLEET_BATCH__PRIORITY", &value)], &[]).expect_err("no number");
        assert!(problems[0].contains("batch.priority") && problems[0].len() < 300, "{}", problems[0].len());
    }
    let deep = "a.".repeat(50_000);
    assert!(with_file("", &[], &[(&deep, "1")]).expect_err("no key")[0].contains("is no key"));
    let file = format!("{deep}a = 1");
    assert!(with_file(&file, &[], &[]).expect_err("no key")[0].contains("recursion limit"));
    assert!(with_file(&format!("a = {}", "[".repeat(100_000)), &[], &[]).expect_err("no value")[0].contains("is no TOML"));
}

fn keys(prefix: &str, value: &serde_json::Value, into: &mut Vec<(String, bool)>) {
    match value {
        serde_json::Value::Object(map) if !map.is_empty() || prefix.is_empty() => {
            for (key, inner) in map {
                keys(&format!("{prefix}{}{key}", if prefix.is_empty() { "" } else { "." }), inner, into);
            }
        }
        other => into.push((prefix.to_owned(), other.is_null())),
    }
}

#[test]
fn the_reference_has_every_key_at_its_default() {
    use crate::roles::config::{AccountConfig, REFERENCE};
    use crate::roles::reach::{AzureTableConfig, ObjectStoreConfig};
    let mut defaults = Config::default();
    defaults.accounts.insert("example".into(), AccountConfig::default());
    defaults.object_stores.insert("example".into(), ObjectStoreConfig::default());
    defaults.azure_tables.insert("example".into(), AzureTableConfig::default());
    let read: Config = toml::from_str(REFERENCE).expect("the reference is valid");
    assert_eq!(
        serde_json::to_value(&read).expect("it is written"),
        serde_json::to_value(&defaults).expect("it is written"),
        "the reference's values are not the defaults"
    );
    let written: toml::Value = toml::from_str(REFERENCE).expect("the reference is TOML");
    let (mut expected, mut there) = (vec![], vec![]);
    keys("", &serde_json::to_value(&defaults).expect("it is written"), &mut expected);
    keys("", &serde_json::to_value(&written).expect("it is written"), &mut there);
    for (key, optional) in &expected {
        let last = key.rsplit('.').next().unwrap_or(key);
        let commented = REFERENCE.lines().any(|line| line.starts_with(&format!("# {last} = ")));
        let found = there.iter().any(|(known, _)| known == key);
        assert!(found || commented && *optional, "{key} is not in the reference");
    }
}

#[test]
fn relations_between_values_are_checked() {
    let text = "
        default_region = 'China'
        [batch]
        priority = 11
        ext_code = '1a'
        [accounts.main]
        rate = 0
        [accounts.main.hours]
        from = '08:00'
        to = '22:00'
        zone = 'Mars/Base'
        [accounts.main.receipts]
        wait = 8640000
        [sources]
        folders = ['lists']
        [object_stores.main]
        buckets = ['lists']
        [azure_tables.main]
        account = 'acme'
        [azure_tables.'a/b']
        account = 'acme'
        sas = 'sv=1&sig=x'
        [trace]
        sample = 2
        [uploads]
        max_mb = 0
    ";
    let wrong = with_file(text, &[], &[]).expect("the types are right").check(&SystemClock);
    let keys: Vec<&str> = wrong.iter().map(|(key, _)| key.as_str()).collect();
    let expected = ["default_region", "batch.ext_code", "batch.priority"];
    assert_eq!(keys[..3], expected, "{wrong:?}");
    for key in [
        "accounts.main.rate",
        "accounts.main.hours.zone",
        "accounts.main.receipts.wait",
        "sources.folders",
        "object_stores.main.access_key_id",
        "trace.sample",
        "azure_tables.main.secret",
        "azure_tables.a/b",
        "uploads.max_mb",
    ] {
        assert!(keys.contains(&key), "{key} is not in {wrong:?}");
    }
}

#[test]
fn what_names_other_data_is_kept_as_long_as_that() {
    let wrong = |days: &str| {
        let config = with_file(&format!("[retention]\n{days}"), &[], &[]).expect("the types are right");
        config.check(&SystemClock).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(wrong("history_days = 14"), ["retention.history_days"], "texts are kept for 30");
    assert_eq!(wrong("batch_days = 30"), ["retention.batch_days"], "history is kept for 90");
    assert_eq!(wrong("texts_days = 7\nhistory_days = 7\nbatch_days = 7"), [] as [&str; 0]);
}

#[test]
fn a_secret_of_a_file_is_read_again_when_the_file_changes_wherever_the_file_was_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fleet.toml");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write("fleet.toml", "[accounts.main.smpp]\npassword_file = 'a.txt'\n[accounts.other.http]\nsecret = 'plain'");
    write("a.txt", "first");
    write("b.txt", "first");
    let named = ("SMSFLEET_ACCOUNTS__OTHER__SMPP__PASSWORD_FILE".to_owned(), folder.path().join("b.txt").display().to_string());
    let loaded = load(&Sources { file: Some(file), environment: vec![named], flags: vec![] }).expect("it is valid");
    let accounts = &loaded.config.accounts;
    for name in ["main", "other"] {
        assert_eq!(accounts[name].smpp.password.now().expose(), "first", "{name}");
    }
    write("a.txt", "the second");
    write("b.txt", "the second");
    for name in ["main", "other"] {
        assert_eq!(accounts[name].smpp.password.now().expose(), "the second", "{name}");
        assert_eq!(accounts[name].smpp.password.expose(), "first", "{name}: what was checked at the start");
    }
    assert_eq!(accounts["other"].http.secret.now().expose(), "plain");
}

#[test]
fn a_process_is_given_more_time_without_a_sign_than_any_server_takes_to_time_out() {
    let wrong = |text: &str| {
        let config = with_file(text, &[], &[]).expect("it can be read");
        config.check(&SystemClock).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(wrong(""), [""; 0]);
    assert_eq!(wrong("[limits]\nstandstill = 59.0"), ["limits.standstill"]);
    assert_eq!(wrong("[limits]\nstandstill = 60.0"), [""; 0]);
    assert_eq!(wrong("[redis]\nresponse_timeout = 60.0"), ["limits.standstill"]);
    assert_eq!(wrong("[redis]\nresponse_timeout = 60.0\n[limits]\nstandstill = 121.0"), [""; 0]);
}
