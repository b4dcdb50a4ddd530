//! The stop signal: once to drain, twice to leave at once. A terminal that is closed asks for a drain, too.

use futures::future::OptionFuture;
use rustix::process::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A request to end pipelines. Clones share it.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<CancellationToken>);

/// The exit code of a program that was stopped at once.
const AT_ONCE: i32 = 130;
/// Signals that come so soon after one another were sent by one hand: `timeout` sends its own twice, to the process and to its
/// group. Nobody presses Ctrl-C twice in that time.
const ONE_HAND: Duration = Duration::from_millis(100);

impl Shutdown {
    /// A stop that SIGINT, SIGTERM and SIGHUP request. A second SIGINT or SIGTERM, 100 ms later or more, ends the process at once, with
    /// exit code 130.
    /// A SIGHUP never does: a terminal that is closed, or a session that is ended, sends it twice, or besides a SIGTERM.
    pub fn on_signals() -> anyhow::Result<Self> {
        let shutdown = Self::default();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hangup = if is_ignored(Signal::HUP) { None } else { Some(signal(SignalKind::hangup())?) };
        // A limit on the size of files (ulimit -f) is an error of the write that meets it, as a full disk is. The signal that
        // comes with it would end the process. Its handler stays when this is dropped.
        drop(signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?);
        let (requested, takes_hangups) = (shutdown.clone(), hangup.is_some());
        tokio::spawn(async move {
            let (mut hung_up, mut last) = (false, None::<Instant>);
            loop {
                let is_hangup = tokio::select! {
                    _ = interrupt.recv() => false,
                    _ = terminate.recv() => false,
                    _ = OptionFuture::from(hangup.as_mut().map(Signals::recv)), if takes_hangups => true,
                };
                if last.replace(Instant::now()).is_some_and(|last| last.elapsed() < ONE_HAND) {
                    continue;
                }
                match (requested.is_requested(), is_hangup) {
                    (false, _) => {
                        tracing::info!("stopping: draining (signal again to stop at once)");
                        requested.request();
                        hung_up = is_hangup;
                    }
                    (true, true) => {}
                    // The first after a SIGHUP is the first that asks for it.
                    (true, false) if hung_up => hung_up = false,
                    (true, false) => std::process::exit(AT_ONCE),
                }
            }
        });
        Ok(shutdown)
    }

    /// A request to end a part of the work: also requested as soon as this one is, and not the other way round.
    pub fn of_part(&self) -> Self {
        Self(Arc::new(self.0.child_token()))
    }

    /// Requests it.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when it is requested.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }
}

/// Whether the parent process had this one ignore a signal, as `nohup` does. If that is unknown, it counts as ignored:
/// the signal then has its previous effect.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_ignored_at_the_start_is_known() {
        // Rust's runtime ignores the first signal, and nothing ignores the second.
        assert_eq!((is_ignored(Signal::PIPE), is_ignored(Signal::USR1)), (true, false));
    }
}
