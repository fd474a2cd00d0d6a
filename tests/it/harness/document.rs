//! The API's description as the tests hold answers against it.
//!
//! Every answer of the auth API that the polite client reads is looked up here: an answer that the document does not
//! know fails the test that got it. What was seen is kept for each gateway, so that a test can ask the other way
//! round: whether all that the document promises is real.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::SocketAddr,
    sync::{LazyLock, Mutex},
};

use serde_json::{Map, Value};
use vestibule::{auth::openapi, config};

use super::{client::Response, gateway};

const BASE_PATH: &str = "/api/auth";

/// Of requests that no endpoint saw (`info.description` names them).
const AT_THE_GATE: [&str; 7] = [
    "BAD_PATH",
    "BAD_HOST",
    "BAD_HEADER",
    "MISDIRECTED_REQUEST",
    "EXPECTATION_FAILED",
    "UNSUPPORTED_TRANSFER_CODING",
    "HEADERS_TOO_LARGE",
];

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let config = config::parse(&gateway::whole_text(), "gateway.toml", &|_| None);
    Document(serde_json::from_str(&openapi::json(&config.unwrap())).unwrap())
});

static SEEN: LazyLock<Mutex<HashMap<SocketAddr, BTreeSet<Answer>>>> = LazyLock::new(Mutex::default);

/// `openapi.json` of the usual gateway.
pub(crate) struct Document(Value);

/// One kind of answer of one endpoint.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Answer {
    pub(crate) method: String,
    /// As the document writes it.
    pub(crate) path: String,
    pub(crate) status: u16,
    /// Empty where the answer has none.
    pub(crate) code: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.method, self.path, self.status, self.code)
    }
}

/// Holds an answer to a request for `target` against the document.
#[track_caller]
pub(crate) fn saw(gateway: SocketAddr, method: &str, target: &str, response: &Response) {
    let path = target.split('?').next().unwrap();
    let Some(below) = path.strip_prefix(BASE_PATH).filter(|below| below.starts_with('/')) else {
        return;
    };
    match DOCUMENT.answer(method, below, response) {
        Ok(Some(answer)) => {
            SEEN.lock().unwrap().entry(gateway).or_default().insert(answer);
        }
        Ok(None) => {}
        Err(wrong) => panic!(
            "{method} {target}: openapi.json does not know this answer: {wrong}\n{:?}{}",
            response.head,
            String::from_utf8_lossy(&response.body)
        ),
    }
}

/// What the gateway at this address has answered so far.
pub(crate) fn seen(gateway: SocketAddr) -> BTreeSet<Answer> {
    SEEN.lock().unwrap().get(&gateway).cloned().unwrap_or_default()
}

pub(crate) fn document() -> &'static Document {
    &DOCUMENT
}

impl Document {
    pub(crate) const fn json(&self) -> &Value {
        &self.0
    }

    /// Every method and path, with what is said of it.
    pub(crate) fn operations(&self) -> impl Iterator<Item = (String, String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
        })
    }

    /// Every answer that it promises.
    pub(crate) fn promises(&self) -> BTreeSet<Answer> {
        let mut promises = BTreeSet::new();
        for (method, path, operation) in self.operations() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                for code in codes(self.resolved(response)) {
                    promises.insert(Answer {
                        method: method.clone(),
                        path: path.clone(),
                        status: status.parse().unwrap(),
                        code,
                    });
                }
            }
        }
        promises
    }

    /// Which of its answers this is. `None`: it was given before anybody asked for the endpoint, or there is none.
    fn answer(&self, method: &str, below: &str, response: &Response) -> Result<Option<Answer>, String> {
        let status = response.status();
        let body = &response.body;
        let media = response.head.one("content-type").unwrap_or_default();
        let media = media.split(';').next().unwrap();
        let json: Value = if media == "application/json" {
            serde_json::from_slice(body).map_err(|error| format!("its body is no JSON ({error})"))?
        } else {
            Value::Null
        };
        let code = json["code"].as_str().filter(|_| status >= 400).unwrap_or_default();
        if AT_THE_GATE.contains(&code) || matches!(status, 408 | 413 | 431) && media == "text/html" {
            return Ok(None);
        }
        let Some((path, operation)) = self.find(method, below) else {
            return match (status, body.is_empty()) {
                (404, true) | (429, false) => Ok(None),
                // Browsers ask before they do (CORS); that is no endpoint's business.
                _ if method == "OPTIONS" => Ok(None),
                _ => Err("the endpoint is not in it, so it should be 404 with an empty body".to_owned()),
            };
        };
        let documented = operation["responses"].get(status.to_string());
        let documented = self.resolved(documented.ok_or("the status is not in it")?);
        let answer = Answer {
            method: method.to_owned(),
            path,
            status,
            code: code.to_owned(),
        };
        let content = documented.get("content").and_then(Value::as_object);
        if body.is_empty() {
            let may_be = content.is_none() || codes(documented).contains("");
            return if may_be {
                Ok(Some(answer))
            } else {
                Err("it has no body".to_owned())
            };
        }
        let content = content.and_then(|content| content.get(media));
        let content = content.ok_or_else(|| format!("the content type {media:?} is not in it"))?;
        if !codes(documented).contains(&answer.code) {
            return Err("the code is not in it".to_owned());
        }
        if media == "application/json" {
            self.check(&content["schema"], &json, "body")?;
        }
        let told: Vec<_> = documented["headers"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .collect();
        for name in [
            "set-cookie",
            "set-auth-token",
            "location",
            "retry-after",
            "x-retry-after",
            "allow",
        ] {
            if response.head.has(name) && !told.iter().any(|told| told.eq_ignore_ascii_case(name)) {
                return Err(format!("the header field {name} is not in it"));
            }
        }
        Ok(Some(answer))
    }

    fn find(&self, method: &str, below: &str) -> Option<(String, &Value)> {
        let (_, path, operation) = self.operations().find(|(known, path, _)| {
            known == method
                && match path.split_once('{') {
                    None => path == below,
                    Some((before, _)) => below
                        .strip_prefix(before)
                        .is_some_and(|segment| !segment.is_empty() && !segment.contains('/')),
                }
        })?;
        Some((path, operation))
    }

    fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
            None => value,
        }
    }

    /// Whether `value` is of the shape of `schema`: the keywords that the document uses, and one rule more. A field
    /// that is not described is wrong, though a client would have to bear it.
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolved(schema);
        if let Some(all) = schema["allOf"].as_array() {
            return self.check(&merged(all.iter().map(|part| self.resolved(part))), value, at);
        }
        for keyword in ["oneOf", "anyOf"] {
            if let Some(several) = schema[keyword].as_array() {
                let fits = several.iter().filter(|one| self.check(one, value, at).is_ok()).count();
                return if fits == 0 || (keyword == "oneOf" && fits > 1) {
                    Err(format!("{at} fits {fits} of its {keyword}"))
                } else {
                    Ok(())
                };
            }
        }
        if let Some(words) = schema["enum"].as_array()
            && !words.contains(value)
        {
            return Err(format!("{at} is none of {words:?}"));
        }
        let is_of = |kind: &Value| kind == kind_of(value) || (kind == "number" && kind_of(value) == "integer");
        match &schema["type"] {
            Value::Null => {}
            Value::Array(kinds) if kinds.iter().any(is_of) => {}
            kind if is_of(kind) => {}
            kind => return Err(format!("{at} is {}, not {kind}", kind_of(value))),
        }
        if let (Some("date-time"), Some(date)) = (schema["format"].as_str(), value.as_str())
            && !is_date(date)
        {
            return Err(format!("{at} is no date as the client reads them"));
        }
        match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.check(&schema["items"], item, &format!("{at}[{index}]"))),
            Value::Object(fields) if schema.get("properties").is_some() => {
                let properties = schema["properties"].as_object().unwrap();
                let mut required = schema["required"].as_array().into_iter().flatten();
                if let Some(name) = required.find(|name| !fields.contains_key(name.as_str().unwrap())) {
                    return Err(format!("{at} has no {name}"));
                }
                fields.iter().try_for_each(|(name, value)| match properties.get(name) {
                    Some(schema) => self.check(schema, value, &format!("{at}.{name}")),
                    None => Err(format!("{at}.{name} is not in it")),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The codes that a response may bear; the empty one where it may have none.
fn codes(response: &Value) -> BTreeSet<String> {
    let mut codes = Vec::new();
    match response.get("content") {
        None => codes.push(String::new()),
        Some(content) => codes_in(
            &content.as_object().unwrap().values().next().unwrap()["schema"],
            &mut codes,
        ),
    }
    if response["description"].as_str().unwrap().contains("with an empty body") {
        codes.push(String::new());
    }
    codes.into_iter().collect()
}

fn codes_in(schema: &Value, codes: &mut Vec<String>) {
    if let Some(any) = schema["anyOf"].as_array() {
        for one in any {
            codes_in(one, codes);
        }
    } else if let Some(all) = schema["allOf"].as_array() {
        let words = all
            .iter()
            .filter_map(|part| part["properties"]["code"]["enum"].as_array());
        codes.extend(words.flatten().map(|code| code.as_str().unwrap().to_owned()));
    } else {
        codes.push(String::new());
    }
}

/// Objects that all have to fit, as one.
fn merged<'v>(parts: impl Iterator<Item = &'v Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in parts {
        properties.extend(part["properties"].as_object().unwrap().clone());
        required.extend(part["required"].as_array().unwrap().clone());
    }
    serde_json::json!({ "type": "object", "properties": properties, "required": required })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `2026-11-21T07:15:08.894Z`
fn is_date(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[test]
fn an_answer_that_is_not_described_is_noticed() {
    let document = Document(serde_json::json!({
        "paths": { "/x": { "get": { "responses": {
            "200": { "description": "", "content": { "application/json": { "schema": { "$ref": "#/shape" } } } },
        } } } },
        "shape": {
            "type": "object",
            "properties": { "a": { "type": ["string", "null"] }, "at": { "type": "string", "format": "date-time" } },
            "required": ["a"],
        },
    }));
    let fits = |body: &str| document.check(&document.0["shape"], &serde_json::from_str(body).unwrap(), "body");
    assert_eq!(fits(r#"{"a":null,"at":"2026-11-21T07:15:08.894Z"}"#), Ok(()));
    for wrong in [
        "{}",
        r#"{"a":7}"#,
        r#"{"a":"","b":1}"#,
        "[]",
        r#"{"a":"","at":"2026-11-21T07:15:08.894321Z"}"#,
    ] {
        assert!(fits(wrong).is_err(), "{wrong}");
    }
}
