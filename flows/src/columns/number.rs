//! Integers and decimals of up to 256 bits, read exactly from their text.

/// The number of 64-bit words of the widest integer.
const WORDS: usize = 4;

/// A number below 2^256, least significant word first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wide([u64; WORDS]);

impl Wide {
    /// `self * factor + digit`; none where it does not fit.
    fn times_plus(self, factor: u64, digit: u64) -> Option<Self> {
        let (mut words, mut carry) = ([0; WORDS], u128::from(digit));
        for (word, own) in words.iter_mut().zip(self.0) {
            let product = u128::from(own) * u128::from(factor) + carry;
            *word = product as u64;
            carry = product >> 64;
        }
        (carry == 0).then_some(Self(words))
    }

    /// The number of significant bits.
    fn bits(self) -> usize {
        let top = self.0.iter().rposition(|&word| word != 0);
        top.map_or(0, |at| at * 64 + 64 - self.0[at].leading_zeros() as usize)
    }

    /// Whether it is a power of two.
    fn is_power_of_two(self) -> bool {
        self.0.iter().map(|word| word.count_ones()).sum::<u32>() == 1
    }

    /// The lowest `bytes` bytes of it, or of its negative, in two's complement, little endian.
    fn put(self, is_negative: bool, bytes: usize, out: &mut Vec<u8>) {
        let (mut words, mut carry) = (self.0, is_negative);
        if is_negative {
            for word in &mut words {
                (*word, carry) = (!*word).overflowing_add(u64::from(carry));
            }
        }
        let all = words.map(u64::to_le_bytes);
        out.extend(all.as_flattened().iter().take(bytes));
    }
}

/// Why a text is not the number that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotANumber {
    /// The text is no number of this kind at all.
    Text,
    /// The number is outside the type's range.
    Range,
}

/// Appends an integer of so many bytes, little endian. The text is decimal digits, after a sign or none.
pub fn integer(text: &str, bytes: usize, is_signed: bool, out: &mut Vec<u8>) -> Result<(), NotANumber> {
    let (is_negative, digits) = split_sign(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotANumber::Text);
    }
    // Nineteen digits always fit into 64 bits.
    if digits.len() < 20 && bytes <= 8 {
        let value = digits.bytes().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        let limit = u64::MAX >> (64 - bytes * 8);
        let fits = match (is_signed, is_negative) {
            (false, false) => value <= limit,
            (false, true) => value == 0,
            (true, false) => value <= limit >> 1,
            (true, true) => value <= (limit >> 1) + 1,
        };
        if !fits {
            return Err(NotANumber::Range);
        }
        let signed = if is_negative { value.wrapping_neg() } else { value };
        out.extend_from_slice(&signed.to_le_bytes()[..bytes]);
        return Ok(());
    }
    let value = digits.bytes().try_fold(Wide::default(), |value, digit| value.times_plus(10, u64::from(digit - b'0')));
    put_in_range(value.ok_or(NotANumber::Range)?, is_negative, bytes, is_signed, out)
}

fn put_in_range(
    value: Wide,
    is_negative: bool,
    bytes: usize,
    is_signed: bool,
    out: &mut Vec<u8>,
) -> Result<(), NotANumber> {
    let bits = bytes * 8 - usize::from(is_signed);
    let fits = match is_negative {
        false => value.bits() <= bits,
        true if !is_signed => value.bits() == 0,
        // The most negative number has one bit more than the greatest.
        true => value.bits() <= bits || value.bits() == bits + 1 && value.is_power_of_two(),
    };
    if !fits {
        return Err(NotANumber::Range);
    }
    value.put(is_negative, bytes, out);
    Ok(())
}

/// Appends a decimal of so many bytes: the integer of its units of 10^-`scale`, with at most `precision` digits. Digits beyond the scale
/// are left out, as ClickHouse does.
pub fn decimal(text: &str, bytes: usize, precision: u32, scale: u32, out: &mut Vec<u8>) -> Result<(), NotANumber> {
    let (is_negative, unsigned) = split_sign(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().map_err(|_| NotANumber::Text)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.len() + fraction.len() == 0 || !digits().all(|byte| byte.is_ascii_digit()) {
        return Err(NotANumber::Text);
    }
    // Eighteen digits always fit into 63 bits, and so few are never too many.
    if exponent == 0 && whole.len() + scale as usize <= 18 && whole.len() <= (precision - scale) as usize {
        let kept = &fraction.as_bytes()[..fraction.len().min(scale as usize)];
        let value =
            whole.bytes().chain(kept.iter().copied()).fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        let value = value * 10u64.pow(scale - kept.len() as u32);
        let signed = if is_negative { value.wrapping_neg() } else { value };
        out.extend_from_slice(&signed.to_le_bytes()[..bytes.min(8)]);
        out.extend(std::iter::repeat_n(if (signed as i64) < 0 { u8::MAX } else { 0 }, bytes.saturating_sub(8)));
        return Ok(());
    }
    // The digits that stand before the end of the scale.
    let kept = exponent.saturating_add(whole.len() as i64).saturating_add(i64::from(scale));
    let is_zero = digits().all(|digit| digit == b'0');
    let mut value = Wide::default();
    if !is_zero && kept >= 0 {
        let zeros = std::iter::repeat(b'0');
        let significant = digits().chain(zeros).enumerate().take_while(|&(at, _)| (at as i64) < kept);
        // A huge exponent ends soon: a number that is not zero overflows after 77 more digits.
        for (_, digit) in significant {
            value = value.times_plus(10, u64::from(digit - b'0')).ok_or(NotANumber::Range)?;
        }
    }
    // So few digits cannot be too many.
    if kept > i64::from(precision) && !is_below_power_of_ten(value, precision) {
        return Err(NotANumber::Range);
    }
    value.put(is_negative && value != Wide::default(), bytes, out);
    Ok(())
}

fn is_below_power_of_ten(value: Wide, exponent: u32) -> bool {
    let limit = (0..exponent).try_fold(Wide([1, 0, 0, 0]), |limit, _| limit.times_plus(10, 0));
    limit.is_none_or(|limit| value.0.iter().rev().lt(limit.0.iter().rev()))
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn int(text: &str, bytes: usize, is_signed: bool) -> Result<Vec<u8>, NotANumber> {
        let mut out = Vec::new();
        integer(text, bytes, is_signed, &mut out).map(|()| out)
    }

    fn dec(text: &str, precision: u32, scale: u32) -> Result<i128, NotANumber> {
        let mut out = Vec::new();
        decimal(text, 16, precision, scale, &mut out)?;
        Ok(i128::from_le_bytes(out.try_into().unwrap()))
    }

    #[test]
    fn an_integer_fits_up_to_both_ends_of_its_type_and_no_further() {
        for (bytes, is_signed, least, greatest, below, above) in [
            (1, true, "-128", "127", "-129", "128"),
            (1, false, "0", "255", "-1", "256"),
            (8, true, "-9223372036854775808", "9223372036854775807", "-9223372036854775809", "9223372036854775808"),
            (8, false, "0", "18446744073709551615", "-1", "18446744073709551616"),
            (
                16,
                true,
                "-170141183460469231731687303715884105728",
                "170141183460469231731687303715884105727",
                "-170141183460469231731687303715884105729",
                "170141183460469231731687303715884105728",
            ),
            (
                32,
                false,
                "-0",
                "115792089237316195423570985008687907853269984665640564039457584007913129639935",
                "-1",
                "115792089237316195423570985008687907853269984665640564039457584007913129639936",
            ),
        ] {
            assert_eq!(int(least, bytes, is_signed).map(|out| out.len()), Ok(bytes), "{least}");
            assert_eq!(int(greatest, bytes, is_signed).map(|out| out.len()), Ok(bytes), "{greatest}");
            assert_eq!(int(below, bytes, is_signed), Err(NotANumber::Range), "{below}");
            assert_eq!(int(above, bytes, is_signed), Err(NotANumber::Range), "{above}");
        }
        for text in ["", "-", "1.0", "1e3", "0x10", " 1", "1 ", "١", "nan"] {
            assert_eq!(int(text, 4, true), Err(NotANumber::Text), "{text:?}");
        }
    }

    #[test]
    fn a_decimal_is_exact_and_leaves_out_what_is_beyond_its_scale() {
        for (text, units) in [
            ("29.99", 2_999),
            ("29.994", 2_999),
            ("29.995", 2_999),
            ("-29.999", -2_999),
            ("0.1", 10),
            ("-0.0", 0),
            ("-0.004", 0),
            ("0.009", 0),
            ("1e2", 10_000),
            ("1.5E-1", 15),
            ("99999999.99", 9_999_999_999),
            ("99999999.995", 9_999_999_999),
            ("0e999999999999", 0),
            ("1e-999999999999", 0),
            ("000000000000000000000000000001.00", 100),
        ] {
            assert_eq!(dec(text, 10, 2), Ok(units), "{text}");
        }
        for text in ["100000000", "1e8", "1e999999999999", "-100000000"] {
            assert_eq!(dec(text, 10, 2), Err(NotANumber::Range), "{text}");
        }
        for text in ["", ".", "1.2.3", "1e", "e5", "--1", "1,5", "NaN"] {
            assert_eq!(dec(text, 10, 2), Err(NotANumber::Text), "{text:?}");
        }
        let mut out = Vec::new();
        decimal("1e-76", 32, 76, 76, &mut out).unwrap();
        assert_eq!((out.len(), out[0]), (32, 1));
    }

    proptest! {
        #[test]
        fn integers_are_those_of_rust(value: i128, unsigned: u64, small: i16) {
            prop_assert_eq!(int(&value.to_string(), 16, true).unwrap(), value.to_le_bytes());
            prop_assert_eq!(int(&unsigned.to_string(), 8, false).unwrap(), unsigned.to_le_bytes());
            prop_assert_eq!(int(&small.to_string(), 2, true).unwrap(), small.to_le_bytes());
            prop_assert_eq!(int(&value.to_string(), 32, true).unwrap()[16..].to_vec(), vec![if value < 0 { 255 } else { 0 }; 16]);
        }

        #[test]
        fn decimals_are_integers_with_a_point(units in -999_999_999_999_999_999i64..=999_999_999_999_999_999, scale in 0u32..18) {
            let (sign, digits) = (if units < 0 { "-" } else { "" }, format!("{:0>19}", units.unsigned_abs()));
            let (whole, fraction) = digits.split_at(19 - scale as usize);
            let text = format!("{sign}{whole}.{fraction}");
            prop_assert_eq!(dec(&text, 18, scale), Ok(units.into()));
        }
    }
}
