//! Sorting keys, as ClickHouse writes them.

/// The expressions of a sorting key, whose own commas stand in brackets.
pub fn expressions(sorting_key: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let is_between = |c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    sorting_key.split(is_between).map(str::trim).collect()
}
