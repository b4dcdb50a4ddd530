//! Settings of librdkafka that are refused: with them, something would not hold that a command rests on.

use super::config::Settings;
use crate::printable::printable;
use anyhow::{Result, bail};
use rdkafka::ClientConfig;
use std::fs::{self, File};
use std::io;

/// Settings, and what would go wrong.
pub type Refused = &'static [(&'static str, &'static str)];

/// Those that no command takes.
pub const EVERYWHERE: Refused = &[
    ("bootstrap.servers", "the brokers are given with --brokers"),
    ("metadata.broker.list", "the brokers are given with --brokers"),
    ("topic.blacklist", "a client does not see a topic that is in it"),
    ("api.version.request", "without it a client cannot ask for the topic's id, which the rows carry"),
    (
        "api.version.fallback.ms",
        "without the brokers' versions a client cannot ask for the topic's id, which the rows carry",
    ),
    (
        "broker.version.fallback",
        "without the brokers' versions a client cannot ask for the topic's id, which the rows carry",
    ),
    ("enabled_events", "the client's reports would not arrive"),
    ("test.mock.num.brokers", "the client would ask brokers of its own, and not those of --brokers"),
];

/// Those that name a file, and whether a directory will do as well.
const FILES: &[(&str, bool)] = &[
    ("ssl.ca.location", true),
    ("ssl.certificate.location", false),
    ("ssl.key.location", false),
    ("ssl.crl.location", false),
    ("ssl.keystore.location", false),
    ("ssl.engine.location", false),
    ("https.ca.location", true),
    ("sasl.kerberos.keytab", false),
    ("sasl.oauthbearer.assertion.file", false),
    ("sasl.oauthbearer.assertion.private.key.file", false),
    ("sasl.oauthbearer.assertion.jwt.template.file", false),
];

/// Has librdkafka look in the usual places.
const PROBE: &str = "probe";

/// Refuses settings by name.
///
/// # Errors
/// With the first that is refused, as it was given, and why.
pub fn check(settings: &Settings, refused: Refused) -> Result<()> {
    for setting in settings.iter() {
        if let Some((_, why)) = refused.iter().find(|(key, _)| *key == setting.key) {
            bail!("{setting} cannot be set: {why}");
        }
    }
    Ok(())
}

/// Looks at the files that settings name: librdkafka says only that a client cannot be made.
///
/// # Errors
/// With the first that cannot be read, and the setting that names it.
pub fn check_files(settings: &Settings, config: &ClientConfig) -> Result<()> {
    for (key, may_be_directory) in FILES {
        let Some(path) = config.get(key).filter(|path| !path.is_empty()) else { continue };
        if *may_be_directory && path == PROBE {
            continue;
        }
        if let Err(error) = look_at(path, *may_be_directory) {
            bail!("{}: cannot read {}: {error}", settings.name(key), printable(path));
        }
    }
    Ok(())
}

fn look_at(path: &str, may_be_directory: bool) -> io::Result<()> {
    let found = fs::metadata(path)?;
    match found.is_dir() {
        true if may_be_directory => fs::read_dir(path).map(drop),
        true => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        // Opening a pipe would consume its contents.
        false if !found.is_file() => Ok(()),
        false => File::open(path).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Setting;
    use super::*;

    #[test]
    fn a_setting_that_is_refused_is_named_as_it_was_given_and_its_value_is_not() {
        let setting = |key: &str| Setting { key: key.into(), value: "s3cr3t".into(), from: "--kafka" };
        for (key, why) in EVERYWHERE {
            let given = [setting("client.id"), setting(key)].into_iter().collect();
            let said = check(&given, EVERYWHERE).unwrap_err().to_string();
            assert_eq!(said, format!("--kafka {key}=… cannot be set: {why}"));
        }
        let given = [setting("client.id"), setting("bootstrap.server")].into_iter().collect();
        check(&given, EVERYWHERE).unwrap();
    }

    #[test]
    fn a_file_that_is_named_can_be_read_and_a_directory_only_where_it_will_do() {
        let (file, directory) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        let said = |key: &str, path: &str| {
            let mut config = ClientConfig::new();
            config.set(key, path);
            check_files(&Settings::default(), &config).map_err(|error| error.to_string())
        };
        for (key, may_be_directory) in FILES {
            assert_eq!(said(key, file.path().to_str().unwrap()), Ok(()));
            assert_eq!(said(key, "/dev/null"), Ok(()));
            assert_eq!(said(key, ""), Ok(()));
            assert_eq!(said(key, directory.path().to_str().unwrap()).is_ok(), *may_be_directory, "{key}");
            assert_eq!(said(key, PROBE).is_ok(), *may_be_directory, "{key}");
            let missing = said(key, "/nope/\u{1b}[2J").unwrap_err();
            assert!(missing.starts_with(&format!("--kafka {key}=…: cannot read /nope/")), "{missing}");
            assert!(missing.contains("No such file") && !missing.contains('\u{1b}'), "{missing}");
        }
    }
}
