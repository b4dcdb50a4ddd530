//! Programs that the kernel ends together with this process.

#[cfg(target_os = "linux")]
use rustix::process::Signal;
use std::process::Command;

/// Has a program end with the thread that starts it, and so with this process, however that ends.
#[cfg(target_os = "linux")]
pub fn ends_with_us(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    let die = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed, and this is one system call.
    unsafe { command.pre_exec(die) }
}

/// Elsewhere nothing is started that way.
#[cfg(not(target_os = "linux"))]
pub fn ends_with_us(command: &mut Command) -> &mut Command {
    command
}
