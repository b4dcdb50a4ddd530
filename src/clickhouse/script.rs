//! The statements of a file of SQL.

use super::ClickHouse;
use flows::{ErrorKind, Failure};

/// The longest beginning of a statement that an error repeats.
const BEGINNING: usize = 60;

/// A statement, and the line on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement<'s> {
    pub line: usize,
    pub text: &'s str,
}

impl Statement<'_> {
    /// Its first words, for people.
    pub fn beginning(&self) -> &str {
        let line = self.text.lines().next().unwrap_or_default();
        line.char_indices().nth(BEGINNING).map_or(line, |(end, _)| &line[..end])
    }
}

impl ClickHouse {
    /// Runs a statement of the user's own. A table without a database is one of the database of all tables.
    ///
    /// # Errors
    /// When ClickHouse refuses, or does not answer.
    pub async fn apply(&self, statement: &Statement<'_>) -> Result<(), Failure> {
        let applied = self.execute(self.query(statement.text).with_setting("database", &self.database)).await;
        applied.map_err(|failure| {
            // A statement that ClickHouse has refused is to be corrected, not to be repeated.
            let kind = if failure.kind == ErrorKind::Transient { failure.kind } else { ErrorKind::Permanent };
            super::schema::may_not(Failure { kind, ..failure })
        })
    }
}

/// The statements of a script, with the comments inside of them.
pub fn statements(script: &str) -> Vec<Statement<'_>> {
    let (mut found, mut begin, mut at) = (Vec::new(), None, 0);
    while let Some(letter) = script[at..].chars().next() {
        let end = at + token(&script[at..]);
        let is_space = letter.is_whitespace() || comment(&script[at..]).is_some();
        match begin {
            Some(from) if letter == ';' => {
                found.push(statement(script, from, at));
                begin = None;
            }
            None if !is_space && letter != ';' => begin = Some(at),
            _ => {}
        }
        at = end;
    }
    found.extend(begin.map(|from| statement(script, from, script.len())));
    found
}

fn statement(script: &str, begin: usize, end: usize) -> Statement<'_> {
    Statement { line: script[..begin].matches('\n').count() + 1, text: script[begin..end].trim_end() }
}

/// The bytes of the comment, of the quoted text, or of the letter at the beginning.
fn token(rest: &str) -> usize {
    let letter = rest.chars().next().map_or(0, char::len_utf8);
    match rest.as_bytes().first() {
        Some(&quote @ (b'\'' | b'"' | b'`')) => closing(rest.as_bytes(), quote),
        _ => comment(rest).unwrap_or(letter),
    }
}

/// The bytes of a comment at the beginning, if there is one.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("--") || rest.starts_with("# ") || rest.starts_with("#!") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.starts_with("/*").then(|| rest.find("*/").map_or(rest.len(), |end| end + 2))
}

/// The bytes up to the closing quote, which is doubled or has a backslash before it inside of the text.
fn closing(quoted: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < quoted.len() {
        match quoted[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    quoted.len()
}

#[cfg(test)]
mod tests {
    use super::super::mock::{Mock, exception, rows};
    use super::*;

    #[tokio::test]
    async fn a_statement_that_clickhouse_refuses_is_not_repeated() {
        let mock = Mock::start().await;
        let statement = Statement { line: 1, text: "CREATE TABLE web (x Strin)" };
        for (code, says, kind) in [
            (50, "Unknown data type family: Strin", ErrorKind::Permanent),
            (202, "Too many simultaneous queries", ErrorKind::Transient),
        ] {
            mock.expect("CREATE TABLE web", exception(code, says));
            let failure = mock.clickhouse().apply(&statement).await.unwrap_err();
            assert!(failure.kind == kind && failure.message.contains(says), "{failure}");
        }
        mock.expect("CREATE TABLE web", rows(""));
        mock.clickhouse().apply(&statement).await.unwrap();
    }

    fn split(script: &str) -> Vec<(usize, &str)> {
        statements(script).iter().map(|statement| (statement.line, statement.text)).collect()
    }

    #[test]
    fn a_script_is_split_at_semicolons_that_are_neither_quoted_nor_in_a_comment() {
        let script = "-- a; b\nCREATE TABLE `a;\\`;` (x String DEFAULT ';''\\';') -- not; here\n  ENGINE = Null;\n\n/* ;\n */ SELECT \"é;\" ; ;\n# x;\nSELECT 1 -- end";
        assert_eq!(
            split(script),
            [
                (2, "CREATE TABLE `a;\\`;` (x String DEFAULT ';''\\';') -- not; here\n  ENGINE = Null"),
                (6, "SELECT \"é;\""),
                (8, "SELECT 1 -- end"),
            ]
        );
        for nothing in ["", " ; \n;", "-- only a comment", "/* open"] {
            assert_eq!(split(nothing), [], "{nothing}");
        }
        assert_eq!(split("SELECT 'open; "), [(1, "SELECT 'open;")]);
        assert_eq!(split("SELECT 'open\\"), [(1, "SELECT 'open\\")]);
    }

    #[test]
    fn a_statement_is_named_by_its_first_line() {
        let statement = |text| Statement { line: 1, text }.beginning().to_owned();
        assert_eq!(statement("CREATE TABLE a\n(x)"), "CREATE TABLE a");
        assert_eq!(statement(&"é".repeat(100)), "é".repeat(60));
    }
}
