//! The types of each query's parameters, for statements that are not prepared.
//!
//! Whoever prepares a statement is told by the server; whoever sends it unnamed has to know, or would ask each time. What
//! the server says of each query is in `types.txt`, which a test writes and compares (`tests/it/sql.rs`).

use std::{collections::HashMap, sync::LazyLock};

use tokio_postgres::types::{ToSql, Type};

use super::{Params, Query};

/// By the query's name.
static TYPES: LazyLock<HashMap<&'static str, Vec<Type>>> =
    LazyLock::new(|| include_str!("types.txt").lines().filter_map(read).collect());

/// A line such as `users.insert(uuid, text, _text) -> id uuid`.
fn read(line: &'static str) -> Option<(&'static str, Vec<Type>)> {
    let (name, rest) = line.split_once('(')?;
    let (params, _) = rest.split_once(')')?;
    let types = params.split(", ").filter(|name| !name.is_empty());
    Some((name, types.map(of_name).collect::<Option<_>>()?))
}

fn of_name(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::BOOL,
        "bytea" => Type::BYTEA,
        "float8" => Type::FLOAT8,
        "inet" => Type::INET,
        "int4" => Type::INT4,
        "int8" => Type::INT8,
        "name" => Type::NAME,
        "text" => Type::TEXT,
        "timestamptz" => Type::TIMESTAMPTZ,
        "uuid" => Type::UUID,
        "_bool" => Type::BOOL_ARRAY,
        "_bytea" => Type::BYTEA_ARRAY,
        "_inet" => Type::INET_ARRAY,
        "_int4" => Type::INT4_ARRAY,
        "_int8" => Type::INT8_ARRAY,
        "_text" => Type::TEXT_ARRAY,
        "_timestamptz" => Type::TIMESTAMPTZ_ARRAY,
        "_uuid" => Type::UUID_ARRAY,
        _ => return None,
    })
}

/// Each of `params` with its type. Too few types are refused by the server; a test sees to it that none is missing.
pub(super) fn params<'p>(query: &Query, params: Params<'p>) -> Vec<(&'p (dyn ToSql + Sync), Type)> {
    let types = TYPES.get(query.name).map(Vec::as_slice).unwrap_or_default();
    params.iter().copied().zip(types.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::all_queries;

    /// Whether the types are right, the test knows that asks the server.
    #[test]
    fn the_parameters_of_every_query_have_types() {
        for query in all_queries() {
            let types = TYPES.get(query.name);
            let types = types.unwrap_or_else(|| panic!("{} is not in types.txt, or a type is unknown", query.name));
            let most = (1..=64).rfind(|number| query.sql.contains(&format!("${number}")));
            assert_eq!(types.len(), most.unwrap_or(0), "{}", query.name);
        }
    }
}
