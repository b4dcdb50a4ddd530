//! What is kept of a seat: a file that is locked, with a name and a time.

use crate::private;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// More ingesters of one group on one machine than anybody starts.
const SEATS: u32 = 1_000;
/// Digits of a time in a file: all of them have the same length, so that each overwrites the one before.
const DIGITS: usize = 19;
/// A predecessor of whom nothing is known.
pub(super) const UNKNOWN: i64 = i64::MAX;

/// A file that nobody else has open.
#[derive(Debug)]
pub(super) struct Kept {
    pub name: String,
    /// Nobody else can have this name: it is random, and behind a lock of ours.
    pub is_ours_alone: bool,
    file: File,
}

impl Kept {
    /// The first free one of this place, and until when an insert of whoever had it before may begin.
    pub fn any(directory: &Path, place: &[&str]) -> Result<(Self, i64)> {
        let path = |nth| directory.join(format!("{}.{nth}", digest(place)));
        for nth in 0..SEATS {
            if let Some(file) = locked(&path(nth))? {
                let (name, predecessor) = read(&file)?.unwrap_or_else(|| (random_name(), 0));
                return Ok((Self { name, is_ours_alone: true, file }, predecessor));
            }
        }
        bail!("all {SEATS} seats are taken")
    }

    /// The same, of the one with this name.
    pub fn named(directory: &Path, name: &str, place: &[&str]) -> Result<(Self, i64)> {
        let path = directory.join(format!("{}.named", digest(&[place, &[name]].concat())));
        let Some(file) = locked(&path)? else { bail!("--instance-id {name}: another ingester of this machine has it") };
        let predecessor = read(&file)?.map_or(UNKNOWN, |(_, predecessor)| predecessor);
        Ok((Self { name: name.to_owned(), is_ours_alone: false, file }, predecessor))
    }

    /// `NAME UNTIL`
    pub fn write(&self, until: i64) -> io::Result<()> {
        self.file.write_all_at(format!("{} {until:0DIGITS$}\n", self.name).as_bytes(), 0)
    }

    /// Whoever comes next finds nothing.
    pub fn empty(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

/// What a file says; none if it is new, or was not written to its end.
pub(super) fn read(mut file: &File) -> io::Result<Option<(String, i64)>> {
    let mut text = String::new();
    if file.read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    let parsed = text.strip_suffix('\n').and_then(|line| line.rsplit_once(' '));
    Ok(parsed.and_then(|(name, until)| Some((name.to_owned(), until.parse().ok().filter(|_| until.len() == DIGITS)?))))
}

/// A file that is ours alone now; none if somebody has it.
fn locked(path: &Path) -> Result<Option<File>> {
    let open = private::file().read(true).write(true).create(true).open(path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// A directory of this user's own, in the one for temporary files.
pub(super) fn directory() -> Result<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let path = std::env::temp_dir().join(format!("clickstream-{me}"));
    // Anybody may make a directory of that name there.
    private::directory(&path)?;
    Ok(path)
}

/// A file's name for this place since this machine was started: a copy of the machine shall not take the same names.
pub(super) fn digest(place: &[&str]) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut hash = Sha256::new_with_prefix(boot);
    for part in place {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn random_name() -> String {
    format!("clickstream-{:016x}", rand::random::<u64>())
}
