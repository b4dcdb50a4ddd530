//! The mark of a demo's own directory.
//!
//! The hidden subcommands run, load and remove files. A user may be allowed to run this program with more rights than
//! their own. So these subcommands take only a directory from their arguments, and act only if a running demo of this
//! user has marked it.

use super::program::Program;
use crate::private;
use anyhow::{Context, Result, bail};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The file.
const NAME: &str = "mark.json";
/// The variable in which a demo tells its own processes the token.
pub const TOKEN: &str = "CLICKSTREAM_DEMO_TOKEN";
/// More than a mark has.
const LONGEST_BYTES: u64 = 64 * 1024;

/// The purpose of a running demo's directory.
#[derive(Debug, Deserialize, Serialize)]
pub struct Mark {
    /// Known to this demo and its processes only.
    pub token: String,
    /// Whether the directory goes when the demo does.
    pub temporary: bool,
    /// The program that runs in it.
    pub program: Program,
}

impl Mark {
    pub fn new(temporary: bool, program: Program) -> Self {
        Self { token: uuid::Uuid::new_v4().simple().to_string(), temporary, program }
    }

    /// Marks a directory; what an earlier demo wrote there is no longer good.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, work_dir: &Path) -> Result<()> {
        let file = work_dir.join(NAME);
        let written = || -> Result<()> {
            let _ = std::fs::remove_file(&file);
            let mut new = private::file().write(true).create_new(true).open(&file)?;
            Ok(new.write_all(&serde_json::to_vec(self)?)?)
        };
        written().with_context(|| format!("cannot write {}", file.display()))
    }

    /// The mark of a directory, for a process that knows its token.
    ///
    /// # Errors
    /// When there is none, others could have written it, or the token is another one.
    pub fn read(work_dir: &Path) -> Result<Self> {
        let token = std::env::var(TOKEN).unwrap_or_default();
        Self::find(work_dir, &token)
            .with_context(|| format!("nothing was done: {} is not the directory of a running demo", work_dir.display()))
    }

    fn find(work_dir: &Path, token: &str) -> Result<Self> {
        if !is_ours(&work_dir.symlink_metadata()?, 0o022) {
            bail!("it belongs to another user, or others may write in it");
        }
        let file = private::file().read(true).open(work_dir.join(NAME));
        let file: File = file.context("it has no mark")?;
        if !is_ours(&file.metadata()?, 0o077) {
            bail!("its mark belongs to another user, or others may read it");
        }
        let mut text = Vec::new();
        file.take(LONGEST_BYTES).read_to_end(&mut text)?;
        let mark: Self = serde_json::from_slice(&text).context("its mark cannot be read")?;
        if mark.token != token {
            bail!("its mark is that of another demo");
        }
        Ok(mark)
    }
}

/// Whether it is this user's, and others have none of these permissions.
fn is_ours(about: &Metadata, others: u32) -> bool {
    !about.is_symlink() && about.uid() == geteuid().as_raw() && about.mode() & others == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_mark_is_good_for_its_own_demo_and_only_where_nobody_else_can_write_it() {
        let scratch = tempfile::tempdir().unwrap();
        let work_dir = scratch.path().join("home");
        fs::create_dir(&work_dir).unwrap();
        let permit = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        permit(&work_dir, 0o700);
        assert!(Mark::find(&work_dir, "").is_err(), "no mark");

        let mark = Mark::new(true, Program::Installed("/bin/true".into()));
        mark.write(&work_dir).unwrap();
        assert!(Mark::find(&work_dir, &mark.token).unwrap().temporary);
        assert!(Mark::find(&work_dir, "").is_err() && Mark::find(&work_dir, "0").is_err(), "another token");

        symlink(&work_dir, scratch.path().join("link")).unwrap();
        assert!(Mark::find(&scratch.path().join("link"), &mark.token).is_err(), "a link to it");
        for mode in [0o770, 0o707, 0o1777] {
            permit(&work_dir, mode);
            assert!(Mark::find(&work_dir, &mark.token).is_err(), "{mode:o}");
        }
        permit(&work_dir, 0o700);
        permit(&work_dir.join(NAME), 0o644);
        assert!(Mark::find(&work_dir, &mark.token).is_err(), "others know the token");
        fs::rename(work_dir.join(NAME), work_dir.join("other")).unwrap();
        permit(&work_dir.join("other"), 0o600);
        symlink(work_dir.join("other"), work_dir.join(NAME)).unwrap();
        assert!(Mark::find(&work_dir, &mark.token).is_err(), "a link to a mark");

        let next = Mark::new(false, Program::Installed("/bin/true".into()));
        next.write(&work_dir).unwrap();
        assert!(Mark::find(&work_dir, &mark.token).is_err() && !Mark::find(&work_dir, &next.token).unwrap().temporary);
    }
}
