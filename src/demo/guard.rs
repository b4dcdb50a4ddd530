//! Processes that never outlive the demo: its hidden subcommands.
//!
//! The demo holds the other end of the guard's standard input, and the guard that of the library's host. However the demo ends, by
//! Ctrl-C, a crash or a SIGKILL, the kernel closes these pipes, and they end too.

use super::mark::{Mark, TOKEN};
use super::program::{Program, verified};
use super::work_dir::{QUERIES, SETTINGS};
use anyhow::{Context, Result, bail};
use rustix::process::{Signal, getpid, kill_process};
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How often a removal is tried while the kernel still takes a killed server's files away.
const REMOVALS: usize = 50;

/// The message with which the demo ends ClickHouse and keeps the directory, because it is about to start another one
/// there.
pub const LEAVE: u8 = b'l';

/// Runs the ClickHouse of a demo's directory until it ends or the demo does, and then removes the directory, if that is temporary.
///
/// # Errors
/// When no running demo has marked the directory, ClickHouse cannot be started, or it failed.
pub fn guard(work_dir: &Path) -> Result<()> {
    let mark = Mark::read(work_dir)?;
    let mut child = command(&mark.program, work_dir)?.spawn().context("cannot start ClickHouse")?;
    // The library's host ends when this does.
    let _parent_pipe = child.stdin.take();
    let orders = orders();
    loop {
        match orders.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => {}
            order => {
                // It may have ended by itself in this moment.
                let _ = child.kill();
                let _ = child.wait();
                if mark.temporary && order != Ok(LEAVE) {
                    remove_dir(work_dir);
                }
                return Ok(());
            }
        }
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("ClickHouse ended: {status}"),
            None => {}
        }
    }
}

/// The command that serves in this directory.
fn command(program: &Program, work_dir: &Path) -> Result<Command> {
    let mut command = match program {
        Program::Installed(path) => {
            let mut command = Command::new(path);
            command.arg("server").arg(config(work_dir)).env_remove(TOKEN).stdin(Stdio::null());
            command
        }
        Program::Library(_) => {
            let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
            command.arg("libchdb").arg(work_dir).stdin(Stdio::piped());
            command
        }
    };
    // Nobody but the guard starts or ends it.
    command.env("CLICKHOUSE_WATCHDOG_ENABLE", "0");
    Ok(command)
}

fn config(work_dir: &Path) -> OsString {
    option("--config-file=", &work_dir.join(SETTINGS))
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

fn remove_dir(dir: &Path) {
    for _ in 0..REMOVALS {
        if std::fs::remove_dir_all(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Gets each byte of standard input, and is disconnected at its end.
fn orders() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) && sender.send(byte[0]).is_ok() {}
    });
    receiver
}

/// Makes a ClickHouse server of libchdb, which is the whole of it as a library, in a demo's directory. It takes over signals, threads
/// and memory of the process that it is loaded into, so it gets one of its own.
///
/// # Errors
/// When no running demo has marked the directory, or the library is not the pinned one. Otherwise it does not come back.
pub fn serve_libchdb(work_dir: &Path) -> Result<()> {
    let Program::Library(path) = Mark::read(work_dir)?.program else { bail!("this demo has no library") };
    let library = verified(&path)?;
    // The file that was looked at, whatever its name leads to by now.
    let opened = format!("/proc/self/fd/{}", library.as_raw_fd());
    let queries = option("--queries-file=", &work_dir.join(QUERIES));
    let arguments = [path.clone().into_os_string(), config(work_dir), "--log-level=warning".into(), queries];
    let arguments: Vec<_> = arguments
        .into_iter()
        .map(|text| CString::new(text.into_vec()).context("a zero byte in an argument"))
        .collect::<Result<_>>()?;
    let mut pointers: Vec<_> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len())?;
    pointers.push(std::ptr::null_mut());
    let guard = orders();
    std::thread::spawn(move || {
        while guard.recv().is_ok() {}
        // Destructors would run under the library's live threads: the process is ended from outside, so to speak.
        let _ = kill_process(getpid(), Signal::KILL);
    });
    // SAFETY: the library is the pinned build of ClickHouse, whose initialisers expect a process like this one.
    // `chdb_query_cmdline` has this signature in its header (chdb.h). `pointers` is a C argv, terminated by null, whose
    // strings live until the call returns.
    unsafe {
        let library = libloading::Library::new(&opened).with_context(|| format!("cannot load {}", path.display()))?;
        let main: libloading::Symbol<unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void> =
            library.get(c"chdb_query_cmdline").context("the library is not libchdb")?;
        main(count, pointers.as_mut_ptr());
    }
    // A server does not end by itself; whatever made this one end stands in its log.
    let _ = kill_process(getpid(), Signal::KILL);
    Ok(())
}
