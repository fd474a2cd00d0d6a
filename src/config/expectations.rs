//! The file of `vestibule test`: requests, and what is expected to become of each.
//!
//! It is read as `gateway.toml` is, by the same machinery: a key that nobody knows is an error with its line, and all
//! errors are told at once.

use std::{fs, path::Path, time::Duration};

use http::{HeaderName, HeaderValue, Method};
use serde_json::json;

use super::{
    ConfigError, ConfigErrors, Place,
    error::{nearest, one_of},
    found::{Found, KeyPath, Wrong},
    kind::{Kind, boolean, choice, list, one_or_more, parsed, table_of, text_schema},
    reader::Reader,
    routes::role,
    section::Section,
    source::{self, Table, Value},
    units::read_duration,
};

/// A request, and what is expected.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// Of its `[[tests]]`.
    pub line: usize,
    /// What it is called; its request, if it isn't.
    pub name: String,
    pub method: Method,
    /// A whole URL, or a path of `public_url`.
    pub url: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `None`: nobody is signed in.
    pub person: Option<Person>,
    pub expect: Expected,
}

/// Who is signed in; made up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Person {
    pub roles: Vec<String>,
    pub verified_email: bool,
    /// How long ago they signed in.
    pub signed_in: Duration,
    pub by: Carried,
}

/// How a request carries its session: a browser's cookie lets other sites send requests too, a token does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carried {
    Cookie,
    Bearer,
}

impl Default for Person {
    /// Just signed in, with a browser and a verified address.
    fn default() -> Self {
        Self {
            roles: Vec::new(),
            verified_email: true,
            signed_in: Duration::ZERO,
            by: Carried::Cookie,
        }
    }
}

/// What is expected; what is `None` is not looked at. Something is always there.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    pub outcome: Option<ExpectedOutcome>,
    /// The pattern of the route's path.
    pub route: Option<String>,
    pub upstream: Option<String>,
    /// What the upstream is asked for: path and query.
    pub path: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// A refusal's code.
    pub code: Option<String>,
    /// Of the request that the upstream gets.
    pub headers: Vec<(HeaderName, ExpectedHeader)>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExpectedOutcome {
    /// To the upstream.
    Forwarded,
    /// Somewhere else, the sign-in page included.
    Redirect,
    /// By the auth API.
    AuthApi,
    /// With a file, whether or not there is one.
    File,
    /// A page of another origin was told that it may send its request.
    Preflight,
    /// An answer of the gateway's with this status.
    Status(u16),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExpectedHeader {
    /// Exactly this, lines of one name joined by commas.
    Is(String),
    Present,
    Absent,
}

const OUTCOMES: [(&str, ExpectedOutcome); 5] = [
    ("forwarded", ExpectedOutcome::Forwarded),
    ("file", ExpectedOutcome::File),
    ("redirect", ExpectedOutcome::Redirect),
    ("auth-api", ExpectedOutcome::AuthApi),
    ("preflight", ExpectedOutcome::Preflight),
];

/// Reads such a file.
pub fn load_expectations(file: &Path) -> Result<Vec<Expectation>, ConfigErrors> {
    let failed = |errors| ConfigErrors::new(file.display().to_string(), errors);
    let text = fs::read_to_string(file).map_err(|error| {
        let error = ConfigError::new(Place::Missing, "", format!("can't be read: {error}"));
        failed(vec![error.allowed("the path of a file with [[tests]]")])
    })?;
    parse_expectations(&text, file)
}

/// As [`load_expectations`], of what was read.
pub fn parse_expectations(text: &str, file: &Path) -> Result<Vec<Expectation>, ConfigErrors> {
    let failed = |errors| ConfigErrors::new(file.display().to_string(), errors);
    let table = source::parse(text).map_err(failed)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let reader = Reader::load(folder, &|_| None);
    let all = |s: &mut Section<'_>| {
        let tests = s.items(
            "tests",
            "Requests, and what is expected to become of each.",
            Expectation::read,
        );
        (tests, !s.has("tests"))
    };
    let (tests, is_empty) = Section::root(&reader, &table, all);
    let mut errors = reader.into_errors(|| {
        let reader = Reader::describe();
        let _ = Section::root(&reader, &Table::default(), all);
        reader.into_catalogue()
    });
    if is_empty && errors.is_empty() {
        let none = ConfigError::new(
            Place::Missing,
            "tests",
            "missing: a file without tests would always pass",
        );
        errors.push(none.allowed("tables headed [[tests]]"));
    }
    if errors.is_empty() {
        Ok(tests)
    } else {
        Err(failed(errors))
    }
}

impl Expectation {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        let name = s
            .key("name", "What it is called in the report.", text("a name"))
            .optional("admins alone get in");
        let request = s
            .key("request", "Method, and a whole URL or a path of public_url.", request())
            .required("GET /api/x");
        let headers = s
            .key(
                "headers",
                "What else the client sends, such as { Accept = \"text/html\" }; several of a name: an array.",
                headers(),
            )
            .or("{}");
        let person = s
            .key(
                "as",
                "Who is signed in. \"anonymous\": nobody. Else roles, verified, signed_in and by.",
                person(),
            )
            .or("anonymous");
        let expect = s.section(
            "expect",
            "What is expected; what is not named is not looked at.",
            Expected::read,
        );
        let (method, url) = request?;
        Some(Self {
            line: match s.place() {
                Place::File { line, .. } => *line,
                Place::Missing | Place::Variable(_) | Place::Setting(_) | Place::Default => 0,
            },
            name: name?.unwrap_or_else(|| format!("{method} {url}")),
            method,
            url,
            headers: headers?,
            person: person?,
            expect: expect?,
        })
    }
}

impl Expected {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        const KEYS: [&str; 7] = ["outcome", "route", "upstream", "path", "location", "code", "headers"];
        let outcome = s
            .key("outcome", "What becomes of the request.", outcome())
            .optional("forwarded");
        let route = s
            .key(
                "route",
                "The path of the route that it takes, as the file has it.",
                text("a route's path"),
            )
            .optional("/api/*");
        let upstream = s
            .key("upstream", "The name of the upstream.", text("an upstream's name"))
            .optional("api");
        let path = s
            .key("path", "What the upstream is asked for: path and query.", path())
            .optional("/x");
        let location = s
            .key("location", "Where a redirect leads.", text("a URL or a path"))
            .optional("/sign-in?return_to=%2Fapp");
        let code = s
            .key(
                "code",
                "The code of a refusal.",
                text("a code such as \"UNAUTHORIZED\""),
            )
            .optional("UNAUTHORIZED");
        let headers = s
            .key(
                "headers",
                "What the upstream gets: a text, true for whatever text, or false for no such header.",
                expected_headers(),
            )
            .or("{}");
        if !KEYS.iter().any(|key| s.has(key)) {
            let error = ConfigError::new(s.place().clone(), s.path(), "nothing is expected: it would always pass");
            s.report(error.allowed(format!("at least one of {}", KEYS.join(", "))));
        }
        Some(Self {
            outcome: outcome?,
            route: route?,
            upstream: upstream?,
            path: path?,
            location: location?,
            code: code?,
            headers: headers?,
        })
    }
}

fn text(allowed: &'static str) -> Kind<String> {
    parsed(allowed, |text| {
        if text.is_empty() {
            return Err("empty".into());
        }
        Ok(text.to_owned())
    })
}

fn path() -> Kind<String> {
    parsed("a path such as \"/x?y=1\"", |text| {
        if text.starts_with('/') {
            Ok(text.to_owned())
        } else {
            Err(Wrong::but("a path begins with a slash", format!("/{text}")))
        }
    })
}

fn request() -> Kind<(Method, String)> {
    parsed("a method and a URL or a path, such as \"GET /api/x\"", |text| {
        let Some((method, url)) = text.split_once(' ') else {
            return Err(Wrong::but("no method, or no URL", format!("GET {text}")));
        };
        let method = method.parse().map_err(|_| "not a method")?;
        if !["/", "http://", "https://"].iter().any(|start| url.starts_with(start)) {
            return Err("neither a path nor an http(s) URL behind the method".into());
        }
        Ok((method, url.to_owned()))
    })
}

fn header_name(text: &str) -> Result<(), Wrong> {
    match text.parse::<HeaderName>() {
        Ok(_) => Ok(()),
        Err(_) => Err("not the name of a header".into()),
    }
}

fn headers() -> Kind<Vec<(HeaderName, HeaderValue)>> {
    let value = || {
        parsed("a header's value", |text| {
            HeaderValue::from_str(text).map_err(|_| Wrong::from("not a header's value"))
        })
    };
    table_of(header_name, one_or_more(value)).map(|headers| {
        let lines = headers.into_iter().flat_map(|(name, values)| {
            let name = name.parse::<HeaderName>().ok();
            values.into_iter().filter_map(move |value| Some((name.clone()?, value)))
        });
        lines.collect()
    })
}

fn expected_headers() -> Kind<Vec<(HeaderName, ExpectedHeader)>> {
    const ALLOWED: &str = "a text, true for whatever text, or false for no such header";
    let schema = json!({ "anyOf": [{ "type": "string" }, { "type": "boolean" }] });
    let value = Kind::new(ALLOWED, schema, |found| match &found.node.value {
        Value::Boolean(true) => Some(ExpectedHeader::Present),
        Value::Boolean(false) => Some(ExpectedHeader::Absent),
        Value::Text(text) => Some(ExpectedHeader::Is(text.clone())),
        _ => {
            found.wrong_type(ALLOWED, None);
            None
        }
    });
    table_of(header_name, value).map(|headers| {
        let headers = headers.into_iter();
        headers
            .filter_map(|(name, value)| Some((name.parse().ok()?, value)))
            .collect()
    })
}

fn outcome() -> Kind<ExpectedOutcome> {
    let names = || OUTCOMES.iter().map(|(name, _)| *name);
    let allowed = format!("{}; or a status such as 401", one_of(names()));
    let words = allowed.clone();
    let status = |number: u16| (100..600).contains(&number).then_some(ExpectedOutcome::Status(number));
    let schema = json!({ "anyOf": [{ "enum": names().collect::<Vec<_>>() }, { "type": "integer" }] });
    Kind::new(allowed, schema, move |found| {
        let (read, nearest) = match &found.node.value {
            Value::Integer(number) => (number.and_then(|number| status(u16::try_from(number).ok()?)), None),
            Value::Text(text) => {
                let known = OUTCOMES
                    .iter()
                    .find(|(name, _)| name == text)
                    .map(|(_, outcome)| *outcome);
                (known.or_else(|| status(text.parse().ok()?)), nearest(text, names()))
            }
            _ => (None, None),
        };
        if read.is_none() {
            let problem = "not an outcome".to_owned();
            found.report(Wrong { problem, nearest }, Some(found.shown()), &words);
        }
        read
    })
}

fn person() -> Kind<Option<Person>> {
    const KEYS: [&str; 4] = ["roles", "verified", "signed_in", "by"];
    const ALLOWED: &str = "\"anonymous\", or a table such as { roles = [\"admin\"], verified = true, signed_in = \"5m ago\", \
                           by = \"cookie\" }; {} is somebody without roles";
    let schema = json!({ "anyOf": [{ "const": "anonymous" }, { "type": "object" }] });
    Kind::new(ALLOWED, schema, |found| match &found.node.value {
        Value::Text(text) if text == "anonymous" => Some(None),
        Value::Table(table) => {
            let mut person = Person::default();
            let mut is_right = true;
            for entry in &table.entries {
                let value = Found::new(found.reader, KeyPath::Entry(&found.key, &entry.name), &entry.node);
                is_right &= match entry.name.as_str() {
                    "roles" => set(&mut person.roles, list(role()).read(&value)),
                    "verified" => set(&mut person.verified_email, boolean().read(&value)),
                    "signed_in" => set(&mut person.signed_in, ago().read(&value)),
                    "by" => set(&mut person.by, carried().read(&value)),
                    other => {
                        let error = ConfigError::new(entry.place.clone(), value.key.to_string(), "unknown key");
                        let error = error.allowed(KEYS.join(", ")).nearest(nearest(other, KEYS));
                        found.reader.report(error);
                        false
                    }
                };
            }
            is_right.then_some(Some(person))
        }
        _ => {
            found.wrong_type(ALLOWED, None);
            None
        }
    })
}

/// Whether there was something to set.
fn set<T>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

fn ago() -> Kind<Duration> {
    let mut kind = parsed("how long ago, such as \"5m ago\"", |text| {
        read_duration(text.strip_suffix(" ago").unwrap_or(text))
    });
    kind.schema = text_schema(&json!({ "type": "string", "examples": ["5m ago"] }));
    kind
}

fn carried() -> Kind<Carried> {
    choice(&[("cookie", Carried::Cookie), ("bearer", Carried::Bearer)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Expectation>, String> {
        parse_expectations(text, Path::new("routes.test.toml")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_test_says_little_or_much() {
        let tests = read(
            "[[tests]]\nrequest = 'GET /api/x'\nexpect = { outcome = 401 }\n\n\
             [[tests]]\nname = 'admins'\nrequest = 'POST https://app.example.com/admin?x=1'\n\
             as = { roles = ['admin'], verified = false, signed_in = '5m ago', by = 'bearer' }\n\
             headers = { Accept = 'text/html', X-A = ['1', '2'] }\n\
             expect = { outcome = 'forwarded', headers = { X-User-Roles = 'admin', Cookie = false, Accept = true } }\n",
        )
        .unwrap();
        assert_eq!((tests[0].name.as_str(), tests[0].line), ("GET /api/x", 1));
        assert_eq!(
            (&tests[0].person, tests[0].expect.outcome),
            (&None, Some(ExpectedOutcome::Status(401)))
        );
        let person = Person {
            roles: vec!["admin".to_owned()],
            verified_email: false,
            signed_in: Duration::from_mins(5),
            by: Carried::Bearer,
        };
        assert_eq!(tests[1].person, Some(person));
        assert_eq!((tests[1].line, tests[1].headers.len()), (5, 3));
        let is = ExpectedHeader::Is("admin".to_owned());
        let headers: Vec<_> = tests[1].expect.headers.iter().map(|(_, header)| header).collect();
        assert_eq!(headers, [&is, &ExpectedHeader::Absent, &ExpectedHeader::Present]);
    }

    #[test]
    fn what_would_never_fail_or_is_not_understood_is_an_error_with_its_line() {
        let with = |test: &str| format!("[[tests]]\n{test}\n");
        for (text, says) in [
            (String::new(), "would always pass"),
            (with("request = 'GET /'"), "1:1: tests[0].expect: nothing is expected"),
            (with("expect = { outcome = 401 }"), "tests[0].request: missing"),
            (
                with("request = '/x'\nexpect = { outcome = 401 }"),
                "did you mean `GET /x`?",
            ),
            (with("request = 'GET x'\nexpect = { outcome = 401 }"), "neither a path"),
            (
                with("request = 'GET /'\nexpects = { outcome = 401 }"),
                "3:1: tests[0].expects: unknown key",
            ),
            (
                with("request = 'GET /'\nexpect = { outcome = 'forwardd' }"),
                "did you mean `forwarded`?",
            ),
            (with("request = 'GET /'\nexpect = { outcome = 4001 }"), "not an outcome"),
            (
                with("request = 'GET /'\nas = { role = ['x'] }\nexpect = { code = 'X' }"),
                "did you mean `roles`?",
            ),
            (
                with("request = 'GET /'\nas = 'ada'\nexpect = { code = 'X' }"),
                "anonymous",
            ),
            (
                with("request = 'GET /'\nas = { signed_in = 'x ago' }\nexpect = { code = 'X' }"),
                "not a duration",
            ),
            (with("request = 'GET /'\nexpect = { path = 'x' }"), "did you mean `/x`?"),
            (
                with("request = 'GET /'\nheaders = { 'a b' = 'x' }\nexpect = { code = 'X' }"),
                "not the name of a header",
            ),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(says), "{text}\n{error}");
        }
    }
}
