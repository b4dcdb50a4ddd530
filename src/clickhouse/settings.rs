//! Which pinned settings a statement brings: those that the server knows.

use super::failure;
use super::pins::{PINS, Pins, Statements, YOUNG};
use flows::{ErrorKind, Failure};
use std::sync::{PoisonError, RwLock};

/// Codes of ClickHouse's `ErrorCodes.cpp` for a setting that is refused.
const UNKNOWN_SETTING: i32 = 115;
const READONLY: i32 = 164;
const CONSTRAINT_VIOLATION: i32 = 452;

/// A setting's name and value.
pub type Pin = (&'static str, &'static str);

/// The pinned settings, as far as the server is known to know them.
#[derive(Debug)]
pub struct Settings {
    user: String,
    /// Of those in [`YOUNG`]; until the server was asked, none.
    known: RwLock<Vec<&'static str>>,
}

impl Settings {
    /// Those that every supported version knows, for statements of this user.
    pub fn new(user: &str) -> Self {
        Self { user: user.to_owned(), known: RwLock::default() }
    }

    /// Whose statements they are for.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Those of a question.
    pub fn questions(&self) -> Vec<Pin> {
        self.of(Statements::Questions)
    }

    /// Those of an insert. It asks questions, too, about its lease and its first row; where both have a setting, the insert's counts.
    pub fn inserts(&self) -> Vec<Pin> {
        let inserts = self.of(Statements::Inserts);
        let is_free = |(name, _): &Pin| !inserts.iter().any(|(other, _)| other == name);
        self.of(Statements::Questions).into_iter().filter(is_free).chain(inserts.iter().copied()).collect()
    }

    fn of(&self, statement: Statements) -> Vec<Pin> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let is_known = |name: &str| !YOUNG.contains(&name) || known.contains(&name);
        let groups = PINS.iter().filter(|pins| pins.of == Statements::All || pins.of == statement);
        groups.flat_map(|pins| pins.settings).copied().filter(|(name, _)| is_known(name)).collect()
    }

    pub fn learn(&self, names: &str) {
        let known = YOUNG.iter().copied().filter(|young| names.split(',').any(|name| name == *young)).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn forget(&self, name: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != name);
    }

    /// A failure in which ClickHouse has refused a setting of ours says what to do about it. One that only an older server than
    /// before does not know is not sent again.
    pub fn explained(&self, failure: Failure) -> Failure {
        // By the code: what stands in the text may be a value of a row, which ClickHouse repeats.
        let said = &failure.message;
        let is = |code| failure::code_in(said) == Some(code);
        if ![UNKNOWN_SETTING, READONLY, CONSTRAINT_VIOLATION].into_iter().any(is) {
            return failure;
        }
        let Some(((name, value), otherwise)) = named(said) else { return failure };
        let (user, value) = (&self.user, if value.is_empty() { "''" } else { value });
        let may_not = format!("user {user} may not set {name} = {value}, and without that {otherwise}");
        if is(UNKNOWN_SETTING) && YOUNG.contains(&name) {
            self.forget(name);
            return Failure { kind: ErrorKind::Transient, message: format!("an older server: {said}"), ..failure };
        }
        let message = if is(UNKNOWN_SETTING) {
            format!("it does not know the setting {name}: ClickHouse {OLDEST_VERSION} or newer is needed")
        } else if is(READONLY) {
            format!(
                "{may_not}: its profile is readonly; `audit` and `rejects` need readonly = 2 or 0, `ingest` and `setup` 0 ({said})"
            )
        } else {
            format!("{may_not}: take that constraint out of its profile, or use another --clickhouse-user ({said})")
        };
        Failure { message, ..failure }
    }
}

/// The oldest ClickHouse that has what our statements need.
pub const OLDEST_VERSION: &str = "25.8";

/// A client whose statements bring these.
pub fn with(client: &clickhouse::Client, settings: &[Pin]) -> clickhouse::Client {
    settings.iter().fold(client.clone(), |client, &(name, value)| client.with_setting(name, value))
}

/// The pinned setting that is refused there: not one that is only suggested in its place.
fn named(said: &str) -> Option<(Pin, &'static str)> {
    let (_, rest) = ["modify ", "Setting ", "setting "].iter().find_map(|before| said.split_once(before))?;
    let word = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| !word.is_empty())?;
    let of = |pins: &'static Pins| {
        let pin = pins.settings.iter().find(|(name, _)| *name == word)?;
        Some((*pin, pins.otherwise))
    };
    PINS.iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_statement_brings_a_setting_twice() {
        let settings = Settings::new("writer");
        settings.learn(&YOUNG.join(","));
        for pins in [settings.questions(), settings.inserts()] {
            let names: HashSet<_> = pins.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), pins.len());
        }
    }

    #[test]
    fn a_young_setting_is_sent_only_to_a_server_that_knows_it() {
        let settings = Settings::new("writer");
        let has = |name: &str| settings.inserts().iter().any(|(pinned, _)| *pinned == name);
        assert!(has("limit") && YOUNG.iter().all(|young| !has(young)));
        settings.learn("deduplicate_insert,no_such_setting");
        assert!(has("deduplicate_insert") && !has("use_strict_insert_block_limits"));
        settings.learn("");
        assert!(!has("deduplicate_insert"), "an older server may take its place");
    }

    #[test]
    fn questions_are_given_up_by_the_server_when_we_give_them_up() {
        let pinned = Settings::new("writer").questions().into_iter().find(|(name, _)| *name == "max_execution_time");
        assert_eq!(pinned, Some(("max_execution_time", &*super::super::RESPONSE_TIMEOUT.as_secs().to_string())));
    }

    #[test]
    fn a_request_line_is_short_enough_for_any_proxy() {
        let settings = Settings::new("writer");
        settings.learn(&YOUNG.join(","));
        let mut url = url::Url::parse("http://clickhouse").unwrap();
        url.query_pairs_mut().extend_pairs(settings.inserts());
        assert!(url.as_str().len() < 4_000, "nginx takes 8 kB, and the statement comes on top: {}", url.as_str().len());
    }

    fn answer(code: i32, said: &str) -> Failure {
        Failure { kind: ErrorKind::Permanent, ended: true, message: format!("Code: {code}. DB::Exception: {said}") }
    }

    #[test]
    fn a_forbidden_setting_is_named_with_its_effect() {
        let settings = Settings::new("writer");
        for (code, said, names) in [
            (452, "Setting limit should not be changed.", ["writer may not set limit = 0", "lost"]),
            (164, "Cannot modify 'async_insert' setting in readonly mode.", ["set async_insert = ", "readonly = 2"]),
            (115, "Unknown setting 'apply_patch_parts'.", ["apply_patch_parts", "25.8"]),
        ] {
            let message = settings.explained(answer(code, said)).message;
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
        for (code, said) in [
            (164, "writer: Cannot execute query in readonly mode."),
            (158, "Limit exceeded: max_rows_to_read."),
            // Somebody else's setting, which is only like one of ours.
            (115, "Unknown setting 'limitt'. Maybe you meant ['limit','offset']."),
            (
                115,
                "Setting deduplicate_inserts is neither a builtin setting nor a custom one: maybe deduplicate_insert",
            ),
            // A value of a row.
            (
                469,
                "Constraint `c` is violated at row 1. user_id: 'Setting limit should not (SETTING_CONSTRAINT_VIOLATION)'",
            ),
            (469, "Constraint `c` is violated. user_id: 'Unknown setting deduplicate_insert (UNKNOWN_SETTING)'"),
        ] {
            assert_eq!(settings.explained(answer(code, said)), answer(code, said));
        }
    }

    #[test]
    fn an_older_server_is_asked_again_without_what_it_does_not_know() {
        let settings = Settings::new("writer");
        settings.learn(&YOUNG.join(","));
        let failure = settings.explained(answer(115, "Unknown setting 'deduplicate_insert'."));
        assert_eq!(failure.kind, ErrorKind::Transient);
        let has = |name: &str| settings.inserts().iter().any(|(pinned, _)| *pinned == name);
        assert!(!has("deduplicate_insert") && has("deduplicate_insert_select"));
    }
}
