//! Static membership: the name by which a group knows a member that comes back, its `group.instance.id`.
//!
//! Kafka keeps a dead member's partitions until its session is over, unless one with the same name joins (KIP-345). So each
//! ingester of a machine locks a file that holds a random name. The lock ends with the process and not before: no two living
//! processes of a machine have one name. Nothing else depends on the file: without it a member has another name, and its
//! predecessor's partitions wait for the session timeout.

use crate::private;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// More ingesters of one group on one machine than anybody starts.
const MOST: u32 = 1_000;

/// A file with a `group.instance.id`, locked for as long as this lives.
#[derive(Debug)]
pub struct InstanceFile {
    name: String,
    is_random: bool,
    _locked: File,
}

impl InstanceFile {
    /// The first file in the directory that no living process has locked; `of` is the shared context: the cluster, the
    /// topic, the group.
    ///
    /// # Errors
    /// When the directory cannot be written, or belongs to another user.
    pub fn acquire(directory: Option<&Path>, of: &[&str]) -> Result<Self> {
        let directory = prepared(directory)?;
        for nth in 0..MOST {
            let Some(file) = locked(&directory.join(format!("{}.{nth}", digest(of))))? else { continue };
            let name = match read(&file)? {
                Some(name) => name,
                None => {
                    let name = format!("clickstream-{:016x}", rand::random::<u64>());
                    write(&file, &name)?;
                    name
                }
            };
            return Ok(Self { name, is_random: true, _locked: file });
        }
        bail!("all {MOST} instance files in {} are in use", directory.display())
    }

    /// The file of a name that the user has given: one process of this machine at a time has it.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), and when a living process has the name.
    pub fn acquire_named(directory: Option<&Path>, name: &str, of: &[&str]) -> Result<Self> {
        let path = prepared(directory)?.join(format!("{}.named", digest(&[of, &[name]].concat())));
        let Some(file) = locked(&path)? else {
            bail!(
                "--instance-id {name}: another ingester of this machine uses it: stop that one, or choose another name"
            )
        };
        Ok(Self { name: name.to_owned(), is_random: false, _locked: file })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether no other process can have this name: a member that Kafka fences for it was fenced by itself.
    pub const fn is_random(&self) -> bool {
        self.is_random
    }
}

/// The directory, or one of this user's own in that for temporary files.
fn prepared(directory: Option<&Path>) -> Result<PathBuf> {
    let path = directory.map_or_else(
        || std::env::temp_dir().join(format!("clickstream-{}", rustix::process::geteuid().as_raw())),
        Path::to_owned,
    );
    // Anybody may make a directory of that name there.
    private::directory(&path)?;
    Ok(path)
}

/// A name, on a line of its own; none if the file is new, or was not written to its end.
fn read(mut file: &File) -> io::Result<Option<String>> {
    let mut text = String::new();
    if file.read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    let name = text.strip_suffix('\n').filter(|name| !name.is_empty() && !name.contains(char::is_whitespace));
    Ok(name.map(str::to_owned))
}

fn write(file: &File, name: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(format!("{name}\n").as_bytes(), 0)
}

/// A file that is this process's now; none if another one has it.
fn locked(path: &Path) -> Result<Option<File>> {
    let open = private::file().read(true).write(true).create(true).open(path);
    let file = open.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// A file's name since this machine was started: a copy of the machine shall not take the same names.
fn digest(of: &[&str]) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut hash = Sha256::new_with_prefix(boot);
    for part in of {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: &[&str] = &["localhost:9092", "clicks", "clickstream"];

    /// A directory that is removed in the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("clickstream-test-{:016x}", rand::random::<u64>()));
            private::directory(&path).unwrap();
            Self(path)
        }

        fn acquire(&self, of: &[&str]) -> InstanceFile {
            InstanceFile::acquire(Some(&self.0), of).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_free_again_is_taken_again() {
        let scratch = Scratch::new();
        let (first, second) = (scratch.acquire(OF), scratch.acquire(OF));
        assert_ne!(first.name(), second.name());
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(scratch.acquire(OF).name(), name);
        let elsewhere = scratch.acquire(&["localhost:9092", "clicks", "others"]);
        assert!(![&name, second.name()].contains(&elsewhere.name()));
    }

    #[test]
    fn a_file_that_says_nothing_gives_another_name() {
        let scratch = Scratch::new();
        let name = scratch.acquire(OF).name().to_owned();
        for text in ["", "\n", "half-a-na", "a name\n"] {
            std::fs::write(scratch.0.join(format!("{}.0", digest(OF))), text).unwrap();
            let now = scratch.acquire(OF);
            assert_ne!(now.name(), name, "{text:?}");
            assert_eq!(
                read(&File::open(scratch.0.join(format!("{}.0", digest(OF)))).unwrap()).unwrap(),
                Some(now.name)
            );
        }
    }

    #[test]
    fn a_name_that_is_given_has_one_living_owner() {
        let scratch = Scratch::new();
        let named = || InstanceFile::acquire_named(Some(&scratch.0), "eu-1", OF);
        let owner = named().unwrap();
        assert_eq!((owner.name(), owner.is_random()), ("eu-1", false));
        let refused = named().unwrap_err().to_string();
        assert_eq!(
            refused,
            "--instance-id eu-1: another ingester of this machine uses it: stop that one, or choose another name"
        );
        drop(owner);
        named().unwrap();
    }
}
