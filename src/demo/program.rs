//! Which ClickHouse the demo runs: one of this machine, or libchdb, which is fetched once.

use super::parent_death::ends_with_us;
use crate::clickhouse::users::hex;
use crate::{output, private};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fs::{self, File};
use std::io::{BufReader, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The library: the same version and checksum as in `ci/clickhouse.sh`, in the same place of the same cache.
const VERSION: &str = "26.7.3-stable.1";
const PACKAGE: &str = "lib-linux-x64-gnu";
const INTEGRITY: &str =
    "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==";
/// The SHA-256 of the library itself, which is checked before each time that it is loaded. Half a second where the processor has
/// instructions for it; the SHA-512 of the package would take four times as long.
const LIBRARY_SHA256: &str = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5";
/// The approximate size of the download, for the progress bar.
const BYTES: u64 = 178_000_000;

/// A ClickHouse that can be started.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Program {
    /// A `clickhouse` of this machine.
    Installed(PathBuf),
    /// libchdb.
    Library(PathBuf),
}

impl Program {
    /// The one on the PATH, else the library from the cache, else the library, fetched now.
    ///
    /// # Errors
    /// When there is neither and none can be fetched; says what to install.
    pub fn find() -> Result<Self> {
        let embedded = std::env::var_os("CLICKSTREAM_CLICKHOUSE").is_some_and(|which| which == "embedded");
        if let Some(program) = on_path("clickhouse").filter(|_| !embedded) {
            return Ok(Self::Installed(program));
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!(
                "no ClickHouse found: install one, so that `clickhouse` is on the PATH (see clickhouse.com/docs/install)"
            );
        }
        let cache = cache()?;
        let dir = cache.join(format!("{PACKAGE}-{VERSION}"));
        let library = dir.join("libchdb.so");
        if !library.exists() {
            fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
            // `ci/stack` takes this lock, too: the second process finds the library in the cache.
            let lock =
                private::file().write(true).create(true).open(cache.join("lock")).context("cannot lock the cache")?;
            lock.lock().context("cannot lock the cache")?;
            if !library.exists() {
                fetch(&cache, &dir)?;
            }
        }
        Ok(Self::Library(library))
    }

    /// The program's name, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Installed(path) => path.display().to_string(),
            Self::Library(_) => format!("embedded {}", VERSION.split('-').next().unwrap_or(VERSION)),
        }
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("CLICKSTREAM_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("clickstream")))
        .or_else(|| variable("HOME").map(|dir| dir.join(".cache/clickstream")))
        .context("no directory for downloads: set CLICKSTREAM_CACHE")
}

/// Fetches the library through npm, checks it, and only then puts it in its place. npm's own cache lies beside it meanwhile,
/// so a run that is cut short after the download does not fetch again.
fn fetch(cache: &Path, dir: &Path) -> Result<()> {
    if on_path("npm").is_none() {
        bail!(
            "no ClickHouse found: install one, so that `clickhouse` is on the PATH, or install npm, which downloads it"
        );
    }
    let (partial, npm_cache) = (cache.join("partial"), cache.join("npm"));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let package = format!("@chdb/{PACKAGE}@{VERSION}");
    let mut npm = Command::new("npm");
    npm.args(["pack", "--loglevel=error", "--cache"]).arg(&npm_cache).arg(&package).current_dir(&partial);
    let mut npm = ends_with_us(npm.stdin(Stdio::null()).stdout(Stdio::null())).spawn().context("cannot run npm")?;
    let bar = ProgressBar::new(BYTES);
    let template = "ClickHouse  downloading {bytes} of {total_bytes} {wide_bar} {eta}";
    bar.set_style(ProgressStyle::with_template(template).expect("a constant template that is valid"));
    if !std::io::stderr().is_terminal() {
        output::line(format_args!("ClickHouse  downloading {package}, {} MB, once", BYTES / 1_000_000))?;
    }
    let mut looked = Instant::now();
    let status = loop {
        if let Some(status) = npm.try_wait()? {
            break status;
        }
        std::thread::park_timeout(Duration::from_millis(100));
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            bar.set_position(size(&npm_cache).min(BYTES));
        }
    };
    bar.finish_and_clear();
    if !status.success() {
        bail!("npm could not download {package} ({status}): run this again, or install ClickHouse");
    }
    let archive = only_file(&partial)?;
    let found = integrity(&archive)?;
    if found != INTEGRITY {
        let _ = fs::remove_dir_all(&npm_cache);
        bail!("{package} has another checksum than the pinned one: {found}");
    }
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .args(["--strip-components=1", "package/libchdb.so"])
        .current_dir(&partial)
        .status()
        .context("cannot run tar: install it")?;
    if !unpacked.success() {
        bail!("tar could not unpack {} ({unpacked}): is the disk full?", archive.display());
    }
    fs::remove_file(&archive)?;
    fs::rename(&partial, dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _ = fs::remove_dir_all(&npm_cache);
    Ok(())
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let found = fs::read_dir(dir)?.next().context("npm downloaded no file")??;
    Ok(found.path())
}

/// Opens the library, if it is the pinned one and nobody else can change it.
///
/// # Errors
/// When it is not. The error names the file to remove.
pub fn verified(library: &Path) -> Result<File> {
    let file = File::open(library).with_context(|| format!("cannot read {}", library.display()))?;
    let about = file.metadata()?;
    if ![rustix::process::geteuid().as_raw(), 0].contains(&about.uid()) || about.mode() & 0o022 != 0 {
        bail!(
            "{} was not loaded: other users may change it; remove it, and `demo` downloads it again",
            library.display()
        );
    }
    let found = hex(&sum::<Sha256>(&file)?);
    if found != LIBRARY_SHA256 {
        bail!(
            "{} was not loaded: it is not the pinned ClickHouse (its SHA-256 is {found}); remove it, and `demo` downloads it again",
            library.display()
        );
    }
    Ok(file)
}

/// The checksum of a file, as npm writes it.
fn integrity(file: &Path) -> Result<String> {
    Ok(format!("sha512-{}", BASE64_STANDARD.encode(sum::<Sha512>(&File::open(file)?)?)))
}

fn sum<D: Digest>(file: &File) -> Result<Vec<u8>> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut sum, mut part) = (D::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut part)? {
            0 => break,
            read => sum.update(&part[..read]),
        }
    }
    Ok(sum.finalize().to_vec())
}

/// The bytes of the files in a directory that another process fills.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let about = entry.metadata().ok()?;
        Some(if about.is_dir() { size(&entry.path()) } else { about.len() })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_and_the_stack_run_the_same_library() {
        let stack = include_str!("../../ci/clickhouse.sh");
        assert!(stack.contains(&format!("libchdb_version={VERSION}\n")) && stack.contains(INTEGRITY));
        assert!(stack.contains(PACKAGE));
    }

    #[test]
    fn a_library_that_others_may_change_or_have_changed_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = || verified(file.path()).unwrap_err().to_string();
        assert!(refused().contains("it is not the pinned ClickHouse"), "{}", refused());
        for mode in [0o666, 0o620] {
            fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            assert!(refused().contains("other users may change it"), "{}", refused());
        }
    }

    #[test]
    fn a_checksum_is_written_as_npm_writes_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let expected =
            "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";
        assert_eq!(integrity(file.path()).unwrap(), expected);
    }
}
