//! JSON and forms that name nothing twice, read so that what was read of them is wiped if the rest can't be.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::secret::wipe_json;

/// JSON in which no object names a key twice.
pub(super) struct Unique(pub(super) Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON whose objects name no key twice")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Unfinished::default();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            values
                .insert(key, value)
                .map_err(|_| de::Error::custom("a key repeats"))?;
        }
        Ok(values.finished().into())
    }
}

/// Fields that are being read. Should what follows them not be readable, those that were are wiped.
#[derive(Default)]
pub(super) struct Unfinished(Map<String, Value>);

/// A name that was there already.
pub(super) struct Repeats;

impl Unfinished {
    pub(super) fn insert(&mut self, name: String, value: Value) -> Result<(), Repeats> {
        match self.0.insert(name, value) {
            None => Ok(()),
            Some(mut first) => {
                wipe_json(&mut first);
                Err(Repeats)
            }
        }
    }

    pub(super) fn finished(mut self) -> Map<String, Value> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.values_mut().for_each(wipe_json);
    }
}
