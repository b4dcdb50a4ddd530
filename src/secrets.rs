//! The passwords of one installation, and the users file that ClickHouse knows them by.
//!
//! They lie in one directory each, so that each can be a volume of its own that nobody else mounts:
//!
//! ```text
//! DIR/owner/password   DIR/writer/password   DIR/eraser/password   DIR/reader/password   DIR/clickhouse/users.xml
//! ```

use crate::clickhouse::users::{self, ACCOUNTS, Account, Default, From, hex};
use crate::private;
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Random bytes of a password: more than anybody can try out, so that a plain hash of it tells nothing.
const BYTES: usize = 24;

/// The passwords in a directory.
pub struct Secrets {
    dir: PathBuf,
    /// Permissions of the files.
    mode: u32,
}

/// The result of [`Secrets::provide`].
#[derive(Debug, PartialEq, Eq)]
pub enum Passwords {
    /// All were there.
    Kept,
    /// At least one was missing, and is new.
    Made,
}

impl Secrets {
    /// Those of `dir`; `mode` are the permissions that files get.
    pub fn new(dir: impl Into<PathBuf>, mode: u32) -> Self {
        Self { dir: dir.into(), mode }
    }

    /// Keeps the passwords that are there and makes those that are missing; then writes the users file, if it is not the one
    /// that belongs to them. Cut short at any moment, and run again, it ends with a set that fits together.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn provide(&self, from: From, default: Default) -> Result<Passwords> {
        self.check()?;
        let mut passwords = [const { String::new() }; ACCOUNTS.len()];
        let mut found = Passwords::Kept;
        for (account, password) in ACCOUNTS.iter().zip(&mut passwords) {
            *password = match self.read(account)? {
                Some(kept) => kept,
                None => {
                    found = Passwords::Made;
                    let made = hex(&rand::random::<[u8; BYTES]>());
                    self.write(&self.password(account), &made)?;
                    made
                }
            };
        }
        let users = users::file(&passwords, from, default);
        if fs::read_to_string(self.users()).ok().as_ref() != Some(&users) {
            self.write(&self.users(), &users)?;
        }
        Ok(found)
    }

    /// The file with the password of a user.
    pub fn password(&self, account: &Account) -> PathBuf {
        self.dir.join(account.name).join("password")
    }

    /// The users file.
    pub fn users(&self) -> PathBuf {
        self.dir.join("clickhouse").join("users.xml")
    }

    /// Makes sure that none of the directories is another user's, and says which ones others may change.
    fn check(&self) -> Result<()> {
        let names = ACCOUNTS.iter().map(|account| account.name).chain(["clickhouse"]);
        for dir in [self.dir.clone()].into_iter().chain(names.map(|name| self.dir.join(name))) {
            private::check(&dir).with_context(|| format!("cannot write passwords to {}", dir.display()))?;
            if dir.metadata().is_ok_and(|found| found.mode() & 0o002 != 0) {
                tracing::warn!(
                    "every user may write in {}, and replace passwords: type `chmod o-w` to prevent that",
                    dir.display()
                );
            }
        }
        Ok(())
    }

    /// The password of a user, if its file exists and is whole.
    fn read(&self, account: &Account) -> Result<Option<String>> {
        let file = self.password(account);
        let mut password = String::new();
        match private::file().read(true).open(&file).and_then(|mut open| open.read_to_string(&mut password)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", file.display()))?,
        };
        Ok((password.len() == BYTES * 2).then_some(password))
    }

    /// Writes another file and gives it the name when it is whole and on the disk.
    fn write(&self, file: &Path, text: &str) -> Result<()> {
        let written = || -> std::io::Result<()> {
            let dir = file.parent().unwrap_or(&self.dir);
            // A user that may read a file may also search its directory.
            let search = (self.mode & 0o444) >> 2;
            DirBuilder::new().recursive(true).mode(self.mode | 0o700 | search).create(dir)?;
            let partial = file.with_extension("partial");
            // One that was left behind may not be writable.
            match fs::remove_file(&partial) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut new = OpenOptions::new().write(true).create_new(true).mode(self.mode).open(&partial)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&partial, file)?;
            File::open(dir)?.sync_all()
        };
        written().with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::os::unix::fs::PermissionsExt;

    fn provide(secrets: &Secrets) -> Passwords {
        secrets.provide(From::Anywhere, Default::Administrator).unwrap()
    }

    fn passwords(secrets: &Secrets) -> Vec<String> {
        ACCOUNTS.iter().map(|account| fs::read_to_string(secrets.password(account)).unwrap()).collect()
    }

    /// Whether the users file has the hash of each password, and none of them as it is.
    fn fits(secrets: &Secrets) -> bool {
        let users = fs::read_to_string(secrets.users()).unwrap();
        passwords(secrets).iter().all(|password| {
            users.contains(&format!("<password_sha256_hex>{}<", hex(&Sha256::digest(password))))
                && !users.contains(password)
        })
    }

    #[test]
    fn each_installation_has_passwords_of_its_own_and_keeps_them() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [here, there] = [here.path(), there.path()].map(|dir| Secrets::new(dir, 0o600));
        assert_eq!((provide(&here), provide(&there)), (Passwords::Made, Passwords::Made));
        let mut all = [passwords(&here), passwords(&there)].concat();
        assert!(all.iter().all(|password| password.len() == 48) && fits(&here) && fits(&there));
        let before = passwords(&here);
        assert_eq!(provide(&here), Passwords::Kept);
        assert_eq!(passwords(&here), before);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2 * ACCOUNTS.len(), "no two are alike");
    }

    #[test]
    fn wherever_it_is_cut_short_the_next_run_ends_with_a_set_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path(), 0o444);
        provide(&secrets);
        let files: Vec<_> = ACCOUNTS.iter().map(|account| secrets.password(account)).chain([secrets.users()]).collect();
        for file in &files {
            fs::remove_file(file).unwrap();
            // The temporary file of a run that ended just before it could rename it.
            let partial = file.with_extension("partial");
            fs::write(&partial, "half of i").unwrap();
            fs::set_permissions(&partial, fs::Permissions::from_mode(0o444)).unwrap();
            provide(&secrets);
            assert!(fits(&secrets) && !partial.exists(), "{}", file.display());
        }
        fs::set_permissions(&files[0], fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&files[0], "cut").unwrap();
        assert_eq!(provide(&secrets), Passwords::Made);
        assert!(fits(&secrets));
    }

    #[test]
    fn a_newer_version_brings_its_users_file_and_leaves_the_passwords() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path(), 0o600);
        provide(&secrets);
        let (before, users) = (passwords(&secrets), fs::read_to_string(secrets.users()).unwrap());
        fs::write(secrets.users(), users.replace("reader", "somebody")).unwrap();
        assert_eq!(provide(&secrets), Passwords::Kept);
        assert_eq!((passwords(&secrets), fs::read_to_string(secrets.users()).unwrap()), (before, users));
    }

    #[test]
    fn a_user_that_is_new_leaves_the_passwords_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path(), 0o600);
        provide(&secrets);
        let before = passwords(&secrets);
        fs::remove_dir_all(secrets.password(&ACCOUNTS[2]).parent().unwrap()).unwrap();
        assert_eq!(provide(&secrets), Passwords::Made);
        let after = passwords(&secrets);
        let kept: Vec<_> = before.iter().zip(&after).map(|(before, after)| before == after).collect();
        assert_eq!(kept, [true, true, false, true]);
        assert!(fits(&secrets));
    }

    #[test]
    fn files_have_the_permissions_that_were_asked_for() {
        for (mode, of_directory) in [(0o600, 0o700), (0o444, 0o755)] {
            let dir = tempfile::tempdir().unwrap();
            let secrets = Secrets::new(dir.path().join("new"), mode);
            provide(&secrets);
            for file in ACCOUNTS.iter().map(|account| secrets.password(account)).chain([secrets.users()]) {
                let of = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!((of(&file), of(file.parent().unwrap())), (mode, of_directory), "{}", file.display());
            }
        }
    }
}
