//! Attacks that must fail, and that the list of them is whole.
//!
//! The catalogue is `tests/golden/threat-cases.txt`, a case a line. A test that attacks so begins its name with the
//! case's id, wherever it stands: most stand beside the behaviour that they are about. Those here send what is near a
//! case, too: other spellings, other places, the other protocol. For each rule that refuses, something like it passes.

mod cookies;
mod cross_site;
mod exposure;
mod failures;
mod framing;
mod hosts;
mod methods;
mod passwords;
mod paths;
mod routes;
mod sessions;
mod spoofing;
mod targets;
mod tls;
mod upgrades;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http_body_util::Full;

use crate::harness::{Gateway, RawClient, client::Response, h2_client::H2Client};

/// How a request comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Via {
    Http1,
    Http2,
}

const BOTH: [Via; 2] = [Via::Http1, Via::Http2];

/// What a client saw of an answer.
#[derive(Debug)]
struct Saw {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Saw {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn has(&self, name: &str) -> bool {
        self.one(name).is_some()
    }

    fn one(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Asks for something without a body; a field named `Host` takes the place of the site's.
async fn ask(gateway: &Gateway, via: Via, method: &str, target: &str, fields: &[(&str, &str)]) -> Saw {
    match via {
        Via::Http1 => {
            let call = gateway.call(method, target).undescribed();
            let answer = fields
                .iter()
                .fold(call, |call, (name, value)| call.header(name, value))
                .await;
            Saw {
                status: answer.status(),
                fields: answer.head.fields.clone(),
                body: answer.body,
            }
        }
        Via::Http2 => {
            let client = H2Client::connect(gateway.addr(), gateway.host()).await;
            let request = fields
                .iter()
                .fold(client.request(method, target), |request, (name, value)| {
                    request.header(*name, *value)
                });
            let answer = client.send(request.body(Full::<Bytes>::default()).unwrap()).await;
            let answer = answer.unwrap_or_else(|error| panic!("{method} {target} {fields:?}: {error}"));
            let fields = answer.headers.iter();
            Saw {
                status: answer.status,
                fields: fields
                    .map(|(name, value)| {
                        let value = String::from_utf8_lossy(value.as_bytes());
                        (name.to_string(), value.into_owned())
                    })
                    .collect(),
                body: answer.body.to_vec(),
            }
        }
    }
}

/// Sends these bytes on a connection of their own; the first answer, and the connection.
async fn sent(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> (Response, RawClient) {
    let mut client = gateway.raw().await;
    client.send(bytes).await;
    let answer = client.answer().await;
    (answer, client)
}

/// Whoever sends it is told 400 (501: there is nothing that could read it), the connection ends, and what stood behind
/// is nobody's request.
async fn refused_and_closed(gateway: &Gateway, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    let behind = format!("GET /public/behind HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.host());
    let (answer, mut client) = sent(gateway, [bytes, behind.as_bytes()].concat()).await;
    let shown = String::from_utf8_lossy(bytes);
    assert!(matches!(answer.status(), 400 | 501), "{shown:?}: {}", answer.status());
    assert!(client.is_closed().await, "{shown:?}: the connection goes on");
    assert_eq!(gateway.upstream().seen("/public/behind"), 0, "{shown:?}");
}

/// A fixed sequence (Knuth's MMIX), so that what fails can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count
    }

    fn one_of<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len())]
    }
}

/// The catalogue: ids, and what each is about.
fn catalogue() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("golden/threat-cases.txt")).unwrap();
    let cases = text
        .lines()
        .map(|line| line.split_once(' ').expect("an id and a threat"));
    cases.map(|(id, threat)| (id.to_owned(), threat.to_owned())).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The ids that a test's name begins with: `path_01_path_02_dots_…`.
fn ids(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split('_').collect();
    let pairs = words.chunks(2).map_while(|pair| match pair {
        [class, number] if number.len() == 2 && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(format!("{}-{number}", class.to_ascii_uppercase()))
        }
        _ => None,
    });
    pairs.collect()
}

/// The names of all tests in a file: of functions that an attribute calls one, and that are run.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[ignore") {
            is_test = false;
        } else if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
            let name = rest.split(['(', '<']).next().unwrap_or_default();
            if std::mem::take(&mut is_test) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn every_case_of_the_catalogue_is_a_test_that_bears_its_id() {
    let catalogue = catalogue();
    assert!(catalogue.len() >= 115, "{} cases", catalogue.len());
    let mut files = Vec::new();
    sources(&root().join("it"), &mut files);
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for file in &files {
        for name in tests_in(&fs::read_to_string(file).unwrap()) {
            for id in ids(&name) {
                assert!(
                    catalogue.contains_key(&id),
                    "{}: {name}: there is no {id} in the catalogue",
                    file.display()
                );
                *found.entry(id).or_default() += 1;
            }
        }
    }
    let missing: Vec<_> = catalogue.iter().filter(|(id, _)| !found.contains_key(*id)).collect();
    assert!(missing.is_empty(), "no test attacks so: {missing:#?}");
}

#[test]
fn a_test_is_known_by_its_attribute_and_its_ids_by_its_name() {
    let source = "#[tokio::test]\nasync fn a_01_b() {}\nfn b_02_c() {}\n#[test]\n#[ignore = \"\"]\nfn c_03_d() {}\n";
    assert_eq!(tests_in(source), BTreeSet::from(["a_01_b".to_owned()]));
    assert_eq!(ids("path_01_path_02_dots_of_99_kinds"), ["PATH-01", "PATH-02"]);
    assert_eq!(ids("every_third_of_12"), [""; 0]);
}
