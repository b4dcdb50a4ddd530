//! HdrHistogram's V2 encoding, as far as its readers share it: a header, then the counts.

/// The first four bytes of a histogram that is not compressed.
pub const COOKIE: u32 = 0x1c84_9313;
/// Bytes of the header.
pub const HEADER: usize = 40;
/// Events that one value of one interval may have: more than anybody counts, and so few that sums cannot overflow.
pub const MOST_EVENTS: u64 = 1 << 40;

/// Four bytes, big-endian.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
}
