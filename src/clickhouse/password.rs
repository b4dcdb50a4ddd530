//! The password out of its file: one line, and every other content is refused before it reaches a request.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest file that is read: one that never ends (`/dev/zero`) is refused as well.
const LONGEST_BYTES: u64 = 64 * 1024;

/// Reads the password, without the line's end.
///
/// # Errors
/// When the file cannot be read, or is not one line of text. The error repeats nothing of it.
pub fn read(path: &Path) -> Result<String> {
    let option = format!("--clickhouse-password-file {}", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_BYTES + 1).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {option}"))?;
    if bytes.len() as u64 > LONGEST_BYTES {
        bail!("{option}: this is not a password: the file is larger than 64 kB");
    }
    let Ok(text) = String::from_utf8(bytes) else { bail!("{option}: the password is not UTF-8") };
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!(
            "{option}: the file is empty: write the password into it, or leave the option out for a user without one"
        );
    }
    if password.contains(['\r', '\n']) {
        bail!("{option}: the file has several lines: only the password may be in it");
    }
    if password.starts_with('\u{feff}') || password.contains(char::is_control) {
        bail!("{option}: the file holds a byte order mark or a control character: only the password may be in it");
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::read;
    use std::path::Path;

    fn of(bytes: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path()).map_err(|error| error.to_string().replace(&file.path().display().to_string(), "FILE"))
    }

    #[test]
    fn a_password_is_the_line_without_its_end() {
        for bytes in ["secret", "secret\n", "secret\r\n", "secret\n\n"] {
            assert_eq!(of(bytes.as_bytes()).as_deref(), Ok("secret"));
        }
        assert_eq!(of(" zwei W\u{f6}rter = x ".as_bytes()).as_deref(), Ok(" zwei W\u{f6}rter = x "));
    }

    #[test]
    fn anything_else_is_refused_in_one_line_that_names_the_option_and_repeats_nothing() {
        let long = [b'x'; 70_000];
        for (bytes, why) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"secret\nother\n", "several lines"),
            (b"secret\n\nother", "several lines"),
            (b"secret\xff", "UTF-8"),
            (b"\xef\xbb\xbfsecret", "byte order mark"),
            (b"se\0cret", "control character"),
            (b"se\tcret", "control character"),
            (&long, "64 kB"),
        ] {
            let said = of(bytes).unwrap_err();
            assert!(said.starts_with("--clickhouse-password-file FILE: ") && said.contains(why), "{said}");
            assert!(!said.contains("cret") && !said.contains('\n'), "{said}");
        }
        for path in ["/", "/no/such/file"] {
            let said = format!("{:#}", read(Path::new(path)).unwrap_err());
            assert!(said.starts_with(&format!("cannot read --clickhouse-password-file {path}: ")), "{said}");
        }
        assert!(read(Path::new("/dev/zero")).unwrap_err().to_string().contains("64 kB"));
    }
}
