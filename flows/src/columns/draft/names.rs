//! Names of fields: what they say about their values, and whether a column can have them.

/// Columns that the program fills, and those that ClickHouse has for itself in every table.
const RESERVED: [&str; 28] = [
    "_topic",
    "_timestamp",
    "_timestamp_ms",
    "_key",
    "_headers",
    "_raw_message",
    "_unknown",
    "_source",
    "_partition",
    "_offset",
    "ingested_at",
    "_part",
    "_part_index",
    "_part_starting_offset",
    "_part_uuid",
    "_part_offset",
    "_part_granule_offset",
    "_part_data_version",
    "_partition_id",
    "_partition_value",
    "_sample_factor",
    "_disk_name",
    "_block_number",
    "_block_offset",
    "_row_exists",
    "_table",
    "_database",
    "_distance",
];

/// A longer name is probably a value.
const NAME_BYTES: usize = 100;

/// Words that mean something at the beginning of a column's declaration, or in an expression.
const KEYWORDS: [&str; 14] = [
    "index",
    "constraint",
    "projection",
    "primary",
    "foreign",
    "null",
    "true",
    "false",
    "nan",
    "inf",
    "not",
    "case",
    "distinct",
    "interval",
];

/// Why a column cannot have this name, if it cannot.
pub fn unfit(name: &str) -> Option<&'static str> {
    let first = name.split('.').next().unwrap_or_default();
    if RESERVED.contains(&first) {
        return Some("a column of this name holds something else");
    }
    if name.is_empty() {
        return Some("the empty name");
    }
    if name.len() > NAME_BYTES {
        return Some("too long for a name");
    }
    if name.chars().any(is_invisible) {
        return Some("holds characters that cannot be seen");
    }
    name.split('.').any(str::is_empty).then_some("a dot without a name beside it")
}

/// Control characters, and those that join letters or change their direction: nobody could type or read such a name.
fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Whether it is a name of letters, digits and underscores that begins with a letter, and no word of SQL's own.
pub fn is_plain(name: &str) -> bool {
    name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && !needs_quotes(name) && unfit(name).is_none()
}

fn needs_quotes(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    let is_keyword = KEYWORDS.iter().any(|word| word.eq_ignore_ascii_case(name));
    !begins || is_keyword || !name.bytes().all(is_plain)
}

/// The name as SQL has it: in backquotes where it needs them.
pub fn quoted(name: &str) -> String {
    if !needs_quotes(name) {
        return name.to_owned();
    }
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// Whether the name says that its numbers are times: `created_at`, `eventTime`, `ts`, `timestamp_ms`.
pub fn is_time(name: &str) -> bool {
    const TIMES: [&str; 9] = ["at", "time", "timestamp", "ts", "date", "datetime", "epoch", "created", "updated"];
    const UNITS: [&str; 14] = [
        "s",
        "sec",
        "secs",
        "seconds",
        "ms",
        "msec",
        "millis",
        "milliseconds",
        "us",
        "micros",
        "microseconds",
        "ns",
        "nanos",
        "nanoseconds",
    ];
    let words = words(name);
    let mut last = words.iter().rev().map(String::as_str).skip_while(|word| UNITS.contains(word));
    last.next().is_some_and(|word| TIMES.contains(&word))
}

/// Whether the name says that its numbers are money.
pub fn is_money(name: &str) -> bool {
    const MONEY: [&str; 20] = [
        "price", "amount", "total", "subtotal", "cost", "revenue", "tax", "vat", "fee", "fees", "discount", "balance",
        "payment", "salary", "refund", "shipping", "turnover", "budget", "money", "prices",
    ];
    has(name, &MONEY)
}

/// Whether the name says that its texts are addresses: versions of software, such as 10.0.1.2, look like those, too.
pub fn is_address(name: &str) -> bool {
    const ADDRESSES: [&str; 16] = [
        "ip", "ips", "ipv4", "ipv6", "ip4", "ip6", "addr", "address", "host", "remote", "peer", "client", "server",
        "src", "dst", "gateway",
    ];
    has(name, &ADDRESSES)
}

fn has(name: &str, any: &[&str]) -> bool {
    words(name).iter().any(|word| any.contains(&word.as_str()))
}

/// The words of a name, in small letters: `userIP.created_at` is user, ip, created, at.
fn words(name: &str) -> Vec<String> {
    let (mut words, mut before) = (vec![String::new()], '_');
    for letter in name.chars() {
        let begins = letter.is_uppercase() && !before.is_uppercase();
        if (begins || !letter.is_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_name_say_what_its_values_are() {
        for name in ["created_at", "eventTime", "ts", "meta.timestamp_ms", "Date", "time-micros", "updatedAt"] {
            assert!(is_time(name), "{name}");
        }
        for name in ["attempts", "format", "timeout", "ms", "date_id", "id", ""] {
            assert!(!is_time(name), "{name}");
        }
        assert!(is_money("unitPrice") && is_money("order.total") && !is_money("totally"));
        assert!(
            is_address("clientIp") && is_address("remote_addr") && !is_address("app_version") && !is_address("zip")
        );
    }

    #[test]
    fn a_name_is_quoted_where_sql_needs_that() {
        for (name, expected) in [
            ("user_id", "user_id"),
            ("userId", "userId"),
            ("Index", "`Index`"),
            ("1st", "`1st`"),
            ("geo.country", "`geo.country`"),
            ("a`b\\c", "`a\\`b\\\\c`"),
            ("Größe", "`Größe`"),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn a_name_that_no_column_can_have_is_refused() {
        for name in
            ["", "_offset", "_unknown.x", "_row_exists", "a\nb", "a\u{202e}b", "a.", ".a", "a..b", &"x".repeat(101)]
        {
            assert!(unfit(name).is_some(), "{name:?}");
        }
        for name in ["_id", "a.b", "a b", "`", "ключ"] {
            assert_eq!(unfit(name), None, "{name:?}");
        }
    }
}
