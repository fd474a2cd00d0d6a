//! GET /error: where a flow ends that has nowhere else to go.
//!
//! Anybody may link here with any words, so the page shows them as text, says where they come from by showing no more
//! than that, and never a code that is none.

use serde_json::Value;

use super::{
    http::{Answer, Call},
    openapi::{Description, Field, Group, Yes},
};
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
        meant_by(code).to_owned()
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

/// What happened and what to do next, where whoever sent people here did not say it.
fn meant_by(code: &str) -> &'static str {
    match code {
        "access_denied" => {
            "The sign-in was cancelled at the provider. If that was not what you wanted, go back to the site and sign \
             in again."
        }
        "state_not_found" | "invalid_callback_request" => {
            "This page was opened without what a sign-in needs. Go back to the site and sign in from there."
        }
        "state_mismatch" => {
            "This sign-in is over, or it began in another browser. That happens after ten minutes, after going back or \
             reloading, and where cookies are blocked. Go back to the site and sign in again."
        }
        "no_code" | "invalid_code" => {
            "The provider could not confirm the sign-in. Go back to the site and try again; if it keeps happening, tell \
             the people who run the site."
        }
        "issuer_mismatch" => {
            "The answer did not come from the provider that was asked, so it was not believed. Go back to the site and \
             sign in again; if it keeps happening, tell the people who run the site."
        }
        "unable_to_get_user_info" => {
            "The provider did not say who you are in a way that can be trusted. Go back to the site and try again; if \
             it keeps happening, tell the people who run the site."
        }
        "email_not_found" => {
            "The provider did not share an e-mail address. Allow it to, or sign in to the site in another way."
        }
        "email_not_verified" => {
            "Your e-mail address has not been verified yet. Open the link in the mail that was sent to you, then sign in \
             again."
        }
        "account_not_linked" => {
            "There is an account with this e-mail address already. Sign in as you did before, then link the provider in \
             your account's settings."
        }
        "signup_disabled" => {
            "You have no account here yet, and new ones can't be made this way. Ask the people who run the site."
        }
        "email_does_not_match" => {
            "The account at the provider has another e-mail address than yours here, so it was not linked. Choose the \
             one with the same address."
        }
        "account_already_linked_to_different_user" => {
            "This account at the provider belongs to another user here, so it was not linked. Unlink it there first."
        }
        "unable_to_link_account" => {
            "The account could not be linked. Sign in to the site again and try once more from your account's settings."
        }
        "BANNED_USER" => "You have been banned. Ask the people who run the site if you believe that is an error.",
        "oauth_provider_not_found" => {
            "The site does not know this provider. Go back and sign in in another way, or tell the people who run it."
        }
        "internal_server_error" => "Something failed here, not at your side. Please try again in a moment.",
        _ => "Something went wrong on the way. Please go back and try again.",
    }
}

pub(super) fn describe() -> Description {
    Description::of(
        Group::Gateway,
        "A page that shows an error",
        "Where a flow ends that has nowhere else to go, such as a link without a target.",
    )
    .query([
        Field::text("error", "INVALID_TOKEN")
            .unchecked()
            .says("The code; what can't be one is shown as `UNKNOWN`."),
        Field::text("error_description", "The link has expired.")
            .unchecked()
            .says("What people read. Shown as text."),
    ])
    .answers([Yes::html("The page.")])
}
