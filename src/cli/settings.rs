//! Settings of librdkafka: flags, a file and a variable, which add up. Values are kept byte for byte, and never shown.

use super::values::Unseen;
use crate::kafka::{Setting, Settings};
use clap::Args;
use std::fs::File;
use std::io::Read;

const FLAG: &str = "--kafka";
const FILE: &str = "--kafka-file";
const VARIABLE: &str = "CLICKSTREAM_KAFKA";
const EXPECTED: &str = "expected KEY=VALUE, with a KEY of small letters, digits, dots and underscores";

/// The size limit of the file: an endless one (`/dev/zero`) is refused as well.
const LONGEST_BYTES: u64 = 1024 * 1024;

/// The beginning of a PEM text's marks (RFC 7468).
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// All settings of the file, or of the variable.
#[derive(Clone, Debug)]
struct Lines(Vec<Setting>);

/// The settings of a command. A flag overrides the file, the file overrides the variable, and a later setting overrides earlier ones.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingArgs {
    /// A setting of librdkafka; may be repeated, and adds to --kafka-file and CLICKSTREAM_KAFKA (one setting a line)
    #[arg(long = "kafka", value_name = "KEY=VALUE", value_parser = Unseen(flag))]
    flags: Vec<Setting>,

    /// A file with settings of librdkafka, one a line: for secrets, because other users can see flags and variables
    #[arg(long = "kafka-file", value_name = "FILE", env = "CLICKSTREAM_KAFKA_FILE", value_parser = Unseen(file))]
    file: Option<Lines>,

    /// For the variable: clap would ignore it beside a flag
    #[arg(long = "kafka-lines", env = VARIABLE, hide = true, value_parser = Unseen(variable))]
    lines: Option<Lines>,
}

impl SettingArgs {
    /// The settings in the order in which they apply.
    pub fn in_order(&self) -> Settings {
        self.lines.iter().chain(&self.file).flat_map(|lines| &lines.0).chain(&self.flags).cloned().collect()
    }
}

/// One flag is one setting.
fn flag(text: &str) -> Result<Setting, String> {
    setting(text, FLAG).ok_or_else(|| EXPECTED.into())
}

fn setting(text: &str, from: &'static str) -> Option<Setting> {
    let (key, value) = text.split_once('=')?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    (!key.is_empty() && key.bytes().all(plain)).then(|| Setting { key: key.into(), value: value.into(), from })
}

/// The settings in a file.
fn file(path: &str) -> Result<Lines, String> {
    if path.contains('=') {
        return Err(format!("expected the name of a file; a setting is given with {FLAG}"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {path}: {error}"))?;
    if bytes.len() as u64 > LONGEST_BYTES {
        return Err(format!("{path} is larger than 1 MB: is it the file with the settings?"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8"))?;
    lines(text.trim_start_matches('\u{feff}'), FILE).map_err(|why| format!("{path}, {why}"))
}

/// The settings in the variable.
fn variable(text: &str) -> Result<Lines, String> {
    lines(text, VARIABLE)
}

/// Parses one setting a line, without empty lines, comments (`#`) and blanks before a key. A value that begins a PEM text extends to
/// its end, and over further PEM texts that follow. Other values have one line, so no line can be taken for another setting.
fn lines(text: &str, from: &'static str) -> Result<Lines, String> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut open = None;
    for (nth, line) in (1..).zip(text.split('\n')) {
        let marked = |mark| line.trim_start().starts_with(mark);
        match settings.last_mut() {
            Some(pem) if open.is_some() || (marked(BEGIN) && pem.value.starts_with(BEGIN)) => {
                pem.value.push('\n');
                pem.value.push_str(line);
                open = if marked(END) { None } else { open.or(Some(nth)) };
            }
            _ if line.trim().is_empty() || line.trim_start().starts_with('#') => {}
            _ => {
                let new = setting(line.trim_start(), from);
                let mut new = new.ok_or_else(|| format!("line {nth}: {EXPECTED}"))?;
                if new.value.starts_with(BEGIN) && !new.value.contains(END) {
                    open = Some(nth);
                } else if new.value.ends_with('\r') {
                    // A line may end as on Windows.
                    new.value.pop();
                }
                settings.push(new);
            }
        }
    }
    match open {
        Some(nth) => Err(format!("line {nth}: the PEM text that begins here has no `{END}…` line")),
        None => Ok(Lines(settings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The last line of each would pass for a setting, if there were no end to look for.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIB+abc=\nab==\n-----END PRIVATE KEY-----";
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\r\nab==\r\n-----END CERTIFICATE-----\r";

    fn pairs(text: &str) -> Vec<(String, String)> {
        variable(text).unwrap().0.into_iter().map(|setting| (setting.key, setting.value)).collect()
    }

    #[test]
    fn a_flag_is_one_setting_byte_for_byte() {
        for value in ["two words", " a=b = ", "", "\ttrailing \n", "x\ny=z\n", KEY, "a,b;c 'd' \"e\" \\n", "ü"] {
            let setting = flag(&format!("sasl.password={value}")).unwrap();
            assert_eq!((setting.key.as_str(), setting.value.as_str()), ("sasl.password", value));
        }
    }

    #[test]
    fn a_text_that_is_not_a_setting_is_refused_and_not_repeated() {
        assert_eq!(flag("").unwrap_err(), EXPECTED);
        for text in ["secret", "=secret", "sasl password=secret", "sasl.password =secret", "c2VjcmV0Cg=="] {
            assert_eq!(flag(text).unwrap_err(), EXPECTED);
            assert_eq!(variable(&format!("a=b\n\n{text}")).unwrap_err(), format!("line 3: {EXPECTED}"));
        }
    }

    #[test]
    fn the_variable_has_one_setting_a_line() {
        let text = "\n  sasl.username=me\nsasl.password= two  words=\t \r\n\n\tlinger.ms=5";
        let expected = [("sasl.username", "me"), ("sasl.password", " two  words=\t "), ("linger.ms", "5")]
            .map(|(key, value)| (key.into(), value.into()));
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn a_pem_text_is_one_value_and_ends_where_it_says() {
        let text = format!("ssl.key.pem={KEY}\nssl.ca.pem={CERTIFICATE}\n{CERTIFICATE}\n\n{CERTIFICATE}\nacks=1\n");
        let chain = [CERTIFICATE; 3].join("\n");
        let expected = [("ssl.key.pem", KEY), ("ssl.ca.pem", &chain), ("acks", "1")];
        assert_eq!(pairs(&text), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let escaped = KEY.replace('\n', "\\n");
        assert_eq!(pairs(&format!("ssl.key.pem={escaped}\nacks=1"))[0].1, escaped, "byte for byte");
    }

    #[test]
    fn a_file_is_read_as_the_variable_is_and_none_of_it_is_repeated() {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        let path = scratch.path().to_str().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(path, bytes).unwrap();
            file(path).map(|lines| lines.0.into_iter().map(|setting| (setting.key, setting.value)).collect::<Vec<_>>())
        };
        let text = format!("\u{feff}# secret\r\nsasl.password=two # words\r\nssl.key.pem={KEY}\n  # more\n");
        let expected =
            [("sasl.password", "two # words"), ("ssl.key.pem", KEY)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
        for (bytes, why) in [
            (&b"sasl.password=secret\n\xff"[..], " is not UTF-8"),
            (b"acks=1\nsecret\n", ", line 2: expected KEY=VALUE"),
            (&[b'#'; 2_000_000], " is larger than 1 MB"),
        ] {
            let said = read(bytes).unwrap_err();
            assert!(said.starts_with(&format!("{path}{why}")) && !said.contains("secret"), "{said}");
        }
        assert!(file("/dev/zero").map(|lines| lines.0).unwrap_err().contains("larger than 1 MB"));
        assert!(file("/nope").map(|lines| lines.0).unwrap_err().starts_with("cannot read /nope: No such file"));
        let said = file("sasl.password=secret").map(|lines| lines.0).unwrap_err();
        assert!(said.contains("--kafka") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn no_line_of_a_variable_is_misread_in_silence() {
        for (text, line) in [
            ("acks=1\nlinger.ms", "line 2: "),
            ("ssl.key.pem=-----BEGIN PRIVATE KEY-----\nMIIB\nacks=1\n", "line 1: the PEM text"),
            ("ssl.key.pem=x\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----", "line 2: "),
            ("ssl.ca.pem=-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\nBB==", "line 4: "),
        ] {
            let why = variable(text).map(|lines| lines.0).unwrap_err();
            assert!(why.starts_with(line) && !why.contains("MIIB") && !why.contains("AA"), "{why}");
        }
    }

    #[test]
    fn flags_file_and_variable_add_up_and_a_flag_wins() {
        let args = SettingArgs {
            flags: vec![flag("acks=all").unwrap()],
            file: Some(lines("# ours\nacks=0\nssl.key.password=secret", FILE).unwrap()),
            lines: Some(variable("sasl.password=secret\nacks=1").unwrap()),
        };
        let settings = args.in_order();
        let order: Vec<_> = settings.iter().map(|setting| (setting.key.as_str(), setting.value.as_str())).collect();
        let secrets = [("sasl.password", "secret"), ("acks", "1"), ("acks", "0"), ("ssl.key.password", "secret")];
        assert_eq!(order, [&secrets[..], &[("acks", "all")]].concat());
        assert_eq!(settings.name("sasl.password"), "CLICKSTREAM_KAFKA sasl.password=…");
        assert_eq!(settings.name("ssl.key.password"), "--kafka-file ssl.key.password=…");
        assert_eq!(settings.name("acks"), "--kafka acks=…");
        assert!(!format!("{args:?} {settings:?}").contains("secret"), "{args:?} {settings:?}");
    }
}
