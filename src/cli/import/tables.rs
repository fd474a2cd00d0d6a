//! Where a better-auth database keeps what: found by name, in the spellings that its generators use.
//!
//! Kysely and better-auth's own migrations make `user` with `emailVerified`, Prisma may make `User`, Drizzle `user` or
//! `users` with `email_verified`. Letter case, underscores and a plural's s don't count; what is spelled exactly goes
//! first. What a site named otherwise is said on the command line. A table that lacks a column which better-auth always
//! has is not taken for its.

use std::collections::{BTreeMap, HashMap};

/// A kind of row that better-auth keeps, with its fields as better-auth calls them.
pub(super) struct Model {
    pub(super) name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

pub(super) const USER: Model = Model {
    name: "user",
    required: &["id", "name", "email", "emailVerified", "createdAt", "updatedAt"],
    optional: &["image", "role", "banned", "banReason", "banExpires", "twoFactorEnabled"],
};

pub(super) const ACCOUNT: Model = Model {
    name: "account",
    required: &["id", "accountId", "providerId", "userId", "password"],
    optional: &[
        "accessToken",
        "refreshToken",
        "idToken",
        "accessTokenExpiresAt",
        "refreshTokenExpiresAt",
        "scope",
        // Of 1.7.0 to 1.7.2 alone.
        "issuer",
        "createdAt",
        "updatedAt",
    ],
};

pub(super) const SESSION: Model = Model {
    name: "session",
    required: &["id", "token", "userId", "expiresAt", "createdAt"],
    optional: &["updatedAt", "ipAddress", "userAgent", "impersonatedBy"],
};

/// Only counted.
pub(super) const PASSKEY: Model = Model {
    name: "passkey",
    required: &["id", "userId", "publicKey"],
    optional: &[],
};

const MODELS: [&Model; 4] = [&USER, &ACCOUNT, &SESSION, &PASSKEY];

/// One column of the database, as `information_schema` describes it.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) data_type: String,
    /// Its type's name, qualified and quoted.
    pub(super) type_name: String,
}

/// All columns of a schema, by table.
pub(super) type Catalogue = BTreeMap<String, Vec<Column>>;

/// A table of the source, with its columns by better-auth's names for them.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) name: String,
    columns: HashMap<&'static str, Column>,
}

impl Table {
    pub(super) fn column(&self, field: &str) -> Option<&Column> {
        self.columns.get(field)
    }
}

/// What the command line says of names: tables by model, columns by model and field.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    tables: HashMap<&'static str, String>,
    columns: HashMap<(&'static str, &'static str), String>,
}

impl Names {
    /// Out of `MODEL=TABLE` and `MODEL.FIELD=COLUMN`.
    pub(super) fn read(tables: &[String], columns: &[String]) -> Result<Self, String> {
        let mut names = Self::default();
        for text in tables {
            let (model, table) = pair(text, "--table", "user=app_users")?;
            names.tables.insert(model_of(model)?.name, table.to_owned());
        }
        for text in columns {
            let (path, column) = pair(text, "--column", "user.email=mail")?;
            let Some((model, field)) = path.split_once('.') else {
                return Err(format!("--column {text}: write it as user.email=mail"));
            };
            let model = model_of(model)?;
            let mut fields = model.required.iter().chain(model.optional);
            let Some(field) = fields.find(|known| **known == field) else {
                let known = [model.required, model.optional].concat().join(", ");
                return Err(format!("--column {text}: the fields of {} are {known}", model.name));
            };
            names.columns.insert((model.name, field), column.to_owned());
        }
        Ok(names)
    }
}

fn pair<'t>(text: &'t str, option: &str, example: &str) -> Result<(&'t str, &'t str), String> {
    text.split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("{option} {text}: write it as {example}"))
}

fn model_of(name: &str) -> Result<&'static Model, String> {
    let known = MODELS.into_iter().find(|model| model.name == name);
    known.ok_or_else(|| format!("{name} is no table of better-auth that is imported: user, account, session"))
}

/// The table of a model; what is wrong with the schema otherwise, in words for the operator.
pub(super) fn find(model: &Model, catalogue: &Catalogue, names: &Names) -> Result<Table, String> {
    if let Some(name) = names.tables.get(model.name) {
        let Some(columns) = catalogue.get(name) else {
            return Err(format!("there is no table {name:?} that this user may read"));
        };
        return whole(model, name, columns, names);
    }
    let plural = format!("{}s", model.name);
    let mut fit = Vec::new();
    let mut unfit = Vec::new();
    for (name, columns) in catalogue {
        let folded = folded(name);
        if folded != model.name && folded != plural {
            continue;
        }
        match whole(model, name, columns, names) {
            Ok(table) => fit.push(table),
            Err(why) => unfit.push(why),
        }
    }
    let option = format!("say which one is meant with --table {}=NAME", model.name);
    match (fit.len(), unfit.is_empty()) {
        (0, true) => Err(format!("there is no table {:?}; {option}", model.name)),
        (0, false) => Err(unfit.join("; ")),
        (1, _) => fit.pop().ok_or_else(|| "a table has gone".to_owned()),
        _ => {
            let found: Vec<_> = fit.iter().map(|table| format!("{:?}", table.name)).collect();
            Err(format!(
                "several tables may be meant, {}; {option}",
                found.join(" and ")
            ))
        }
    }
}

/// `columns` as those of `model`, if all that must be there is.
fn whole(model: &Model, name: &str, columns: &[Column], names: &Names) -> Result<Table, String> {
    let mut found = HashMap::new();
    let mut missing = Vec::new();
    for field in model.required.iter().chain(model.optional) {
        let wanted = names.columns.get(&(model.name, *field));
        match column_of(field, wanted.map(String::as_str), columns) {
            Some(column) => {
                found.insert(*field, column.clone());
            }
            None if wanted.is_some() || model.required.contains(field) => missing.push(*field),
            None => {}
        }
    }
    if missing.is_empty() {
        return Ok(Table {
            name: name.to_owned(),
            columns: found,
        });
    }
    Err(format!(
        "table {name:?} has no column for {}; say which it is with --column {}.FIELD=NAME",
        missing.join(", "),
        model.name
    ))
}

fn column_of<'c>(field: &str, named: Option<&str>, columns: &'c [Column]) -> Option<&'c Column> {
    let exactly = |name: &str| columns.iter().find(|column| column.name == name);
    match named {
        Some(name) => exactly(name),
        None => exactly(field).or_else(|| {
            let field = folded(field);
            columns.iter().find(|column| folded(&column.name) == field)
        }),
    }
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue(tables: &[(&str, &str)]) -> Catalogue {
        let column = |name: &str| Column {
            name: name.to_owned(),
            data_type: "text".to_owned(),
            type_name: r#""pg_catalog"."text""#.to_owned(),
        };
        tables
            .iter()
            .map(|(table, columns)| ((*table).to_owned(), columns.split(' ').map(column).collect()))
            .collect()
    }

    fn found(tables: &[(&str, &str)], names: &Names) -> Result<Table, String> {
        find(&USER, &catalogue(tables), names)
    }

    const CAMEL: &str = "id name email emailVerified image createdAt updatedAt";
    const SNAKE: &str = "id name email email_verified image created_at updated_at";

    #[test]
    fn every_generators_spelling_is_found() {
        for (table, columns, column) in [
            ("user", CAMEL, "emailVerified"),
            ("User", CAMEL, "emailVerified"),
            ("users", SNAKE, "email_verified"),
            ("Users", CAMEL, "emailVerified"),
            (
                "user",
                "ID NAME EMAIL EMAILVERIFIED CREATEDAT UPDATEDAT",
                "EMAILVERIFIED",
            ),
        ] {
            let found = found(&[(table, columns), ("other", CAMEL)], &Names::default()).unwrap();
            assert_eq!(found.name, table);
            assert_eq!(found.column("emailVerified").unwrap().name, column);
            assert!(found.column("role").is_none(), "a column that only a plugin makes");
        }
    }

    #[test]
    fn a_table_of_the_name_that_is_not_better_auths_is_passed_over() {
        let tables = [("users", "id login mail"), ("user", CAMEL)];
        assert_eq!(found(&tables, &Names::default()).unwrap().name, "user");
    }

    #[test]
    fn what_is_not_clear_is_asked() {
        let none = Names::default();
        let said = found(&[("person", CAMEL)], &none).unwrap_err();
        assert!(said.contains("--table user=NAME"), "{said}");
        let said = found(&[("user", CAMEL), ("User", CAMEL)], &none).unwrap_err();
        assert!(said.contains(r#""User" and "user""#), "{said}");
        let said = found(&[("user", "id name email createdAt")], &none).unwrap_err();
        assert!(said.contains("emailVerified, updatedAt"), "{said}");
    }

    #[test]
    fn the_command_line_has_the_last_word() {
        let tables = [
            ("user", CAMEL),
            ("people", "id name mail emailVerified createdAt updatedAt"),
        ];
        let names = Names::read(&["user=people".to_owned()], &["user.email=mail".to_owned()]).unwrap();
        let table = found(&tables, &names).unwrap();
        assert_eq!(
            (table.name.as_str(), table.column("email").unwrap().name.as_str()),
            ("people", "mail")
        );
        let names = Names::read(&["user=nobody".to_owned()], &[]).unwrap();
        assert!(found(&tables, &names).is_err());
        for (table, column) in [
            ("user", ""),
            ("users=x", ""),
            ("=x", ""),
            ("", "email=x"),
            ("", "user.mail=x"),
        ] {
            let list = |text: &str| if text.is_empty() { vec![] } else { vec![text.to_owned()] };
            assert!(Names::read(&list(table), &list(column)).is_err(), "{table}{column}");
        }
    }
}
