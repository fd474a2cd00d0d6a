//! Names for requests, to find one again in logs.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// Names requests: 64 random bits for the worker, 40 counted ones for the request.
#[derive(Debug)]
pub struct RequestIds {
    prefix: [u8; 16],
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        let mut prefix = [0; 16];
        hex(u64::from_ne_bytes(crate::secret::random()), &mut prefix);
        Self {
            prefix,
            next: AtomicU64::new(0),
        }
    }
}

impl RequestIds {
    pub fn next(&self) -> HeaderValue {
        let mut id = [0; 26];
        let (prefix, count) = id.split_at_mut(16);
        prefix.copy_from_slice(&self.prefix);
        hex(self.next.fetch_add(1, Ordering::Relaxed), count);
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// The lowest digits of `number`, as many as fit.
fn hex(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        let value = (number & 15) as u8;
        *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let ids = RequestIds::default();
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!(first.len(), 26);
    }
}
