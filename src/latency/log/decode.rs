//! Decodes a histogram out of bytes from any writer: every length and count is checked before it is used.
//!
//! Format: HdrHistogram's V2 encoding (`AbstractHistogram.encodeIntoCompressedByteBuffer`). It is a cookie and a
//! length, then, in zlib, a header of 40 bytes and the counts as zig-zag LEB128. A negative number is a run of zeros.
//! The earlier encodings are [rewritten](super::old) first.

use super::encoding::{COOKIE, HEADER, MOST_EVENTS, word};
use super::old;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use std::io::Read;

const COMPRESSED_COOKIE: u32 = 0x1c84_9314;
/// Counts that a histogram may have, 8 MB of them; ours has 24,576.
const MOST_COUNTS: u64 = 1 << 20;
/// The longest a count can be, in bytes.
const LONGEST: u64 = 9;

/// Reads a compressed histogram.
///
/// # Errors
/// Why it is none.
pub fn decode(bytes: &[u8]) -> Result<Histogram<u64>, &'static str> {
    let cookie = if bytes.len() < 8 { 0 } else { word(bytes, 0) };
    let is_old = old::is_compressed(cookie);
    if cookie != COMPRESSED_COOKIE && !is_old {
        return Err("its histogram is in no encoding of HdrHistogram's");
    }
    let most = HEADER as u64 + MOST_COUNTS * LONGEST;
    let mut plain = Vec::new();
    let inflated = flate2::read::ZlibDecoder::new(&bytes[8..]).take(most).read_to_end(&mut plain);
    inflated.map_err(|_| "its histogram cannot be decompressed")?;
    let plain = if is_old { old::as_v2(&plain)? } else { plain };
    check(&plain)?;
    Deserializer::new().deserialize(&mut &plain[..]).map_err(|_| "its histogram has impossible parameters")
}

fn check(plain: &[u8]) -> Result<(), &'static str> {
    if plain.len() < HEADER || word(plain, 0) != COOKIE || word(plain, 4) as usize != plain.len() - HEADER {
        return Err("its histogram is not whole");
    }
    let (digits, lowest, highest) = (word(plain, 12), long(plain, 16), long(plain, 24));
    let counts = counts_of(digits, lowest, highest).ok_or("its histogram has impossible parameters")?;
    if counts > MOST_COUNTS {
        return Err("its histogram is finer or wider than any that latencies need");
    }
    let mut rest = &plain[HEADER..];
    let mut at = 0_u64;
    while !rest.is_empty() {
        let encoded = varint(&mut rest).ok_or("its counts are not whole")?;
        // Zig-zag: odd numbers are negative, and stand for zeros.
        let half = encoded >> 1;
        let covered = if encoded & 1 == 1 { half.saturating_add(1) } else { 1 };
        if encoded & 1 == 0 && half > MOST_EVENTS {
            return Err("its counts are impossible");
        }
        at = at.saturating_add(covered);
        if at > counts {
            return Err("it has more counts than its range");
        }
    }
    Ok(())
}

/// How many counts a histogram of these parameters has, as HdrHistogram lays them out.
fn counts_of(digits: u32, lowest: u64, highest: u64) -> Option<u64> {
    if digits > 5 || lowest == 0 || highest < lowest.checked_mul(2)? {
        return None;
    }
    let sub_buckets = (2 * 10_u64.pow(digits)).next_power_of_two();
    let mut covered =
        sub_buckets.checked_shl(lowest.ilog2()).filter(|covered| covered >> lowest.ilog2() == sub_buckets)?;
    let mut buckets = 1;
    while covered <= highest {
        buckets += 1;
        covered = covered.saturating_mul(2);
        if covered == u64::MAX {
            break;
        }
    }
    Some((buckets + 1) * (sub_buckets / 2))
}

/// LEB128 of at most nine bytes, the last of them whole.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for nth in 0..LONGEST {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        if nth == LONGEST - 1 {
            return Some(value | u64::from(byte) << (7 * nth));
        }
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) << 32 | u64::from(word(bytes, at + 4))
}
