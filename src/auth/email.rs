//! E-mail addresses as we accept them: the original server's rule, within the lengths of RFC 5321.
//!
//! ASCII alone, folded to lower case, so that one person can't have two accounts by spelling.

/// Octets of a local part, of a domain's label, and of an address (RFC 5321, 4.5.3.1 and RFC 1035, 2.3.4).
const MAX_LOCAL: usize = 64;
const MAX_LABEL: usize = 63;
const MAX_ADDRESS: usize = 254;

/// A plausible address in lower case.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EmailAddress(String);

impl EmailAddress {
    pub fn parse(text: &str) -> Option<Self> {
        let (local, domain) = text.split_once('@')?;
        let plausible = text.len() <= MAX_ADDRESS && is_local_part(local) && is_domain(domain);
        plausible.then(|| Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// No quoted forms; dots only between other characters; an apostrophe or a dot not at the end.
fn is_local_part(local: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-');
    (1..=MAX_LOCAL).contains(&local.len())
        && local.bytes().all(|b| word(b) || matches!(b, b'\'' | b'.'))
        && local.bytes().last().is_some_and(word)
        && !local.starts_with('.')
        && !local.contains("..")
}

/// At least two labels of which the last is letters alone.
fn is_domain(domain: &str) -> bool {
    let Some((labels, last)) = domain.rsplit_once('.') else {
        return false;
    };
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    labels.split('.').all(is_label)
        && (2..=MAX_LABEL).contains(&last.len())
        && last.bytes().all(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plausible_addresses_are_folded_to_lower_case() {
        for (text, folded) in [
            ("Ada@Example.TEST", "ada@example.test"),
            ("a@b.co", "a@b.co"),
            ("first.last+tag@sub.example.com", "first.last+tag@sub.example.com"),
            ("o'brien@example.ie", "o'brien@example.ie"),
            ("x_@a-b.example", "x_@a-b.example"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), folded);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_label = format!("a@{}.com", "a".repeat(64));
        let long = format!("a@{}com", "abcdefgh.".repeat(40));
        for text in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "ada@example.c",
            "ada@example.c0m",
            ".ada@example.com",
            "ada.@example.com",
            "a..da@example.com",
            "ada@-example.com",
            "ada@example-.com",
            "ada@exa mple.com",
            "ada@example..com",
            "ada@@example.com",
            "ada\0@example.com",
            "ada@example.com\r\nBcc: eve@example.com",
            " ada@example.com",
            "ädä@example.com",
            "\"ada\"@example.com",
            "ada@[127.0.0.1]",
            &long_local,
            &long_label,
            &long,
        ] {
            assert!(EmailAddress::parse(text).is_none(), "{text}");
        }
    }
}
