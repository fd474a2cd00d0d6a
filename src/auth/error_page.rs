//! GET /error: where a flow ends that has nowhere else to go.
//!
//! Anybody may link here with any words, so the page shows them as text, says where they come from by showing no more
//! than that, and never a code that is none.

use serde_json::Value;

use super::http::{Answer, Call};
use crate::problem::page;

/// Longer descriptions are a text of somebody else's.
const LONGEST: usize = 500;

pub(super) fn show(call: &Call<'_>) -> Answer {
    let text = |name| call.query.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = match text("error") {
        code if is_code(code) => code,
        _ => "UNKNOWN",
    };
    let description: String = text("error_description").chars().take(LONGEST).collect();
    let description = if description.is_empty() {
        "Something went wrong on the way. Please go back and try again.".to_owned()
    } else {
        description
    };
    Answer::html(page("Error", &description, code))
}

fn is_code(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'\'' | b'-'))
}
