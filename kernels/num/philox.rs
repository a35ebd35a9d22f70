//! Random numbers from a counter and a key.

/// Philox4x32 with ten rounds: 128 random bits for each counter and key.
///
/// Words are kept in the lower halves of u64 and upper halves are ignored, so that a loop over
/// counters is compiled to products of vectors without conversions.
///
/// Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const LOW: u64 = 0xffff_ffff;
    let (mut counter, mut key) = (counter.map(u64::from), key);
    for round in 0..10 {
        if round > 0 {
            // The fractions of the golden ratio and of the square root of 3.
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let [a, b, c, d] = counter;
        let p = (a & LOW) * 0xd251_1f53;
        let q = (c & LOW) * 0xcd9e_8d57;
        let [k, l] = key.map(u64::from);
        counter = [(q >> 32) ^ b ^ k, q, (p >> 32) ^ d ^ l, p];
    }
    counter.map(|word| word as u32)
}

/// Joins two words, the lower one first.
#[inline(always)]
pub fn low_first(a: u32, b: u32) -> u64 {
    u64::from(b) << 32 | u64::from(a)
}

/// Random numbers for the elements `2 * pair` and `2 * pair + 1` of a row, each in the middle of
/// one of 2^52 intervals of (0, 1). The key is the first two words of `bits`; the counter is
/// `pair`, 0 and the other two words.
#[inline(always)]
pub(crate) fn noise(bits: [u32; 4], pair: u32) -> [f64; 2] {
    let [a, b, c, d] = bits;
    let [e, f, g, h] = philox([pair, 0, c, d], [a, b]);
    // A number from 1 to 2 in steps of 2^-52, minus 1, plus half a step: exact.
    let middle = |bits: u64| f64::from_bits(bits >> 12 | 0x3ff << 52) - (1.0 - f64::EPSILON / 2.0);
    [middle(low_first(e, f)), middle(low_first(g, h))]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' library, Random123.
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        for (counter, key, bits) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), bits);
        }
    }
}
