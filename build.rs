//! Finds the commit that this program is built from, for `--version`.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The name of the commit where there is no git: an image's build, or a distribution's.
const VARIABLE: &str = "CLICKSTREAM_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    println!("cargo::rerun-if-changed=build.rs");
    let given = env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(of_package).or_else(of_release).unwrap_or_else(|| {
        let is_release = env::var("PROFILE").as_deref() == Ok("release");
        if is_release { "commit unknown".into() } else { "debug build".into() }
    });
    println!("cargo::rustc-env={VARIABLE}={commit}");
}

/// The commit that `cargo publish` has noted in its package.
fn of_package() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    Some(commit.chars().take(12).collect())
}

/// The commit of this checkout. Debug builds leave it out: each commit would compile the crate and its tests again.
fn of_release() -> Option<String> {
    if env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    // A checkout of another project, which this one was copied into, has commits of its own.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = env::current_dir().ok()?.canonicalize().ok()?;
    if Path::new(&top).canonicalize().ok()? != here {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

/// The answer of git, if there is one.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
