//! How a signature is spelled behind a token: base64, percent-encoded in a cookie.

/// Base64 of a SHA-256, with its padding.
const SIGNATURE_LEN: usize = 44;

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Spelling {
    /// As `encodeURIComponent` writes it, and no other way.
    Cookie,
    /// Encoded or not.
    Bearer,
}

pub(super) fn decode_signature(text: &[u8], spelling: Spelling) -> Option<[u8; 32]> {
    let mut base64 = [0; SIGNATURE_LEN];
    let mut places = base64.iter_mut();
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        let byte = match (*byte, spelling) {
            (b'%', _) => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                match (digits, spelling) {
                    (b"2B", _) | (b"2b", Spelling::Bearer) => b'+',
                    (b"2F", _) | (b"2f", Spelling::Bearer) => b'/',
                    (b"3D", _) | (b"3d", Spelling::Bearer) => b'=',
                    _ => return None,
                }
            }
            (b'+' | b'/' | b'=', Spelling::Cookie) => return None,
            (byte, _) => byte,
        };
        *places.next()? = byte;
    }
    if places.next().is_some() {
        return None;
    }
    base64_digest(&base64)
}

/// The 32 bytes behind 44 characters of standard base64, in its one canonical form.
///
/// A signature that a client shows is no secret of ours, so unlike `base64ct` this need not take constant time; it is
/// three times as fast, and runs on every request.
fn base64_digest(text: &[u8; SIGNATURE_LEN]) -> Option<[u8; 32]> {
    let (groups, []) = text.as_chunks::<4>() else {
        return None;
    };
    let (last, groups) = groups.split_last()?;
    let mut digest = [0; 32];
    let (places, end) = digest.as_chunks_mut::<3>();
    for ([a, b, c, d], place) in groups.iter().zip(places) {
        let bits = sextet(*a)? << 18 | sextet(*b)? << 12 | sextet(*c)? << 6 | sextet(*d)?;
        let [_, bytes @ ..] = bits.to_be_bytes();
        *place = bytes;
    }
    let [a, b, c, b'='] = *last else { return None };
    let bits = sextet(a)? << 12 | sextet(b)? << 6 | sextet(c)?;
    if bits & 0b11 != 0 {
        return None;
    }
    let [_, _, high, low] = (bits >> 2).to_be_bytes();
    end.copy_from_slice(&[high, low]);
    Some(digest)
}

const fn sextet(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value as u32)
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn our_base64_reads_as_the_library_does(digest in any::<[u8; 32]>(), at in 0_usize..SIGNATURE_LEN, byte in 0x20_u8..0x7f) {
            let mut text: [u8; SIGNATURE_LEN] = Base64::encode_string(&digest).into_bytes().try_into().unwrap();
            prop_assert_eq!(base64_digest(&text), Some(digest));
            text[at] = byte;
            let mut place = [0; 33];
            let library: Option<[u8; 32]> = Base64::decode(text, &mut place).ok().and_then(|bytes| bytes.try_into().ok());
            prop_assert_eq!(base64_digest(&text), library);
        }
    }
}
