//! Whose session a request shows, and what of its credentials an upstream may see.
//!
//! Nothing is computed here: which cookies are signed, and which tokens are of live sessions, is told by a list of
//! [`Person`]s. What is not on the list was made up by somebody.

use crate::http1::{Field, trimmed, values};

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Person {
    /// The bare session token.
    pub token: String,
    /// The signature behind it, in base64.
    pub signature: String,
    pub roles: Vec<String>,
    /// What upstreams are told: names in lower case.
    pub identity: Vec<(String, String)>,
    /// Whether the session is live.
    pub live: bool,
}

/// How our cookies are called.
#[derive(Clone, Debug)]
pub struct Names {
    /// `__Host-vestibule.session_token`.
    pub session: String,
    /// `vestibule.`: how all of ours begin, without `__Host-` or `__Secure-`.
    pub family: String,
}

/// What a request shows.
#[derive(Clone, Debug)]
pub struct Shown<'p> {
    /// Candidates in the order in which they count: a token, and whether it came in a cookie. Who it is, if it is on the
    /// list.
    pub candidates: Vec<(Option<&'p Person>, By)>,
    pub authorization: Ownership,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    Cookie,
    Bearer,
}

/// Whose business an `Authorization` is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ownership {
    Theirs,
    /// It has the form of our tokens, unsigned: ours if it is a live session's.
    Unknown,
    Ours,
}

/// More cookies of the session's name than that are none.
const MANY: usize = 8;

pub fn shown<'p>(fields: &[Field], names: &Names, people: &'p [Person]) -> Shown<'p> {
    let mut candidates = Vec::new();
    let lines = values(fields, b"authorization");
    let bearers: Vec<_> = lines.iter().map(|line| bearer(line, people)).collect();
    let mut authorization = bearers
        .iter()
        .map(|(owner, _)| *owner)
        .max()
        .unwrap_or(Ownership::Theirs);
    if let [(owner, person)] = bearers[..] {
        if owner != Ownership::Theirs {
            candidates.push((person, By::Bearer));
        }
    } else if authorization != Ownership::Theirs || lines.len() > MANY + 1 {
        // Nobody looks up which of several is whose.
        authorization = Ownership::Ours;
    }
    if let Some(person) = by_cookie(fields, names, people) {
        candidates.push((Some(person), By::Cookie));
    }
    Shown {
        candidates,
        authorization,
    }
}

/// Whose token a line has, if it is one of ours.
fn bearer<'p>(line: &[u8], people: &'p [Person]) -> (Ownership, Option<&'p Person>) {
    if line.len() < 7 || !line[..7].eq_ignore_ascii_case(b"bearer ") {
        return (Ownership::Theirs, None);
    }
    let value = trimmed(&line[7..]);
    if (32..=64).contains(&value.len())
        && value
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_')
    {
        let person = people.iter().find(|person| person.token.as_bytes() == value);
        return (Ownership::Unknown, person);
    }
    // The signature may be written as cookies have it, or as it is.
    let mut plain = String::from_utf8_lossy(value).into_owned();
    for (escaped, byte) in [
        ("%2B", "+"),
        ("%2b", "+"),
        ("%2F", "/"),
        ("%2f", "/"),
        ("%3D", "="),
        ("%3d", "="),
    ] {
        plain = plain.replace(escaped, byte);
    }
    let person = people
        .iter()
        .find(|person| plain == format!("{}.{}", person.token, person.signature));
    (
        if person.is_some() {
            Ownership::Ours
        } else {
            Ownership::Theirs
        },
        person,
    )
}

fn by_cookie<'p>(fields: &[Field], names: &Names, people: &'p [Person]) -> Option<&'p Person> {
    let mut count = 0;
    let mut found: Option<&Person> = None;
    for line in values(fields, b"cookie") {
        for crumb in line.split(|byte| *byte == b';') {
            let crumb = trimmed(crumb);
            let Some(equals) = crumb.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            if &crumb[..equals] != names.session.as_bytes() {
                continue;
            }
            count += 1;
            let value = trimmed(&crumb[equals + 1..]);
            let Some(person) = people.iter().find(|person| value == cookie_value(person).as_bytes()) else {
                continue;
            };
            if found.is_some_and(|other| other.token != person.token) {
                return None;
            }
            found = Some(person);
        }
    }
    if count > MANY { None } else { found }
}

/// `token.signature`, as JavaScript's `encodeURIComponent` writes it.
pub fn cookie_value(person: &Person) -> String {
    let signature = person
        .signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    format!("{}.{signature}", person.token)
}

/// What is left of all `Cookie` lines without our cookies: lines, as they are to be sent.
pub fn left_of_cookies(fields: &[Field], names: &Names) -> Vec<Vec<u8>> {
    let lines = values(fields, b"cookie");
    let left: Vec<Vec<u8>> = lines.iter().map(|line| without_ours(line, names)).collect();
    if left.len() <= 1 {
        return left
            .into_iter()
            .zip(lines)
            .filter(|(left, line)| !left.is_empty() || line.is_empty())
            .map(|(left, _)| left)
            .collect();
    }
    // An upstream may read only the first.
    let left: Vec<Vec<u8>> = left.into_iter().filter(|line| !line.is_empty()).collect();
    if left.is_empty() {
        Vec::new()
    } else {
        vec![left.join(&b"; "[..])]
    }
}

fn without_ours(line: &[u8], names: &Names) -> Vec<u8> {
    let crumbs: Vec<&[u8]> = line.split(|byte| *byte == b';').map(trimmed).collect();
    let is_ours = |crumb: &&[u8]| {
        let name = crumb.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = String::from_utf8_lossy(trimmed(name)).into_owned();
        let bare = ["__host-", "__secure-"]
            .iter()
            .find(|prefix| name.to_ascii_lowercase().starts_with(**prefix))
            .map_or(name.as_str(), |prefix| &name[prefix.len()..]);
        bare.starts_with(&names.family)
    };
    if !crumbs.iter().any(|crumb| is_ours(crumb)) {
        return line.to_vec();
    }
    let kept: Vec<&[u8]> = crumbs
        .into_iter()
        .filter(|crumb| !crumb.is_empty() && !is_ours(crumb))
        .collect();
    kept.join(&b"; "[..])
}
