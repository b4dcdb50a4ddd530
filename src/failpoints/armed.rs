//! Failpoints that do what `CLICKSTREAM_FAILPOINTS` says.

use super::{Injected, MESSAGE, Step};
use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The time for the first half of a body to reach the server.
const ON_ITS_WAY: Duration = Duration::from_millis(2);

const VARIABLE: &str = "CLICKSTREAM_FAILPOINTS";

const STEPS: [(&str, Step); 7] = [
    ("before_insert", Step::BeforeInsert),
    ("in_insert", Step::InInsert),
    ("after_insert", Step::AfterInsert),
    ("before_commit", Step::BeforeCommit),
    ("after_commit", Step::AfterCommit),
    ("on_revoke", Step::OnRevoke),
    ("on_assign", Step::OnAssign),
];

/// The fault of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Die,
    Stall(Duration),
    Fail,
}

/// In which cases.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Always,
    Nth(u64),
    Share(f64),
}

#[derive(Debug)]
struct Failpoint {
    step: Step,
    action: Action,
    when: When,
    /// How often the step was reached.
    reached: AtomicU64,
}

static ARMED: OnceLock<Vec<Failpoint>> = OnceLock::new();

/// Reads the variable.
///
/// # Errors
/// When it does not read as a list of failpoints.
pub fn check() -> Result<()> {
    let text = std::env::var(VARIABLE).unwrap_or_default();
    let armed: Vec<_> = text.split(',').filter(|part| !part.is_empty()).map(parse).collect::<Result<_>>()?;
    if !armed.is_empty() {
        tracing::warn!("{VARIABLE}={text}: this run has failpoints");
    }
    ARMED.set(armed).map_err(|_| anyhow!("failpoints can be armed only once"))
}

fn parse(text: &str) -> Result<Failpoint> {
    let what = || format!("{VARIABLE}: {text} is not STEP=die|stall:TIME|fail[@N|%PERCENT]");
    let (name, rest) = text.split_once('=').with_context(what)?;
    let &(_, step) = STEPS.iter().find(|(known, _)| *known == name).with_context(what)?;
    let (action, when) = match (rest.split_once('@'), rest.split_once('%')) {
        (Some((action, nth)), _) => (action, When::Nth(nth.parse().with_context(what)?)),
        (_, Some((action, share))) => (action, When::Share(share.parse::<f64>().with_context(what)? / 100.0)),
        _ => (rest, When::Always),
    };
    let action = match action.split_once(':') {
        Some(("stall", time)) => Action::Stall(humantime::parse_duration(time).with_context(what)?),
        None if action == "die" => Action::Die,
        None if action == "fail" && !matches!(step, Step::OnRevoke | Step::OnAssign) => Action::Fail,
        _ => bail!(what()),
    };
    Ok(Failpoint { step, action, when, reached: AtomicU64::new(0) })
}

impl Failpoint {
    fn is_due(&self) -> bool {
        let before = self.reached.fetch_add(1, Relaxed);
        match self.when {
            When::Always => true,
            When::Nth(nth) => before + 1 == nth,
            When::Share(share) => rand::random_bool(share.clamp(0.0, 1.0)),
        }
    }
}

/// The fault that is due at this step; does not return if the process has to die.
fn due(step: Step) -> Option<Action> {
    let armed = ARMED.get()?.iter().filter(|point| point.step == step);
    let action = armed.filter(|point| point.is_due()).map(|point| point.action).next()?;
    if action == Action::Die {
        die();
    }
    Some(action)
}

/// SIGKILL: nothing is flushed, closed or said.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// Dies, stalls or fails, or continues.
///
/// # Errors
/// [`Injected`] if the step has to fail.
pub async fn reach(step: Step) -> Result<(), Injected> {
    match due(step) {
        Some(Action::Stall(time)) => tokio::time::sleep(time).await,
        Some(_) => return Err(Injected),
        None => {}
    }
    Ok(())
}

/// Dies, stalls or fails on a thread that may block, or continues.
///
/// # Errors
/// [`Injected`] if the step has to fail.
pub fn reach_blocking(step: Step) -> Result<(), Injected> {
    match due(step) {
        Some(Action::Stall(time)) => std::thread::sleep(time),
        Some(_) => return Err(Injected),
        None => {}
    }
    Ok(())
}

/// The body of an insert. It reaches [`Step::InInsert`], where that is armed, when half of it is sent.
pub struct InsertBody {
    parts: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    left: u64,
}

/// An insert's body.
pub fn body(whole: Bytes) -> InsertBody {
    let left = whole.len() as u64;
    let armed = ARMED.get().is_some_and(|points| points.iter().any(|point| point.step == Step::InInsert));
    if !armed {
        return InsertBody { parts: Box::pin(stream::iter([Ok(whole)])), left };
    }
    let (first, second) = (whole.slice(..whole.len() / 2), whole.slice(whole.len() / 2..));
    let rest = stream::once(async move {
        tokio::time::sleep(ON_ITS_WAY).await;
        reach(Step::InInsert).await.map_err(|Injected| io::Error::other(MESSAGE))?;
        Ok(second)
    });
    InsertBody { parts: Box::pin(stream::iter([Ok(first)]).chain(rest)), left }
}

impl Body for InsertBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let part = ready!(this.parts.as_mut().poll_next(cx));
        if let Some(Ok(part)) = &part {
            this.left -= part.len() as u64;
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    /// Its length is announced, as that of any other.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_step_an_action_and_a_case() {
        let read = |text| parse(text).map(|point| (point.step, point.action, point.when)).ok();
        assert_eq!(read("after_insert=die@3"), Some((Step::AfterInsert, Action::Die, When::Nth(3))));
        assert_eq!(read("before_commit=fail%50"), Some((Step::BeforeCommit, Action::Fail, When::Share(0.5))));
        let stall = Action::Stall(Duration::from_secs(7));
        assert_eq!(read("on_revoke=stall:7s"), Some((Step::OnRevoke, stall, When::Always)));
        for wrong in ["", "after_insert", "nowhere=die", "in_insert=explode", "on_revoke=fail", "in_insert=die@x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_nth_time_is_one_time() {
        let point = parse("after_insert=die@2").unwrap();
        assert_eq!([(); 4].map(|()| point.is_due()), [false, true, false, false]);
    }
}
