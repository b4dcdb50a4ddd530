//! Options: a value of a variable or a flag is taken as it is, or refused at once by its own name. It is never repeated
//! if it may be a secret.

use crate::support::process::Program;
use crate::support::test_env::TestEnv;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A closed port, for which a command would wait.
const NO_BROKER: [&str; 4] = ["--brokers", "127.0.0.1:1", "--connect-timeout", "5m"];
/// The deadline, on any machine, of an error that needs no waiting.
const NO_WAIT_DEADLINE: Duration = Duration::from_secs(60);

/// A self-signed certificate, valid for 100 years.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIUEcrWmMvOTfdFoOXL4PpouMQQgUkwCgYIKoZIzj0EAwIw
GzEZMBcGA1UEAwwQY2xpY2tzdHJlYW0tdGVzdDAgFw0yNjExMjgxMzAzMjhaGA8y
MTI2MTEwNDEzMDMyOFowGzEZMBcGA1UEAwwQY2xpY2tzdHJlYW0tdGVzdDBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABL6UDuXFPcElGLM/+78gXCsiZm6DV4HDeLwh
8wf2TqvuiND+/WZWGam4iz+CgPnDC4JRHazpKMI0hwdw7rjLrMOjUzBRMB0GA1Ud
DgQWBBT4Vfblo4aVpVhl1pBlm5mGVZkK/jAfBgNVHSMEGDAWgBT4Vfblo4aVpVhl
1pBlm5mGVZkK/jAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIHyh
P6wInmikaj1ZALps202yjas35WWyr19nwEqoWB/aAiEA17dx6DOxNiFQ5QLtxD/c
Y0eIO1B33oWmNEqMy/o7Zqo=
-----END CERTIFICATE-----";

/// The exit code, and all that it has said.
#[track_caller]
fn said(mut program: Program) -> (Option<i32>, String) {
    let code = program.exit_code(NO_WAIT_DEADLINE);
    (code, program.stdout() + &program.stderr())
}

#[track_caller]
fn refused(program: Program, code: i32, names: &[&str]) -> String {
    let (found, text) = said(program);
    assert_eq!(found, Some(code), "{text}");
    assert!(names.iter().all(|name| text.contains(name)), "it names {names:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// The commands, and the options and variables of each, as the help has them.
fn commands(env: &TestEnv) -> Vec<(String, String)> {
    let help = said(env.run("--help", &[])).1;
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let names = list.lines().take_while(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(|name| (name.to_owned(), said(env.run(name, &["--help"])).1)).collect()
}

fn variables(help: &str) -> BTreeSet<&str> {
    let words = help.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| word.starts_with("CLICKSTREAM_")).collect()
}

#[test]
fn an_empty_variable_is_not_set() {
    let env = TestEnv::open();
    for (name, help) in commands(&env) {
        let empty: Vec<_> = variables(&help).into_iter().map(|name| (name, "")).collect();
        assert!(help.contains("CLICKSTREAM_LOG"), "{help}");
        // The help still shows the variable, and every command gets as far as without it.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        // A variable that has a value stands in a line of its own.
        let (code, shown) = said(env.run_with(&name, &["--help"], &empty));
        assert_eq!((code, words(&shown)), (Some(0), words(&help)));
        let args: &[&str] = match name.as_str() {
            "secrets" => &["secrets-here"],
            "completions" => &["zsh"],
            "man" => &["pages-here"],
            "report" => &["no-such-file"],
            "health" => &["--metrics", "127.0.0.1:1"],
            "demo" => &["--data-dir", "/dev/null/nowhere"],
            "dashboard" => &["--clickhouse-password-file", "nowhere"],
            "erase" => &["--user", "x", "--clickhouse-password-file", "nowhere"],
            _ => &["--brokers", "127.0.0.1:1", "--connect-timeout", "1ms"],
        };
        let code = said(env.run(&name, args)).0;
        assert_ne!(code, Some(2), "{name}");
        assert_eq!(said(env.run_with(&name, args, &empty)).0, code, "{name}");
    }
    let (code, text) = said(env.run_with("health", &[], &[("CLICKSTREAM_METRICS", "")]));
    assert!(code == Some(2) && text.contains("--metrics <HOST:PORT>"), "required as ever: {text}");
}

#[test]
fn a_value_that_is_refused_is_refused_by_the_name_of_its_variable() {
    let env = TestEnv::bare();
    for (command, variable, value) in [
        ("ingest", "CLICKSTREAM_BATCH_ROWS", "many"),
        ("ingest", "CLICKSTREAM_BATCH_TIMEOUT", "5"),
        ("ingest", "CLICKSTREAM_TOPIC", "a b"),
        ("ingest", "CLICKSTREAM_DATABASE", "a-b"),
        ("ingest", "CLICKSTREAM_UNTIL_END", "maybe"),
        ("ingest", "CLICKSTREAM_CLICKHOUSE_URL", "localhost:8123"),
        ("ingest", "CLICKSTREAM_METRICS", "9000"),
        ("ingest", "CLICKSTREAM_LOG", "verbose"),
        ("ingest", "CLICKSTREAM_LOG_FORMAT", "xml"),
        ("health", "CLICKSTREAM_METRICS", "9000"),
        ("health", "CLICKSTREAM_READY", "perhaps"),
        ("dashboard", "CLICKSTREAM_LISTEN", "3000"),
        ("dashboard", "CLICKSTREAM_ALLOW_HOST", "a.example http://b.example"),
        ("demo", "CLICKSTREAM_RATE", "20000"),
        ("demo", "CLICKSTREAM_OPEN", "maybe"),
        ("produce", "CLICKSTREAM_FAULTS", "bad=2"),
        ("produce", "CLICKSTREAM_SEED", "x"),
        ("produce", "CLICKSTREAM_BROKERS", "localhost"),
        ("setup", "CLICKSTREAM_PARTITIONS", "0"),
        ("setup", "CLICKSTREAM_KAFKA", "linger.ms"),
        ("secrets", "CLICKSTREAM_SECRETS_MODE", "755"),
    ] {
        let args = if command == "secrets" { &["x"][..] } else { &[] };
        // Other good variables, and another bad one, do not change that.
        let environment = [("CLICKSTREAM_IN_FLIGHT", "4"), (variable, value), ("CLICKSTREAM_USERS", "5")];
        let text = refused(env.run_with(command, args, &environment), 2, &[&format!("error: {variable}: ")]);
        assert_eq!(text.matches("error:").count(), 1, "{text}");
    }
    // An error about a flag names the flag, for any variables; and a good flag overrides its variable.
    let environment = [("CLICKSTREAM_BATCH_ROWS", "many")];
    let text = refused(env.run_with("ingest", &["--in-flight", "0"], &environment), 2, &["--in-flight"]);
    assert!(!text.contains("CLICKSTREAM_"), "{text}");
    // Nor is a variable to blame for an option that is missing, or does not go with another one.
    let environment = [
        ("CLICKSTREAM_CLICKHOUSE_URL", "http://127.0.0.1:1"),
        ("CLICKSTREAM_BROKERS", "127.0.0.1:1"),
        ("CLICKSTREAM_READY", "1"),
    ];
    for args in [&["erase"][..], &["erase", "--user", "u", "--where", "1"], &["rejects", "--yes"], &["health"]] {
        let text = refused(env.run_with(args[0], &args[1..], &environment), 2, &["error: the "]);
        assert!(!text.contains("CLICKSTREAM_"), "{text}");
    }
    for args in [["produce", "--for", "0s"], ["ingest", "--batch-timeout", "0ms"]] {
        refused(env.run(args[0], &args[1..]), 2, &[args[1], "expected more than nothing"]);
    }
    let environment = [("CLICKSTREAM_BATCH_ROWS", "many")];
    let args = ["--batch-rows", "5", "--brokers", "127.0.0.1:1", "--connect-timeout", "1ms"];
    refused(env.run_with("ingest", &args, &environment), 1, &["Kafka"]);
}

#[test]
fn a_log_of_json_has_an_object_on_each_line_up_to_the_error_that_ends_the_program() {
    let env = TestEnv::bare();
    let near = ["--brokers", "127.0.0.1:1", "--connect-timeout", "1ms"];
    let mut program = env.run("setup", &[&near[..], &["--log", "debug", "--log-format", "json"]].concat());
    assert_eq!(program.exit_code(NO_WAIT_DEADLINE), Some(1));
    let text = program.stderr();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for line in &lines {
        assert!(["timestamp", "level", "message"].iter().all(|name| line[name].is_string()), "{line}");
    }
    let last = lines.last().expect("the error");
    assert!(last["level"] == "ERROR" && last["message"].as_str().unwrap().contains("Kafka"), "{text}");
    // A level that is off leaves the error.
    let mut program = env.run_with("setup", &near, &[("CLICKSTREAM_LOG_FORMAT", "json"), ("CLICKSTREAM_LOG", "off")]);
    assert_eq!(program.exit_code(NO_WAIT_DEADLINE), Some(1));
    assert_eq!(program.stderr().lines().count(), 1, "{}", program.stderr());
}

#[test]
fn a_switch_is_a_variable_as_people_write_it() {
    let env = TestEnv::open();
    env.produce(&["--count", "10", "--rate", "max"]).finish();
    for word in ["1", "true", "YES", "on"] {
        env.run_with("ingest", &[], &[("CLICKSTREAM_UNTIL_END", word)]).succeeds();
    }
    for word in ["0", "false", "no", "off", ""] {
        let mut ingester = env.run_with("ingest", &[], &[("CLICKSTREAM_UNTIL_END", word)]);
        ingester.says("lease opened", 1);
        ingester.drains();
    }
    assert_eq!(env.stored(), 10);
}

#[test]
fn addresses_without_a_host_or_a_port_are_wrong_usage() {
    let env = TestEnv::bare();
    for args in [
        ["ingest", "--metrics", "9000"],
        ["produce", "--metrics", ":9000"],
        ["health", "--metrics", "9000"],
        ["dashboard", "--listen", "9000"],
        ["ingest", "--brokers", "localhost"],
        ["produce", "--brokers", "http://localhost:9092"],
        ["setup", "--brokers", "localhost:9092,"],
        ["audit", "--brokers", ""],
        ["rejects", "--brokers", "a:1,,b:2"],
    ] {
        refused(env.run(args[0], &args[1..]), 2, &[args[1], "HOST:PORT"]);
    }
}

#[test]
fn settings_of_flags_and_variable_add_up_and_a_flag_wins() {
    let env = TestEnv::open();
    env.produce(&["--count", "10", "--rate", "max"]).finish();
    let lines = [("CLICKSTREAM_KAFKA", "max.poll.interval.ms=59999\nfetch.wait.max.ms=50\n")];
    refused(
        env.run_with("ingest", &["--kafka", "fetch.min.bytes=1"], &lines),
        1,
        &["CLICKSTREAM_KAFKA max.poll.interval.ms=…", "60000"],
    );
    let args = ["--until-end", "--kafka", "max.poll.interval.ms=60000"];
    env.run_with("ingest", &args, &lines).succeeds();
    assert_eq!(env.stored(), 10);
    for (flags, lines, name) in [
        (&[][..], "no.such.setting=1", "CLICKSTREAM_KAFKA no.such.setting=…"),
        (&["--kafka", "no.such.setting=1"], "linger.ms=5", "--kafka no.such.setting=…"),
        (&["--kafka", "fetch.wait.max.ms=soon"], "fetch.wait.max.ms=5", "--kafka fetch.wait.max.ms=…"),
    ] {
        refused(env.run_with("ingest", flags, &[("CLICKSTREAM_KAFKA", lines)]), 1, &[name]);
    }
}

#[test]
fn a_pem_text_reaches_the_client_whole_from_a_flag_and_from_the_variable() {
    let env = TestEnv::bare();
    let broken = CERTIFICATE.replace("MIIB", "MIIC");
    for (pem, code) in [(CERTIFICATE, "no answer from Kafka"), (&broken, "cannot set up the Kafka client")] {
        let ca = format!("ssl.ca.pem={pem}");
        let lines = format!("security.protocol=ssl\n{ca}\nclient.id=two words\n");
        let args = ["--brokers", "127.0.0.1:1", "--connect-timeout", "1ms", "--kafka", "security.protocol=ssl"];
        refused(env.run("setup", &[&args[..], &["--kafka", &ca]].concat()), 1, &[code]);
        refused(env.run_with("setup", &args, &[("CLICKSTREAM_KAFKA", &lines)]), 1, &[code]);
    }
}

#[test]
fn a_possible_secret_is_never_repeated() {
    const SECRET: &str = "hunter2 is";
    let env = TestEnv::bare();
    let password = format!("sasl.password={SECRET}");
    let sasl = format!("security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username=me\n{password}");
    let pem = format!("ssl.key.pem=-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----");
    let trace = ("CLICKSTREAM_LOG", "trace");
    let near = ["--brokers", "127.0.0.1:1", "--connect-timeout", "1s", "--kafka", "debug=all"];
    for (command, args, environment) in [
        // It works, and says all it can.
        ("setup", &near[..], vec![trace, ("CLICKSTREAM_KAFKA", &*sasl)]),
        ("produce", &[&near[..], &["--kafka", &password]].concat(), vec![trace]),
        (
            "ingest",
            &[&near[..], &["--kafka", "security.protocol=ssl"]].concat(),
            vec![trace, ("CLICKSTREAM_KAFKA", &*pem)],
        ),
        // It is refused.
        ("ingest", &["--kafka", SECRET], vec![]),
        ("ingest", &["--kafka", &format!("={SECRET}")], vec![]),
        ("ingest", &["--kafka", "sasl.password=", "hunter2", "is"], vec![]),
        ("ingest", &["--kafka", "sasl.password=my", "hunter2"], vec![]),
        ("ingest", &["--kafka", &format!("batch.size={SECRET}")], vec![]),
        ("ingest", &["--brokers", "http://me:hunter2@localhost:9092"], vec![]),
        ("ingest", &[], vec![("CLICKSTREAM_KAFKA", SECRET)]),
        ("ingest", &[], vec![("CLICKSTREAM_KAFKA", &*pem.replace("-----END", "----END"))]),
        ("ingest", &[], vec![("CLICKSTREAM_KAFKA", &*format!("acks=1\nbatch.size={SECRET}"))]),
        ("ingest", &[], vec![("CLICKSTREAM_BROKERS", "http://me:hunter2@localhost:9092")]),
        ("ingest", &["--help"], vec![("CLICKSTREAM_KAFKA", &*password), ("CLICKSTREAM_TOPIC", "hunter2")]),
        ("ingest", &["--in-flight", "0"], vec![("CLICKSTREAM_KAFKA", &*password)]),
    ] {
        let (code, text) = said(env.run_with(command, args, &environment));
        assert!(code == Some(1) || code == Some(2) || args == ["--help"], "{args:?}: {code:?} {text}");
        assert!(!text.contains("hunter2"), "{args:?}: {text}");
    }
    let file = env.file("password");
    std::fs::write(&file, "hunter2\nhunter2\n").unwrap();
    let with_file = ["--clickhouse-password-file", file.to_str().unwrap()];
    let args = [&NO_BROKER[..], &with_file].concat();
    assert!(!refused(env.run("ingest", &args), 1, &["several lines"]).contains("hunter2"));
    // ClickHouse is told, and refuses it.
    std::fs::write(&file, "hunter2 \u{fc}").unwrap();
    let text = refused(env.run_with("setup", &with_file, &[trace]), 1, &["Authentication failed"]);
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_password_file_is_checked_before_any_service_is_waited_for() {
    let env = TestEnv::bare();
    let empty = env.file("empty");
    std::fs::write(&empty, "\n").unwrap();
    let mut found = 0;
    for (name, help) in commands(&env) {
        if !help.contains("--clickhouse-password-file") {
            continue;
        }
        found += 1;
        let flags: &[&str] = match name.as_str() {
            "erase" => &["--user", "x"],
            // It asks Kafka all the same.
            "check" => &["--brokers", "127.0.0.1:1", "--connect-timeout", "1s"],
            _ if help.contains("--brokers") => &NO_BROKER,
            _ => &[],
        };
        for (file, why) in [("/nope", "No such file"), ("/", "Is a directory"), (empty.to_str().unwrap(), "empty")] {
            let began = Instant::now();
            let args = [flags, &["--clickhouse-password-file", file]].concat();
            refused(env.run(&name, &args), 1, &["--clickhouse-password-file", file, why]);
            assert!(began.elapsed() < NO_WAIT_DEADLINE, "{name}");
        }
    }
    assert!(found >= 5, "{found} commands");
}

#[test]
fn a_file_to_be_written_is_checked_before_any_service_is_waited_for() {
    let env = TestEnv::bare();
    let nowhere = "no/such/directory/file";
    for (command, option) in [("produce", "--manifest"), ("produce", "--latency-log"), ("ingest", "--latency-log")] {
        for file in [nowhere, "/"] {
            refused(env.run(command, &[&NO_BROKER[..], &[option, file]].concat()), 1, &[option, file]);
        }
    }
    // Before a log is read; and a report that was there is not lost when there is none to take its place.
    for file in [nowhere, "/"] {
        refused(env.run("report", &["no-such-log", "--output", file]), 1, &["--output", file]);
    }
    let (report, new) = (env.file("report"), env.file("new"));
    std::fs::write(&report, "an older report").unwrap();
    for file in [&report, &new] {
        refused(env.run("report", &["no-such-log", "--output", file.to_str().unwrap()]), 1, &["no-such-log"]);
    }
    assert_eq!((std::fs::read_to_string(&report).unwrap().as_str(), new.exists()), ("an older report", false));
    // Before a ClickHouse is looked for or fetched.
    for dir in ["/dev/null/data", "/dev/null"] {
        refused(env.run_with("demo", &["--data-dir", dir], &NO_DOWNLOAD), 1, &["--data-dir", dir]);
    }
}

/// A demo that gets as far as looking for a ClickHouse ends there.
const NO_DOWNLOAD: [(&str, &str); 3] =
    [("PATH", ""), ("CLICKSTREAM_CACHE", "/nowhere"), ("CLICKSTREAM_CLICKHOUSE", "embedded")];

#[test]
fn a_data_directory_that_others_have_prepared_is_refused_and_no_link_in_it_is_followed() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let env = TestEnv::bare();
    let (data, precious) = (env.file("data"), env.file("precious"));
    std::fs::write(&precious, "precious").unwrap();
    std::fs::create_dir(&data).unwrap();
    let demo = || env.run_with("demo", &["--data-dir", data.to_str().unwrap()], &NO_DOWNLOAD);
    for mode in [0o777, 0o1777, 0o775] {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
        refused(demo(), 1, &["--data-dir", "other users may write", "chmod go-w"]);
    }
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["lock", "clickhouse.xml", "clickhouse.sql"] {
        let link = data.join(name);
        symlink(&precious, &link).unwrap();
        refused(demo(), 1, &["cannot write", "symbolic link"]);
        std::fs::remove_file(link).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}
