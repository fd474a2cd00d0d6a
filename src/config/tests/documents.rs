//! What ships with the code is what the code says.

use super::*;

/// Everything on disk that ships: `UPDATE_GOLDEN=1` writes it again, and the difference is to be read.
#[test]
fn reference_and_schema_on_disk_are_what_the_code_says() {
    let mut schema = serde_json::to_string_pretty(&json_schema()).unwrap();
    schema.push('\n');
    for (name, text) in [("reference.toml", reference()), ("schema.json", schema)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            on_disk == text,
            "config/{name} is not what the code says: run the tests with UPDATE_GOLDEN=1"
        );
    }
}

#[test]
fn the_reference_says_the_defaults() {
    let least = plus("[[routes]]\npath = '/api/*'\nupstream = 'api'\n");
    let mut least = loaded(&least);
    let mut reference = loaded(&reference());
    (least.routes[0].line, reference.routes[0].line) = (0, 0);
    assert_eq!(format!("{reference:#?}"), format!("{least:#?}"));
}

#[test]
fn the_examples_in_the_reference_are_fine() {
    let mut text = String::new();
    // `host_prefix` doesn't go with a domain, some files aren't ours to ship, no provider is of every kind, and there
    // is no TLS to an http endpoint.
    let unfit = [
        "host_prefix",
        "# geo_database",
        "# ca",
        "# certificate",
        "# key",
        "# server_name",
        "# team_id",
        "# key_id",
        "# hmac_key",
        "# private_key",
        "# tenant",
        "# base_url",
        "# emails_endpoint",
        // A route has one target.
        "# serve",
        "# fallback",
        "# to",
        "# status",
        "# body",
        "# content_type",
    ];
    let unfit_headers = ["# [routes.redirect]", "# [routes.respond]"];
    let fine =
        |line: &&str| !unfit.iter().any(|key| line.starts_with(&format!("{key} ="))) && !unfit_headers.contains(line);
    let mut in_tls = false;
    for line in reference().lines() {
        if line.trim_start_matches("# ").starts_with('[') {
            in_tls = line.contains("[server.tls");
        }
        // There a certificate and its key go with everything else, and nobody reads them yet.
        if !in_tls && !fine(&line) {
            continue;
        }
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_example = bare
            .split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        let is_header = bare.starts_with('[') && bare.ends_with(']');
        text.push_str(if is_example || is_header { bare } else { line });
        text.push('\n');
    }
    let config = loaded(&text);
    assert_eq!(config.auth.session.cookie.domain.as_deref(), Some("example.com"));
    assert_eq!(config.routes[0].host.as_ref().unwrap().to_string(), "api.example.com");
    assert_eq!(config.auth.oauth[0].hosted_domain.as_deref(), Some("example.com"));
}

#[test]
fn what_ships_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "gateway.toml",
        "config/minimal.toml",
        "config/reference.toml",
        "config/docker.toml",
    ] {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).unwrap();
        if let Err(errors) = parse_with(&text, &path, &environment, &Overrides::new()) {
            panic!("{errors}");
        }
        assert!(text.starts_with("#:schema ./"), "{name} doesn't name its schema");
    }
}

/// Every key of the reference is in the schema, under the same path, and the other way round nothing is left open.
#[test]
fn the_schema_knows_every_key_and_nothing_else() {
    let schema = json_schema();
    let table: toml::Table = reference().parse().unwrap();
    walk(&table.into(), &schema, "");
    let provider = &schema["properties"]["auth"]["properties"]["oauth"]["additionalProperties"];
    assert_eq!(provider["properties"]["kind"]["anyOf"][0]["enum"][4], "oidc");
    assert_eq!(provider["properties"]["authorization_params"]["type"], "object");
}

/// Whoever copies the reference whole gets no provider that they did not ask for.
#[test]
fn the_reference_shows_providers_as_comments() {
    let text = reference();
    assert!(text.contains("\n# [auth.oauth.google]\n"), "{text}");
    assert!(text.contains("\n# sign_up = \"allowed\"\n"), "{text}");
    assert!(loaded(&text).auth.oauth.is_empty());
}

fn walk(value: &toml::Value, schema: &serde_json::Value, path: &str) {
    match value {
        toml::Value::Table(table) if schema["type"] == "object" => {
            for (key, value) in table {
                let property = &schema["properties"][key];
                let inner = if property.is_null() {
                    &schema["additionalProperties"]
                } else {
                    property
                };
                assert!(inner.is_object(), "{path}.{key} is not in the schema");
                walk(value, inner, &format!("{path}.{key}"));
            }
            assert!(!schema["additionalProperties"].is_null(), "{path} takes anything");
        }
        toml::Value::Array(items) if !schema["items"]["properties"].is_null() => {
            for item in items {
                walk(item, &schema["items"], path);
            }
        }
        _ => assert!(schema["description"].is_string(), "{path} has no description"),
    }
}
