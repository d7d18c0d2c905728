//! Vectors of RFC 8439 and of Wycheproof, and extreme numbers, through every way there is here. Those with additional
//! data or another nonce than WireGuard's do not fit the interface; the lanes compute their tags all the same, under
//! one-time keys made the slow way. (All of Wycheproof's are such: none has a nonce that begins with four zeros.)

use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::batch::{GROUP, Lanes, Message, PASS, Segment};
use super::{Aead, Key, Open, Seal, TAG_LENGTH, Way};

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn zeros(count: usize) -> String {
    "00".repeat(count)
}

/// Calls the lanes of every way that has lanes.
fn tags(messages: &[Message<'_>], keys: &[[u8; 32]]) -> Vec<Vec<[u8; TAG_LENGTH]>> {
    let with = |way: Aead| {
        let mut tags = vec![[0; TAG_LENGTH]; keys.len()];
        match way.0 {
            Way::Avx512(lanes) => lanes.tags(messages, keys, &mut tags),
            Way::Avx2(lanes) => lanes.tags(messages, keys, &mut tags),
            Way::Ring => return None,
        }
        Some(tags)
    };
    Aead::all().into_iter().filter_map(with).collect()
}

/// Keystream of the lanes of every way that has lanes.
fn keystream(segments: &[Segment<'_>]) -> Vec<[[u8; 64]; PASS]> {
    let with = |way: Aead| {
        let mut stream = [[0; 64]; PASS];
        match way.0 {
            Way::Avx512(lanes) => lanes.keystream(segments, &mut stream),
            Way::Avx2(lanes) => lanes.keystream(segments, &mut stream),
            Way::Ring => return None,
        }
        Some(stream)
    };
    Aead::all().into_iter().filter_map(with).collect()
}

/// Holds every way to the tag of a message of whole blocks, alone and among as many of its own kind as fit.
fn poly1305(key: &str, message: &str, tag: &str) {
    let (key, message): ([u8; 32], _) = (hex(key).try_into().unwrap(), hex(message));
    let (data, last) = message.split_at(message.len() - 16);
    let message = Message {
        data,
        last: words(last),
    };
    for count in 1..=GROUP {
        for tags in tags(&vec![message; count], &vec![key; count]) {
            assert!(tags.iter().all(|found| found[..] == hex(tag)), "{count} of {data:?}");
        }
    }
}

fn words(block: &[u8]) -> [u64; 2] {
    let (words, _) = block.as_chunks();
    [0, 1].map(|i| u64::from_le_bytes(words[i]))
}

#[test]
fn rfc_8439_a3_poly1305() {
    let ones = "ff".repeat(16);
    let number = |low: &str| format!("{low}{}", zeros(16 - low.len() / 2));
    let key = |r: &str| number(r) + &zeros(16);
    // Vector 1.
    poly1305(&zeros(32), &zeros(64), &zeros(16));
    // Vectors 7 to 11: values about the modulus and about 2^128.
    poly1305(&key("02"), &ones, &number("03"));
    poly1305(&(number("02") + &ones), &number("02"), &number("03"));
    let message = format!("{ones}f0{}{}", "ff".repeat(15), number("11"));
    poly1305(&key("01"), &message, &number("05"));
    let message = format!("{ones}fb{}{}", "fe".repeat(15), "01".repeat(16));
    poly1305(&key("01"), &message, &zeros(16));
    let message = format!("fd{}", "ff".repeat(15));
    poly1305(&key("02"), &message, &format!("fa{}", "ff".repeat(15)));
    // The second vectors 10 and 11: carries into the top limb.
    let r = key("01000000000000000400000000000000");
    let message = number("e33594d7505e43b9") + "3394d7505e4379cd0100000000000000" + &zeros(16);
    poly1305(&r, &message, &number("13"));
    let message = message + &number("01");
    poly1305(&r, &message, "14000000000000005500000000000000");
}

#[test]
fn rfc_8439_a4_poly1305_keys() {
    let (zero, mut one) = ([0; 32], [0; 32]);
    one[31] = 1;
    let segment = |key, counter| Segment {
        key,
        counter,
        packet: 0,
        first: 0,
        count: 1,
    };
    // The nonce of vector 2 ends in the byte 2.
    for stream in keystream(&[segment(&zero, 0), segment(&one, 2 << 56)]) {
        assert_eq!(
            stream[0][..32],
            hex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
        );
        assert_eq!(
            stream[1][..32],
            hex("ecfa254f845f647473d3cb140da9e87606cb33066c447b87bc2666dde3fbb739")
        );
    }
}

/// Holds every way to one packet, alone and among five of its kind, and to a forgery of it.
fn packet(key: &Key, counter: u64, text: &[u8], sealed: &[u8]) {
    for (aead, count) in Aead::all().into_iter().flat_map(|aead| [(aead, 1), (aead, 5)]) {
        let mut targets = vec![vec![0; sealed.len()]; count];
        let jobs = targets
            .iter_mut()
            .map(|target| Seal::new(key, counter, text, target).unwrap());
        aead.seal(&mut jobs.collect::<Vec<_>>());
        assert!(targets.iter().all(|target| target == sealed), "{}", aead.name());
        let mut place = [text, &[0; TAG_LENGTH]].concat();
        aead.seal(&mut [Seal::in_place(key, counter, &mut place).unwrap()]);
        assert_eq!(place, sealed, "{}", aead.name());

        let mut sources = vec![sealed.to_vec(); count];
        sources[count - 1][text.len()] ^= 1;
        let mut targets = vec![vec![1; text.len()]; count];
        let pairs = sources.iter().zip(&mut targets);
        let mut jobs: Vec<_> = pairs
            .map(|(from, to)| Open::new(key, counter, from, to).unwrap())
            .collect();
        aead.open(&mut jobs);
        let (forgery, rest) = jobs.split_last().unwrap();
        assert!(!forgery.opened() && rest.iter().all(Open::opened), "{}", aead.name());
        let (forgery, rest) = targets.split_last().unwrap();
        assert!(forgery.iter().all(|byte| *byte == 0) && rest.iter().all(|target| target == text));
    }
}

/// The ciphertext of that section; it has no tag, so that is computed the slow way.
#[test]
fn rfc_8439_2_4_2_encryption() {
    let key = Key(std::array::from_fn(|i| i as u8));
    let text = b"Ladies and Gentlemen of the class of '99: If I could offer you \
        only one tip for the future, sunscreen would be it.";
    let ciphertext = hex("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b\
        f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8\
        07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736\
        5af90bbf74a35be6b40b8eedf2785e42874d");
    let counter = u64::from_le_bytes([0, 0, 0, 0x4a, 0, 0, 0, 0]);
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let one_time = plain_block(&key.0, 0, &nonce)[..32].try_into().unwrap();
    let tag = plain_poly1305(&one_time, &padded(&[], &ciphertext));
    packet(&key, counter, text, &[&ciphertext[..], &tag].concat());
}

#[test]
fn wycheproof() {
    let set = TestSet::load(TestName::ChaCha20Poly1305).unwrap();
    let (mut computed, mut refused) = (0, 0);
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96) {
        for test in &group.tests {
            let key: [u8; 32] = test.key[..].try_into().unwrap();
            let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
            let one_time = plain_block(&key, 0, &nonce)[..32].try_into().unwrap();
            let padded = padded(&test.aad, &test.ct);
            let (data, last) = padded.split_at(padded.len() - 16);
            let valid = test.result != TestResult::Invalid;
            for tags in tags(
                &[Message {
                    data,
                    last: words(last),
                }; 3],
                &[one_time; 3],
            ) {
                assert!(
                    tags.iter().all(|tag| (tag[..] == test.tag[..]) == valid),
                    "test {}",
                    test.tc_id
                );
                computed += 1;
            }
            refused += usize::from(!valid);
        }
    }
    eprintln!("{computed} tags, of which invalid: {refused} a way");
    assert!(computed == 0 || computed > 200, "{computed}");
    assert!(refused > 50, "{refused}");
}

/// The message of an AEAD (RFC 8439, 2.8), with the lengths.
fn padded(aad: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for part in [aad, ciphertext] {
        message.extend(part);
        message.resize(message.len().next_multiple_of(16), 0);
    }
    [aad, ciphertext]
        .iter()
        .for_each(|part| message.extend((part.len() as u64).to_le_bytes()));
    message
}

/// A block of ChaCha20 the slow way (RFC 8439, 2.3).
fn plain_block(key: &[u8; 32], number: u32, nonce: &[u8; 12]) -> [u8; 64] {
    let bytes = [&b"expand 32-byte k"[..], key, &number.to_le_bytes(), nonce].concat();
    let start: [u32; 16] = std::array::from_fn(|i| u32::from_le_bytes(bytes.as_chunks().0[i]));
    let mut x = start;
    for round in 0..20 {
        for column in 0..4 {
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| 4 * row + (column + row * (round % 2)) % 4);
            for (to, from, target, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
                x[to] = x[to].wrapping_add(x[from]);
                x[target] = (x[target] ^ x[to]).rotate_left(by);
            }
        }
    }
    let words: [[u8; 4]; 16] = std::array::from_fn(|i| x[i].wrapping_add(start[i]).to_le_bytes());
    words.as_flattened().try_into().unwrap()
}

/// Poly1305 of whole blocks the slow way, with the limbs of a long number.
fn plain_poly1305(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    let r: [u32; 4] = std::array::from_fn(|i| {
        u32::from_le_bytes(key.as_chunks().0[i]) & if i == 0 { 0x0fff_ffff } else { 0x0fff_fffc }
    });
    let low_half = 0xffff_ffff;
    let mut h = [0u64; 5];
    for block in message.chunks(16) {
        let mut bytes = [0; 20];
        bytes[..block.len()].copy_from_slice(block);
        bytes[block.len()] = 1;
        let mut carry = 0;
        for (limb, word) in h.iter_mut().zip(bytes.as_chunks().0) {
            carry += *limb + u64::from(u32::from_le_bytes(*word));
            (*limb, carry) = (carry & low_half, carry >> 32);
        }
        let mut product = [0u64; 9];
        for (i, limb) in h.into_iter().enumerate() {
            let mut carry = 0;
            for (j, r) in r.into_iter().enumerate() {
                let sum = u128::from(limb) * u128::from(r) + u128::from(product[i + j]) + carry;
                (product[i + j], carry) = (sum as u64 & low_half, sum >> 32);
            }
            product[i + 4] = carry as u64;
        }
        // Twice: what is above 2^130 comes back five times.
        for _ in 0..2 {
            let high: [u64; 5] =
                std::array::from_fn(|i| (product[i + 4] >> 2 | product.get(i + 5).unwrap_or(&0) << 30) & low_half);
            product[4] &= 3;
            product[5..].fill(0);
            let mut carry = 0;
            for i in 0..5 {
                carry += product[i] + 5 * high[i];
                (product[i], carry) = (carry & low_half, carry >> 32);
            }
        }
        h.copy_from_slice(&product[..5]);
    }
    let (low, top) = ((0..4).fold(0u128, |sum, i| sum | u128::from(h[i]) << (32 * i)), h[4]);
    let above = top > 3 || (top == 3 && low >= u128::MAX - 4);
    let low = if above { low.wrapping_add(5) } else { low };
    low.wrapping_add(u128::from_le_bytes(key[16..].try_into().unwrap()))
        .to_le_bytes()
}

#[test]
fn poly1305_of_extreme_numbers() {
    let extremes = [
        0u64,
        !0,
        !0 - 1,
        1,
        !5,
        !4,
        1 << 44,
        (1 << 44) - 1,
        (1 << 26) - 1,
        0x03ff_ffff_ffff,
    ];
    let mut x = 1u64;
    let mut word = move || {
        x = x
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        if x >> 60 < 3 {
            x.rotate_left(29)
        } else {
            extremes[(x >> 56) as usize % extremes.len()]
        }
    };
    for case in 0..5_000 {
        let (length, count) = (2 * (case % 67), 1 + case % GROUP);
        let mut bytes = |words: usize| (0..words).flat_map(|_| word().to_le_bytes()).collect::<Vec<u8>>();
        // Messages of a group are of several lengths.
        let whole: Vec<Vec<u8>> = (0..count)
            .map(|i| bytes(2 + length.saturating_sub(2 * i * (case % 3))))
            .collect();
        let keys: Vec<[u8; 32]> = (0..count).map(|_| bytes(4).try_into().unwrap()).collect();
        let split = whole.iter().map(|whole| whole.split_at(whole.len() - 16));
        let messages: Vec<_> = split
            .map(|(data, last)| Message {
                data,
                last: words(last),
            })
            .collect();
        for tags in tags(&messages, &keys) {
            for (i, tag) in tags.iter().enumerate() {
                assert_eq!(*tag, plain_poly1305(&keys[i], &whole[i]), "case {case}, message {i}");
            }
        }
    }
}
