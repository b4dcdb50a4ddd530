//! A condition in an operator's own SQL, which stands in brackets in our statements and must not reach beyond them.

use std::str::FromStr;

/// One expression. ClickHouse checks its meaning; this file checks that it ends where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(String);

impl Condition {
    /// The expression, in brackets.
    pub fn sql(&self) -> String {
        format!("({})", self.0)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("expected a condition, like \"user_id = 'u1'\"".into());
        }
        let (mut open, mut characters) = (Vec::new(), text.chars().peekable());
        while let Some(c) = characters.next() {
            match c {
                '\'' | '"' | '`' => skip_quoted(c, &mut characters)?,
                '(' => open.push(')'),
                '[' => open.push(']'),
                '{' => open.push('}'),
                ')' | ']' | '}' if open.pop() == Some(c) => {}
                ')' | ']' | '}' => return Err(format!("expected one expression, found a `{c}` that closes nothing")),
                ';' => return Err("expected one expression, found a `;` outside of quotes".into()),
                '-' if characters.peek() == Some(&'-') => return Err(no_comment("--")),
                '/' if characters.peek() == Some(&'*') => return Err(no_comment("/*")),
                '#' => return Err(no_comment("#")),
                // ClickHouse has strings between $$, and ones between typographic quotes.
                '$' => return Err("expected one expression, found a `$` outside of quotes".into()),
                _ if !c.is_ascii() => return Err(format!("expected one expression, found `{c}` outside of quotes")),
                _ => {}
            }
        }
        match open.pop() {
            None => Ok(Self(text.to_owned())),
            Some(c) => Err(format!("expected one expression, a `{c}` is missing")),
        }
    }
}

/// Skips to the end of the closing quote. A doubled quote closes and opens again, with the same result.
fn skip_quoted(quote: char, characters: &mut impl Iterator<Item = char>) -> Result<(), String> {
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            _ if c == quote => return Ok(()),
            _ => {}
        }
    }
    Err(format!("expected one expression, a `{quote}` is missing"))
}

fn no_comment(found: &str) -> String {
    format!("expected one expression, found a comment (`{found}`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_expression_is_taken_as_it_is() {
        for good in [
            "user_id = 'u1'",
            "user_id IN ('a', 'b') AND timestamp < now() - INTERVAL 1 DAY",
            r"user_id = 'it\'s -- ; /* ) \\' OR user_id = 'it''s ('",
            r#""user_id" = 'x' OR `user_id` LIKE '%é$#;%'"#,
            "has(['a', 'b'], user_id) AND price - -1 > 2 / 3",
            "user_id IN (SELECT id FROM gone)",
        ] {
            assert_eq!(Condition::from_str(good).map(|condition| condition.sql()), Ok(format!("({good})")));
        }
    }

    #[test]
    fn a_condition_that_could_reach_beyond_its_brackets_is_refused() {
        for bad in [
            "",
            " \n",
            "1) OR (1",
            "1; DROP TABLE x",
            "1;",
            "1 -- x",
            "1 /* x",
            "1 # x",
            "1 #! x",
            "(1",
            "[1)",
            "'x",
            r"'x\'",
            "`x",
            r#""x"#,
            "$$)$$",
            "$a$ ' $a$",
            "user_id = \u{2018}x) OR (1\u{2019}",
            "1\u{a0}= 1",
        ] {
            assert!(Condition::from_str(bad).is_err(), "{bad}");
        }
    }
}
