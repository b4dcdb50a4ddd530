//! The findings of checks, in their order: one line each.

use serde::Serialize;
use std::fmt::{self, Display};

/// The end of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Something works now, and may cost data or time one day.
    Warn,
    /// `ingest` would not start, or would store nothing.
    Fail,
    /// Not checked, since another check has failed.
    Skip,
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        })
    }
}

/// The words of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub status: Status,
    /// The finding, and what it means for the data.
    pub text: String,
    /// Actions, a line each; a statement or a command stands alone in its line.
    pub remedy: Option<String>,
}

impl Verdict {
    pub fn ok(text: impl Display) -> Self {
        Self { status: Status::Ok, text: text.to_string(), remedy: None }
    }

    pub fn warn(text: impl Display, remedy: impl Display) -> Self {
        Self { status: Status::Warn, text: text.to_string(), remedy: Some(remedy.to_string()) }
    }

    pub fn fail(text: impl Display, remedy: impl Display) -> Self {
        Self { status: Status::Fail, text: text.to_string(), remedy: Some(remedy.to_string()) }
    }
}

/// A check's verdict, and what other checks build on; only the verdict, where it has failed.
pub type Answer<T> = Result<(Verdict, T), Verdict>;

/// A thing that other checks build on; or the name of the check that has failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome<T>(Result<T, String>);

impl<T> Outcome<T> {
    pub fn found(&self) -> Outcome<&T> {
        Outcome(self.0.as_ref().map_err(Clone::clone))
    }

    /// The things that two checks have left.
    pub fn with<'o, O>(&'o self, other: &'o Outcome<O>) -> Outcome<(&'o T, &'o O)> {
        Outcome(self.found().0.and_then(|one| other.found().0.map(|other| (one, other))))
    }
}

/// A verdict with its check's name.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub name: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// All findings so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// Adds what a check has found.
    pub async fn check<T>(&mut self, name: impl Into<String>, check: impl Future<Output = Answer<T>>) -> Outcome<T> {
        let name = name.into();
        let (verdict, outcome) = match check.await {
            Ok((verdict, found)) => (verdict, Ok(found)),
            Err(verdict) => (verdict, Err(name.clone())),
        };
        self.findings.push(Finding { name, verdict });
        Outcome(outcome)
    }

    /// Adds what a check has found that builds on another one. Where that one has failed, this one is skipped, and says so.
    pub async fn check_with<N, T>(
        &mut self,
        name: impl Into<String>,
        needed: Outcome<N>,
        check: impl AsyncFnOnce(N) -> Answer<T>,
    ) -> Outcome<T> {
        match needed.0 {
            Ok(needed) => self.check(name, check(needed)).await,
            Err(failed) => {
                let text = format!("not checked: it builds on {failed}, which has failed");
                let verdict = Verdict { status: Status::Skip, text, remedy: None };
                self.findings.push(Finding { name: name.into(), verdict });
                Outcome(Err(failed))
            }
        }
    }

    /// The names of the checks that have failed.
    pub fn failed(&self) -> Vec<&str> {
        let failed = self.findings.iter().filter(|finding| finding.verdict.status == Status::Fail);
        failed.map(|finding| finding.name.as_str()).collect()
    }
}

/// For people: a line for each check, and below it, indented, what to do.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0);
        for (nth, Finding { name, verdict: Verdict { status, text, remedy } }) in self.findings.iter().enumerate() {
            let end = if nth == 0 { "" } else { "\n" };
            write!(f, "{end}{status:4}  {name:width$}  {text}")?;
            for line in remedy.iter().flat_map(|remedy| remedy.lines()) {
                write!(f, "\n        {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_builds_on_one_that_failed_is_skipped_and_names_it_and_others_are_not() {
        let mut report = Report::default();
        let broken: Answer<()> = Err(Verdict::fail("broken", "mend it\nwell"));
        let first = report.check("first", async { broken }).await;
        let other = report.check("other", async { Ok((Verdict::ok("fine"), 7)) }).await;
        let second = report.check_with("second", first.found(), async |()| Ok((Verdict::ok("never"), ()))).await;
        let third = report.check_with("third", other.with(&second), async |_| Ok((Verdict::ok("never"), ()))).await;
        let fourth =
            report.check_with("4th", other.found(), async |found| Ok((Verdict::warn(found, "wait"), ()))).await;
        assert_eq!((third, fourth), (Outcome(Err("first".into())), Outcome(Ok(()))));
        assert_eq!(report.failed(), ["first"]);
        let text = "fail  first   broken\n        mend it\n        well\nok    other   fine\n\
                    skip  second  not checked: it builds on first, which has failed\n\
                    skip  third   not checked: it builds on first, which has failed\nwarn  4th     7\n        wait";
        assert_eq!(report.to_string(), text);
        let json = serde_json::to_value(&report.findings[0]).unwrap();
        let expected =
            serde_json::json!({"name": "first", "status": "fail", "text": "broken", "remedy": "mend it\nwell"});
        assert_eq!(json, expected);
    }
}
