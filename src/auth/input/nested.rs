//! Fields that hold more than one value: lists and objects. Only JSON has them.

use serde_json::{Map, Value};

use super::{Check, Fields, type_of};

impl Check<'_> {
    /// A list of texts; absent is the empty one.
    pub(in crate::auth) fn optional_texts(&mut self, name: &str) -> Vec<String> {
        let items = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.expected(name, "array", type_of(&other));
                return Vec::new();
            }
        };
        let text = |(at, item)| self.expect_text(&format!("{name}.{at}"), Some(item));
        items.into_iter().enumerate().map(text).collect()
    }

    /// Parameters of an authorisation request by name, none of them `reserved`; absent is none at all.
    pub(in crate::auth) fn optional_params(&mut self, name: &str, reserved: &[&str]) -> Vec<(String, String)> {
        let params = self.optional_object(name);
        if params.keys().any(|key| reserved.contains(&key.as_str())) {
            let reserved = reserved.join(", ");
            self.issue(
                name,
                &format!("{name} cannot include reserved OAuth parameters: {reserved}"),
            );
        }
        let mut texts = Vec::with_capacity(params.len());
        for (key, value) in params {
            let text = self.expect_text(&format!("{name}.{key}"), Some(value));
            texts.push((key, text));
        }
        texts
    }

    /// An object whose own fields are to be checked; `part` is its path, as issues name it. Absent is fine, `null` is not.
    pub(in crate::auth) fn nested(&mut self, name: &str, part: &'static str) -> Option<Fields> {
        match self.take(name)? {
            Value::Object(map) => Some(Fields {
                part,
                values: Ok(map),
                all_text: false,
            }),
            other => {
                self.expected(name, "object", type_of(&other));
                None
            }
        }
    }

    /// Absent is fine, `null` is not.
    pub(in crate::auth) fn optional_number(&mut self, name: &str) -> Option<f64> {
        let found = self.take(name)?;
        if let Some(number) = found.as_f64() {
            return Some(number);
        }
        self.expected(name, "number", type_of(&found));
        None
    }

    /// Notes a text that has more bytes.
    pub(in crate::auth) fn at_most(&mut self, bytes: usize, name: &str, text: Option<&str>) {
        if text.is_some_and(|text| text.len() > bytes) {
            self.issue(name, &format!("Too big: expected string to have <={bytes} bytes"));
        }
    }

    /// Notes more items.
    pub(in crate::auth) fn so_many_at_most(&mut self, most: usize, name: &str, items: usize) {
        if items > most {
            self.issue(name, &format!("Too big: expected <={most} items"));
        }
    }

    /// An object; absent is the empty one.
    pub(in crate::auth) fn optional_object(&mut self, name: &str) -> Map<String, Value> {
        match self.take(name) {
            None => Map::new(),
            Some(Value::Object(object)) => object,
            Some(other) => {
                self.expected(name, "object", type_of(&other));
                Map::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, header};

    use super::super::{Accepts, Fields};
    use crate::auth::AuthError;

    fn json(body: &'static str) -> Fields {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        Fields::of_body(&headers, &Bytes::from_static(body.as_bytes()), Accepts::Json).unwrap()
    }

    #[test]
    fn lists_and_objects_are_read() {
        let mut fields = json(r#"{"scopes":["a","b"],"additionalParams":{"hd":"x.example","prompt":"none"}}"#);
        let mut check = fields.check();
        assert_eq!(check.optional_texts("scopes"), ["a", "b"]);
        let params = check.optional_params("additionalParams", &["state"]);
        let expected = [("hd", "x.example"), ("prompt", "none")];
        assert_eq!(
            params,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert!(check.optional_object("additionalData").is_empty());
        assert!(check.optional_texts("more").is_empty());
        check.done().unwrap();
    }

    #[test]
    fn what_is_wrong_in_them_is_named() {
        let mut fields = json(r#"{"scopes":["a",7],"more":"b","additionalParams":{"state":"x","n":1},"data":[]}"#);
        let mut check = fields.check();
        check.optional_texts("scopes");
        check.optional_texts("more");
        check.optional_params("additionalParams", &["state", "scope"]);
        check.optional_object("data");
        let Err(AuthError::Validation(issues)) = check.done() else {
            panic!("accepted")
        };
        assert_eq!(
            issues,
            "[body.scopes.1] Invalid input: expected string, received number; \
             [body.more] Invalid input: expected array, received string; \
             [body.additionalParams] additionalParams cannot include reserved OAuth parameters: state, scope; \
             [body.additionalParams.n] Invalid input: expected string, received number; \
             [body.data] Invalid input: expected object, received array"
        );
    }
}
