//! Files and directories in places where other users may write as well, such as the one for temporary files.
//!
//! There, another user may have created a link or a file under the name that we are about to use.

use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Creates a directory that only this user may read, or takes an existing one.
///
/// # Errors
/// When it cannot be created; or when an existing one belongs to another user, or others may write in it.
pub fn directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create {}", path.display()));
        }
        _ => {}
    }
    let found = path.symlink_metadata().with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.display();
    if !found.is_dir() {
        bail!("{name} is not a directory");
    }
    if found.uid() != me() {
        bail!("{name} belongs to another user, who could change its contents");
    }
    if found.mode() & 0o022 != 0 {
        bail!("other users may write in {name}, and change its contents: type `chmod go-w` to prevent that");
    }
    Ok(())
}

/// How to open a file of this user alone: no link is followed, and nothing is cut off.
pub fn file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

/// Creates a file that the user has named, or replaces its contents. It writes to a device or a pipe as it is.
///
/// # Errors
/// When it cannot be written; or when it, or a link in its place, belongs to another user.
pub fn replace(path: &Path) -> io::Result<File> {
    check(path)?;
    File::create(path)
}

/// Makes sure that what has this name already, if anything has, is not another user's.
///
/// # Errors
/// When it is.
pub fn check(path: &Path) -> io::Result<()> {
    let is_theirs = |found: Metadata| {
        let is_device = found.file_type().is_char_device();
        !is_device && ![me(), 0].contains(&found.uid())
    };
    // A link is checked before its target.
    for found in [path.symlink_metadata(), path.metadata()] {
        if found.is_ok_and(is_theirs) {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "there is something of another user by that name"));
        }
    }
    Ok(())
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_directory_is_ours_alone_or_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name| scratch.path().join(name);
        directory(&path("new")).unwrap();
        assert_eq!(path("new").metadata().unwrap().mode() & 0o777, 0o700);
        fs::create_dir(path("open")).unwrap();
        for (mode, is_good) in [(0o700, true), (0o755, true), (0o775, false), (0o757, false), (0o1777, false)] {
            fs::set_permissions(path("open"), Permissions::from_mode(mode)).unwrap();
            assert_eq!(directory(&path("open")).is_ok(), is_good, "{mode:o}");
        }
        symlink(path("new"), path("link")).unwrap();
        fs::write(path("file"), "").unwrap();
        for name in ["link", "file"] {
            assert!(directory(&path(name)).unwrap_err().to_string().ends_with("is not a directory"), "{name}");
        }
    }

    #[test]
    fn no_link_is_followed_and_nothing_cut_off() {
        let scratch = tempfile::tempdir().unwrap();
        let (target, link) = (scratch.path().join("target"), scratch.path().join("link"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        assert!(file().write(true).create(true).truncate(true).open(&link).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn a_file_by_a_name_that_the_user_gave_is_replaced_unless_somebody_else_put_it_there() {
        let scratch = tempfile::tempdir().unwrap();
        let (target, link) = (scratch.path().join("target"), scratch.path().join("link"));
        fs::write(&target, "old").unwrap();
        symlink(&target, &link).unwrap();
        replace(&link).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "", "a link of our own is one that we mean");
        for device in ["/dev/null", "/dev/stdout"] {
            replace(Path::new(device)).unwrap();
        }
    }
}
