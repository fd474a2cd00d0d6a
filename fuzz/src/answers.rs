//! Property: of an upstream's bytes, our HTTP/1.1 client takes for the answer what the oracle does, or fewer; and its
//! connection carries another request only where the oracle says that it may, and nothing came behind. The input is a byte
//! that says how they come and to which method, and then what the upstream says before it hangs up.

use oracle::answer;
use vestibule::upstream::probe::{self, Got};

/// Less than the first of our client's reads.
const ONE_READ: usize = 4096;

pub fn holds(input: &[u8]) {
    let Some((how, said)) = input.split_first() else {
        return;
    };
    let to_head = how & 1 == 1;
    let piece = [usize::MAX, 1, 3, 64][usize::from(how >> 1 & 3)];
    let (got, due) = (probe::read_answer(to_head, said, piece), answer::read(to_head, said));
    let Some(Got {
        status,
        headers,
        body,
        whole,
        reusable,
    }) = got
    else {
        return;
    };
    // What we refuse others may take; never the other way round.
    let Some(due) = due else {
        panic!("taken for {status}: {}", said.escape_ascii());
    };
    assert_eq!(status, due.status, "{}", said.escape_ascii());
    let fields: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "connection" | "content-length" | "transfer-encoding"))
        .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    // A map tells the order within a name alone.
    let sorted = |mut fields: Vec<(Vec<u8>, Vec<u8>)>| {
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        fields
    };
    assert_eq!(sorted(fields), sorted(due.fields), "{}", said.escape_ascii());
    if whole {
        assert!(
            due.whole && body == due.body,
            "{:?} rather than {:?}: {}",
            body,
            due.body,
            said.escape_ascii()
        );
    } else {
        assert!(
            due.body.starts_with(&body) || body.starts_with(&due.body),
            "{}",
            said.escape_ascii()
        );
    }
    if reusable {
        assert!(due.reusable, "the connection is used again: {}", said.escape_ascii());
        // In one read, what came behind was seen.
        let seen = piece == usize::MAX && said.len() < ONE_READ;
        assert!(
            !seen || due.length == said.len(),
            "something came behind: {}",
            said.escape_ascii()
        );
    }
}
