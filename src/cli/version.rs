//! The versions of this program and of what it speaks with, for `--version`.

use crate::clickhouse::OLDEST_VERSION;
use std::sync::LazyLock;

/// The program with its commit, the Kafka client in it, and the ClickHouse that it needs.
pub fn of_all_parts() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
        format!(
            "{} ({})\nlibrdkafka {librdkafka}\nClickHouse {OLDEST_VERSION} or newer",
            env!("CARGO_PKG_VERSION"),
            env!("CLICKSTREAM_COMMIT")
        )
    });
    &TEXT
}

#[cfg(test)]
mod tests {
    use super::of_all_parts;

    #[test]
    fn the_version_names_the_commit_and_the_versions_of_both_sides() {
        let text = of_all_parts();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with(env!("CARGO_PKG_VERSION")) && lines[0].ends_with(')'), "{text}");
        assert!(!lines[0].contains("()"), "{text}");
        assert!(lines[1].starts_with("librdkafka 2."), "{text}");
        assert_eq!(lines[2], "ClickHouse 25.8 or newer");
    }
}
