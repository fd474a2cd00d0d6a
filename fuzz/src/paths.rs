//! Property: a path is matched, and sent, in the one form that the oracle says it has; with prefixes taken off and put on
//! it, too. The input is a request target.

use http::uri::PathAndQuery;
use oracle::path::{self, Kept};
use vestibule::{config, policy::path::NormalPath};

pub fn holds(input: &[u8]) {
    let question = input.iter().position(|byte| *byte == b'?').unwrap_or(input.len());
    let (path, query) = input.split_at(question);
    for (slashes, bytes) in [(false, false), (true, false), (false, true), (true, true)] {
        let slow = path::normal(path, Kept { slashes, bytes }).filter(|_| !query.contains(&b'#'));
        let kept = config::Kept { slashes, bytes };
        let from_text = std::str::from_utf8(input)
            .ok()
            .map(|text| NormalPath::parse_keeping(text, kept));
        // What its HTTP library makes of it has lost a fragment; that is refused before.
        let from_library = PathAndQuery::try_from(input)
            .ok()
            .filter(|_| input.starts_with(b"/") && !input.contains(&b'#'))
            .map(|target| NormalPath::keeping(target, kept));
        for fast in [from_text, from_library].into_iter().flatten() {
            match (&fast, &slow) {
                (Ok(fast), Some(slow)) => agree(fast, slow, query),
                (Err(_), None) => {}
                (Ok(fast), None) => panic!("{}: let pass as {fast:?}", input.escape_ascii()),
                (Err(error), Some(slow)) => assert!(
                    !is_plain(query) || input.len() > 60_000,
                    "{}: {error}, and is {slow:?}",
                    input.escape_ascii()
                ),
            }
        }
    }
}

fn agree(fast: &NormalPath, slow: &path::Normal, query: &[u8]) {
    let target = [&slow.path, query].concat();
    assert_eq!(fast.target().as_str().as_bytes(), target, "of {fast:?}");
    for (slashes, bytes) in [(false, false), (true, false), (false, true), (true, true)] {
        let fits = (slashes || !slow.holds.slashes) && (bytes || !slow.holds.bytes);
        let unfit = fast.unfit_for(config::Kept { slashes, bytes });
        assert_eq!(
            unfit.is_none(),
            fits,
            "{fast:?} for a route that keeps {slashes} {bytes}"
        );
    }
    let again =
        NormalPath::parse_keeping(fast.target().as_str(), ALL).unwrap_or_else(|error| panic!("{fast:?}: {error}"));
    assert!(
        again.is_unchanged() && again.target() == fast.target(),
        "{fast:?} became {again:?}"
    );
    for (strip, add) in [(0, ""), (1, ""), (1, "/v2"), (2, "/v%2B/x"), (3, "")] {
        let rewritten = fast
            .rewritten(strip, add)
            .unwrap_or_else(|error| panic!("{fast:?}: {error}"));
        let expected = [&path::rewritten(&slow.path, strip, add.as_bytes())[..], query].concat();
        assert_eq!(
            rewritten.target().as_str().as_bytes(),
            expected,
            "{fast:?} without {strip} behind {add:?}"
        );
    }
}

const ALL: config::Kept = config::Kept {
    slashes: true,
    bytes: true,
};

/// Other bytes a URI has not, so that the library may refuse them.
fn is_plain(query: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%?".contains(byte);
    query.iter().all(plain)
}
