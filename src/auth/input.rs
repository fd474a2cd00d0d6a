//! What a request says, from bytes to fields, and the checks that name what is wrong with them.
//!
//! JSON with a key that repeats is refused: two parsers would read two different requests. The words of the messages
//! are those of the original server (contract, section 1); clients match on the code, people read the rest.
//!
//! Bodies hold passwords, so every text that is made of one here is wiped: by whoever took it, as a [`Secret`], or with
//! the rest of the fields. What can't be is the piece in which `serde_json` undoes escapes, of a text that has any.

mod form;
mod nested;
mod unique;

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::{Map, Value};
use url::Url;

use self::unique::{Unfinished, Unique};
use super::{AuthError, email::EmailAddress};
use crate::secret::{Secret, wipe_json};

/// Fields of a body or a query, by name, not validated.
pub(super) struct Fields {
    part: &'static str,
    /// Or what was there in place of an object, as JavaScript names it.
    values: Result<Map<String, Value>, &'static str>,
    /// Everything is text in a form and in a query.
    all_text: bool,
}

crate::secret::unprinted!(Fields);

/// A password among them may be one that nobody came to ask for: the request was refused before.
impl Drop for Fields {
    fn drop(&mut self) {
        if let Ok(values) = &mut self.values {
            values.values_mut().for_each(wipe_json);
        }
    }
}

/// Whether an endpoint takes forms besides JSON.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Accepts {
    Json,
    JsonAndForm,
}

/// What a check box sends, and what stands for one that is not ticked.
pub(super) const TICKED: [&str; 3] = ["true", "on", "1"];
pub(super) const NOT_TICKED: [&str; 3] = ["false", "", "0"];

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// What is there when nothing is.
const UNDEFINED: &str = "undefined";

impl Fields {
    /// A request without a body: endpoints that need none don't mind.
    pub(super) const fn no_body() -> Self {
        Self {
            part: "body",
            values: Err(UNDEFINED),
            all_text: false,
        }
    }

    pub(super) fn of_body(headers: &HeaderMap, body: &Bytes, accepts: Accepts) -> Result<Self, AuthError> {
        if body.is_empty() {
            return Ok(Self::no_body());
        }
        // Nothing is unpacked: a few bytes could become as many as there is memory.
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        if codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
            return Err(AuthError::EncodedBody);
        }
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str().unwrap_or("?"));
        let media_type = content_type.map(|value| value.split(';').next().unwrap_or(value).trim());
        match media_type {
            Some(it) if it.eq_ignore_ascii_case(JSON) => {
                let Unique(value) = serde_json::from_slice(body).map_err(|_| AuthError::BadJson)?;
                Ok(Self {
                    part: "body",
                    values: match value {
                        Value::Object(map) => Ok(map),
                        mut other => {
                            wipe_json(&mut other);
                            Err(type_of(&other))
                        }
                    },
                    all_text: false,
                })
            }
            Some(it) if accepts == Accepts::JsonAndForm && it.eq_ignore_ascii_case(FORM) => {
                let mut values = Unfinished::default();
                for (name, value) in form::pairs(body) {
                    values
                        .insert(name, Value::String(value))
                        .map_err(|_| AuthError::RepeatedField)?;
                }
                Ok(Self {
                    part: "body",
                    values: Ok(values.finished()),
                    all_text: true,
                })
            }
            // What has no type says nothing: so the original takes it.
            None => Ok(Self::no_body()),
            Some(other) => Err(AuthError::UnsupportedMediaType {
                // It is quoted back: short, and nothing but text.
                found: other.chars().filter(|c| !c.is_control()).take(80).collect(),
                allowed: match accepts {
                    Accepts::Json => JSON,
                    Accepts::JsonAndForm => "application/json, application/x-www-form-urlencoded",
                },
            }),
        }
    }

    /// A name that repeats becomes an array, which no check takes for text.
    pub(super) fn of_query(query: Option<&str>) -> Self {
        let mut values = Map::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let value = Value::String(value.into_owned());
            match values.get_mut(name.as_ref()) {
                Some(Value::Array(several)) => several.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
                None => {
                    values.insert(name.into_owned(), value);
                }
            }
        }
        Self {
            part: "query",
            values: Ok(values),
            all_text: true,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.values.as_ref().ok()?.get(name)
    }

    /// A flag of the query: any value but the empty one sets it.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.as_str() != Some(""))
    }

    /// Starts a validation. Every `Check` method notes what is wrong and goes on; [`Check::done`] tells.
    pub(super) fn check(&mut self) -> Check<'_> {
        Check {
            issues: match &self.values {
                Ok(_) => String::new(),
                Err(found) => format!("[{}] Invalid input: expected object, received {found}", self.part),
            },
            fields: self,
        }
    }

    /// The same for a body that may be left out: there is nothing in it, then.
    pub(super) fn check_if_any(&mut self) -> Check<'_> {
        if self.values == Err(UNDEFINED) {
            self.values = Ok(Map::new());
        }
        self.check()
    }
}

/// A field that may be left out, and that `null` clears.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Nullable {
    Absent,
    Null,
    Text(String),
}

/// Bytes of a redirect target. It is mailed in a link, with each of them in three at worst, and a browser has to get that
/// link past whatever bounds a request's head.
pub(super) const MAX_TARGET: usize = 2 * 1024;

/// Characters of a user's name; more than anybody's has.
pub(super) const MAX_NAME: usize = 256;

/// Bytes of where a user's picture is.
pub(super) const MAX_PICTURE: usize = 2 * 1024;

/// Whether it is an absolute URL of http or https.
fn is_web_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// A validation in progress.
#[must_use = "only `done` tells whether the fields are valid"]
pub(super) struct Check<'f> {
    fields: &'f mut Fields,
    issues: String,
}

crate::secret::unprinted!(Check<'a>);

impl Check<'_> {
    /// Ends the validation: what the other methods returned counts only if this says `Ok`.
    pub(super) fn done(self) -> Result<(), AuthError> {
        if self.issues.is_empty() {
            Ok(())
        } else {
            Err(AuthError::Validation(self.issues))
        }
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        let found = self.take(name);
        self.expect_text(name, found)
    }

    /// A user's name: it is with each of their sessions in the cache, and goes to upstreams.
    pub(super) fn name(&mut self, name: &str) -> String {
        let text = self.text(name);
        self.expect_short(name, &text);
        text
    }

    pub(super) fn optional_name(&mut self, name: &str) -> Option<String> {
        let text = self.optional_text(name);
        self.expect_short(name, text.as_deref().unwrap_or_default());
        text
    }

    /// Where somebody is sent in the end; the place itself has been judged. Absent and empty are none.
    pub(super) fn optional_target(&mut self, name: &str) -> Option<String> {
        let target = self.optional_text(name).filter(|target| !target.is_empty());
        self.at_most(MAX_TARGET, name, target.as_deref());
        target
    }

    /// As [`Self::optional_target`], and may not be left out; empty, it is none.
    pub(super) fn target(&mut self, name: &str) -> String {
        let target = self.text(name);
        self.at_most(MAX_TARGET, name, Some(&target));
        target
    }

    /// Absent is fine, `null` is not.
    pub(super) fn optional_text(&mut self, name: &str) -> Option<String> {
        let found = self.take(name)?;
        Some(self.expect_text(name, Some(found)))
    }

    /// Where a picture of a user is. Absent is fine, `null` is not.
    pub(super) fn optional_picture(&mut self, name: &str) -> Option<String> {
        let picture = self.optional_text(name);
        self.expect_picture(name, picture.as_deref().unwrap_or_default());
        picture
    }

    /// The same; absent is fine, and `null` is a value of its own.
    pub(super) fn nullable_picture(&mut self, name: &str) -> Nullable {
        match self.take(name) {
            None => Nullable::Absent,
            Some(Value::Null) => Nullable::Null,
            found => {
                let picture = self.expect_text(name, found);
                self.expect_picture(name, &picture);
                Nullable::Text(picture)
            }
        }
    }

    pub(super) fn address(&mut self, name: &str) -> EmailAddress {
        match self.take(name) {
            Some(Value::String(text)) => EmailAddress::parse(&text).unwrap_or_else(|| {
                self.issue(name, "Invalid email address");
                EmailAddress::default()
            }),
            other => {
                self.expect_text(name, other);
                EmailAddress::default()
            }
        }
    }

    /// A password to be compared: any text.
    pub(super) fn password(&mut self, name: &str) -> Secret<String> {
        match self.take(name) {
            Some(Value::String(text)) => Secret::new(text),
            other => Secret::new(self.expect_text(name, other)),
        }
    }

    /// A password to be set: not an empty one.
    pub(super) fn new_password(&mut self, name: &str) -> Secret<String> {
        if self.fields.get(name).and_then(Value::as_str) == Some("") {
            self.issue(name, "Too small: expected string to have >=1 characters");
        }
        self.password(name)
    }

    pub(super) fn optional_bool(&mut self, name: &str) -> Option<bool> {
        let all_text = self.fields.all_text;
        match self.take(name)? {
            Value::Bool(value) => Some(value),
            Value::String(text) if all_text && TICKED.contains(&text.as_str()) => Some(true),
            Value::String(text) if all_text && NOT_TICKED.contains(&text.as_str()) => Some(false),
            other => {
                self.expected(name, "boolean", type_of(&other));
                None
            }
        }
    }

    fn expect_text(&mut self, name: &str, found: Option<Value>) -> String {
        match found {
            // Postgres stores no such text.
            Some(Value::String(text)) if text.contains('\0') => {
                self.issue(name, "Invalid input: expected string without NUL");
                String::new()
            }
            Some(Value::String(text)) => text,
            other => {
                self.expected(name, "string", other.as_ref().map_or(UNDEFINED, type_of));
                String::new()
            }
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.values.as_mut().ok()?.remove(name)
    }

    fn expected(&mut self, name: &str, expected: &str, found: &str) {
        self.issue(name, &format!("Invalid input: expected {expected}, received {found}"));
    }

    fn expect_short(&mut self, name: &str, text: &str) {
        if text.chars().nth(MAX_NAME).is_some() {
            self.issue(
                name,
                &format!("Too big: expected string to have <={MAX_NAME} characters"),
            );
        }
    }

    /// Applications put it into their pages: no script, no document. Empty is what some send who have none.
    fn expect_picture(&mut self, name: &str, text: &str) {
        self.at_most(MAX_PICTURE, name, Some(text));
        let is_path = text.starts_with('/') && !text.starts_with("//") && !text.contains('\\');
        let is_plain = !text.contains(char::is_control) && (is_path || is_web_url(text));
        if !text.is_empty() && !is_plain {
            self.issue(name, "Invalid URL: expected one of http or https, or a path");
        }
    }

    fn issue(&mut self, name: &str, what: &str) {
        // Without an object there is one thing to say, and it is said.
        if self.fields.values.is_ok() {
            let separator = if self.issues.is_empty() { "" } else { "; " };
            let _ = write!(self.issues, "{separator}[{}.{name}] {what}", self.fields.part);
        }
    }
}

/// Only we say these of a user (section 1).
const PROTECTED: [&str; 5] = ["role", "banned", "banReason", "banExpires", "twoFactorEnabled"];

/// Refuses what users may not say of themselves.
pub(super) fn forbid_protected(fields: &Fields) -> Result<(), AuthError> {
    let said = |field: &&str| fields.get(field).is_some_and(is_truthy);
    match PROTECTED.into_iter().find(said) {
        Some(field) => Err(AuthError::FieldNotAllowed(field)),
        None => Ok(()),
    }
}

/// As JavaScript would take it in an `if`.
pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// As the original's validator names it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &str) -> Result<Fields, AuthError> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap())]);
        Fields::of_body(&headers, &Bytes::copy_from_slice(body.as_bytes()), Accepts::Json)
    }

    fn issues(result: Result<(), AuthError>) -> String {
        match result {
            Err(AuthError::Validation(issues)) => issues,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn broken_and_ambiguous_json_is_refused() {
        for body in [
            "{",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":{\"b\":1,\"\\u0062\":2}}",
            "[{\"a\":1,\"a\":2}]",
            "\"\\ud800\"",
            "{} {}",
            &"[".repeat(1000),
        ] {
            assert!(matches!(json(body), Err(AuthError::BadJson)), "{body}");
        }
        assert!(json("{\"a\":{\"b\":[1,-1,1.5,true,null,\"x\"]},\"b\":1}").is_ok());
    }

    #[test]
    fn every_issue_is_named_in_the_order_of_the_checks() {
        let mut fields = json(r#"{"email":"nobody","password":7,"rememberMe":"yes","image":null}"#).unwrap();
        let mut check = fields.check();
        check.text("name");
        check.address("email");
        check.new_password("password");
        check.optional_text("image");
        check.optional_bool("rememberMe");
        assert_eq!(
            issues(check.done()),
            "[body.name] Invalid input: expected string, received undefined; \
             [body.email] Invalid email address; \
             [body.password] Invalid input: expected string, received number; \
             [body.image] Invalid input: expected string, received null; \
             [body.rememberMe] Invalid input: expected boolean, received string"
        );
    }

    #[test]
    fn an_empty_new_password_and_a_nul_are_named() {
        let mut fields = json(r#"{"name":"a\u0000b","password":""}"#).unwrap();
        let mut check = fields.check();
        check.text("name");
        check.new_password("password");
        assert_eq!(
            issues(check.done()),
            "[body.name] Invalid input: expected string without NUL; \
             [body.password] Too small: expected string to have >=1 characters"
        );
    }

    #[test]
    fn what_is_no_object_is_said_once() {
        for (body, found) in [("[]", "array"), ("null", "null"), ("3", "number"), ("", "undefined")] {
            let mut fields = json(body).unwrap();
            let mut check = fields.check();
            check.text("name");
            check.address("email");
            let expected = format!("[body] Invalid input: expected object, received {found}");
            assert_eq!(issues(check.done()), expected);
        }
    }

    #[test]
    fn forms_are_read_where_they_are_accepted() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, FORM.parse().unwrap())]);
        let body = Bytes::from_static(b"email=ada%40example.test&rememberMe=false");
        let mut fields = Fields::of_body(&headers, &body, Accepts::JsonAndForm).unwrap();
        let mut check = fields.check();
        assert_eq!(check.address("email").as_str(), "ada@example.test");
        assert_eq!(check.optional_bool("rememberMe"), Some(false));
        check.done().unwrap();
        let refused = Fields::of_body(&headers, &body, Accepts::Json);
        assert!(matches!(refused, Err(AuthError::UnsupportedMediaType { .. })));
        let repeated = Fields::of_body(&headers, &Bytes::from_static(b"a=1&a=2"), Accepts::JsonAndForm);
        assert!(matches!(repeated, Err(AuthError::RepeatedField)));
        let mut untyped = Fields::of_body(&HeaderMap::new(), &body, Accepts::Json).unwrap();
        let mut check = untyped.check();
        check.text("email");
        let nothing = "[body] Invalid input: expected object, received undefined";
        assert_eq!(issues(check.done()), nothing);
    }

    #[test]
    fn a_repeated_query_parameter_is_no_text() {
        let mut query = Fields::of_query(Some("token=a&token=b&disableRefresh=&disableCookieCache=x"));
        assert!(!query.is_set("disableRefresh") && query.is_set("disableCookieCache"));
        let mut check = query.check();
        check.text("token");
        assert_eq!(
            issues(check.done()),
            "[query.token] Invalid input: expected string, received array"
        );
    }

    #[test]
    fn truth_is_javascripts() {
        for (json, truthy) in [
            ("null", false),
            ("false", false),
            ("0", false),
            ("-0.0", false),
            ("\"\"", false),
            ("true", true),
            ("1", true),
            ("\"x\"", true),
            ("[]", true),
            ("{}", true),
        ] {
            assert_eq!(is_truthy(&serde_json::from_str(json).unwrap()), truthy, "{json}");
        }
    }
}
