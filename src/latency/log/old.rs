//! HdrHistogram's encodings V0 and V1, which logs of the versions 1.01 and 1.1 have, rewritten as V2.
//!
//! They hold every count as a number of 2, 4 or 8 bytes, big-endian; the second half of the cookie's last byte but one says how
//! many. Format: HdrHistogram's `AbstractHistogram.decodeFromByteBuffer`.

use super::encoding::{COOKIE, HEADER, MOST_EVENTS, word};

const V0: u32 = 0x1c84_9308;
const V1: u32 = 0x1c84_9301;
const V0_COMPRESSED: u32 = 0x1c84_9309;
const V1_COMPRESSED: u32 = 0x1c84_9302;
const V0_HEADER: usize = 32;

/// The cookie without the size of a count.
fn base(cookie: u32) -> u32 {
    cookie & !0xf0
}

/// Whether a compressed histogram is in one of these encodings.
pub fn is_compressed(cookie: u32) -> bool {
    matches!(base(cookie), V0_COMPRESSED | V1_COMPRESSED)
}

/// Rewrites a histogram that was decompressed.
///
/// # Errors
/// Why it is none.
pub fn as_v2(plain: &[u8]) -> Result<Vec<u8>, &'static str> {
    const NOT_WHOLE: &str = "its histogram is not whole";
    if plain.len() < V0_HEADER {
        return Err(NOT_WHOLE);
    }
    let cookie = word(plain, 0);
    // The fields from the offset for shifted counts on, up to the ratio for histograms of fractions.
    let (fields, counts) = match base(cookie) {
        V0 => ([&[0; 4], &plain[4..24], &1_f64.to_be_bytes()[..]].concat(), &plain[V0_HEADER..]),
        V1 if plain.len() >= HEADER => {
            let counts = plain[HEADER..].get(..word(plain, 4) as usize).ok_or(NOT_WHOLE)?;
            (plain[8..HEADER].to_vec(), counts)
        }
        _ => return Err("its histogram is in no encoding of HdrHistogram's"),
    };
    let counts = match cookie >> 4 & 0xe {
        size @ (2 | 4 | 8) if counts.len() % size as usize == 0 => encode(counts.chunks_exact(size as usize))?,
        _ => return Err("its counts are not whole"),
    };
    let length = u32::try_from(counts.len()).map_err(|_| NOT_WHOLE)?;
    Ok([&COOKIE.to_be_bytes()[..], &length.to_be_bytes(), &fields, &counts].concat())
}

/// Counts in the encoding of V2: zig-zag LEB128, with a negative number for a run of zeros. Zeros at the end are left
/// out.
fn encode<'c>(counts: impl Iterator<Item = &'c [u8]>) -> Result<Vec<u8>, &'static str> {
    let (mut encoded, mut zeros) = (Vec::new(), 0_u64);
    for bytes in counts {
        let is_negative = bytes[0] & 0x80 != 0;
        match bytes.iter().fold(0_u64, |count, &byte| count << 8 | u64::from(byte)) {
            0 => zeros += 1,
            count @ 1..=MOST_EVENTS if !is_negative => {
                if zeros > 0 {
                    push(&mut encoded, 2 * std::mem::take(&mut zeros) - 1);
                }
                push(&mut encoded, 2 * count);
            }
            _ => return Err("its counts are impossible"),
        }
    }
    Ok(encoded)
}

fn push(encoded: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        encoded.push(number as u8 | 0x80);
        number >>= 7;
    }
    encoded.push(number as u8);
}
