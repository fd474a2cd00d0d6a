//! Which fields a request has that change its course.
//!
//! Most have few of them. One look at all names finds out, where asking the map for each would hash a name each time.

use http::{HeaderMap, header};

/// A set of such fields. What a request does not have in it, it does not have; `sec-fetch-*` count as one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Marks(u16);

impl Marks {
    pub const ACCEPT: Self = Self(1);
    pub const AUTHORIZATION: Self = Self(1 << 1);
    pub const CONNECTION: Self = Self(1 << 2);
    pub const CONTENT_LENGTH: Self = Self(1 << 3);
    pub const COOKIE: Self = Self(1 << 4);
    pub const EXPECT: Self = Self(1 << 5);
    pub const FETCH_METADATA: Self = Self(1 << 6);
    pub const ORIGIN: Self = Self(1 << 7);
    pub const TRANSFER_ENCODING: Self = Self(1 << 8);
    pub const UPGRADE: Self = Self(1 << 9);

    pub fn of(headers: &HeaderMap) -> Self {
        let mut marks = 0;
        for name in headers.keys() {
            let mark = match *name {
                header::ACCEPT => Self::ACCEPT,
                header::AUTHORIZATION => Self::AUTHORIZATION,
                header::CONNECTION => Self::CONNECTION,
                header::CONTENT_LENGTH => Self::CONTENT_LENGTH,
                header::COOKIE => Self::COOKIE,
                header::EXPECT => Self::EXPECT,
                header::ORIGIN => Self::ORIGIN,
                header::TRANSFER_ENCODING => Self::TRANSFER_ENCODING,
                header::UPGRADE => Self::UPGRADE,
                _ if name.as_str().starts_with("sec-fetch-") => Self::FETCH_METADATA,
                _ => continue,
            };
            marks |= mark.0;
        }
        Self(marks)
    }

    pub const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let all = [
            ("accept", Marks::ACCEPT),
            ("Authorization", Marks::AUTHORIZATION),
            ("connection", Marks::CONNECTION),
            ("content-length", Marks::CONTENT_LENGTH),
            ("cookie", Marks::COOKIE),
            ("expect", Marks::EXPECT),
            ("sec-fetch-mode", Marks::FETCH_METADATA),
            ("sec-fetch-site", Marks::FETCH_METADATA),
            ("origin", Marks::ORIGIN),
            ("transfer-encoding", Marks::TRANSFER_ENCODING),
            ("upgrade", Marks::UPGRADE),
        ];
        for (name, mark) in all {
            let name: HeaderName = name.parse().unwrap();
            let headers = HeaderMap::from_iter([
                (header::HOST, HeaderValue::from_static("a.example")),
                (name, HeaderValue::from_static("x")),
            ]);
            let found = Marks::of(&headers);
            for (_, other) in all {
                assert_eq!(found.has(other), other == mark, "{mark:?} {other:?}");
            }
        }
        assert_eq!(Marks::of(&HeaderMap::new()), Marks::default());
    }
}
