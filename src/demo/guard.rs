//! Processes that never outlive the demo: its hidden subcommands.
//!
//! The demo holds the other end of their standard input. However it ends, by Ctrl-C, a crash or a SIGKILL, the kernel closes
//! that pipe, and they end too.

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, getpid, kill_process};
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How often a removal is tried while the kernel still takes a killed server's files away.
const REMOVALS: usize = 50;

/// Runs a program until it ends or the demo does, and then removes a directory, if it is told to.
///
/// # Errors
/// When the program cannot be started, or failed.
pub fn guard(program: &[OsString], remove: Option<&Path>) -> Result<()> {
    let Some((name, args)) = program.split_first() else { bail!("what is to be guarded?") };
    // libchdb's host listens to the same pipe; other programs ignore it.
    let mut child = Command::new(name)
        .args(args)
        .stdin(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot start {}", name.display()))?;
    let parent = at_end_of_input();
    loop {
        if parent.recv_timeout(Duration::from_millis(100)) != Err(mpsc::RecvTimeoutError::Timeout) {
            // It may have ended by itself in this moment.
            let _ = child.kill();
            let _ = child.wait();
            if let Some(dir) = remove {
                remove_dir(dir);
            }
            return Ok(());
        }
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{} ended: {status}", name.display()),
            None => {}
        }
    }
}

fn remove_dir(dir: &Path) {
    for _ in 0..REMOVALS {
        if std::fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Gets a message when standard input has ended.
fn at_end_of_input() -> mpsc::Receiver<()> {
    let (ended, parent) = mpsc::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        let _ = ended.send(());
    });
    parent
}

/// Makes a ClickHouse server of libchdb, which is the whole of it as a library: `arguments` are those of clickhouse-local.
/// It takes over signals, threads and memory of the process that it is loaded into, so it gets one of its own.
///
/// # Errors
/// When the library cannot be loaded. Otherwise it does not come back.
pub fn serve_libchdb(library: PathBuf, arguments: Vec<OsString>) -> Result<()> {
    let arguments = [library.clone().into_os_string()].into_iter().chain(arguments);
    let arguments: Vec<_> = arguments
        .map(|text| CString::new(text.into_vec()).context("a zero byte in an argument"))
        .collect::<Result<_>>()?;
    let mut pointers: Vec<_> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len())?;
    pointers.push(std::ptr::null_mut());
    let parent = at_end_of_input();
    std::thread::spawn(move || {
        // Destructors would run under the library's live threads: the process is ended from outside, so to speak.
        if parent.recv().is_ok() {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    });
    // SAFETY: the library is the pinned build of ClickHouse, whose initialisers expect to run in a process like this one, and
    // `chdb_query_cmdline` has this signature in its header (chdb.h). `pointers` is a C argv, terminated by null, whose strings
    // live until it returns.
    unsafe {
        let library =
            libloading::Library::new(&library).with_context(|| format!("cannot load {}", library.display()))?;
        let main: libloading::Symbol<unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void> =
            library.get(c"chdb_query_cmdline").context("the library is not libchdb")?;
        main(count, pointers.as_mut_ptr());
    }
    // A server does not end by itself; whatever made this one end stands in its log.
    let _ = kill_process(getpid(), Signal::KILL);
    Ok(())
}
