//! Which keys there are and in which order, asked of the types themselves: no list to keep in step with
//! them. (The JSON Schema has the same keys, but sorted.)

use std::cell::RefCell;

use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

/// What may stand at a place in the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A single value or a list.
    Value,
    /// A table whose keys the user names.
    Open,
    /// A section of these keys, in the order of the type.
    Section(Vec<(&'static str, Place)>),
}

impl Place {
    /// The places of a type whose structs all have `#[serde(default)]`.
    pub(super) fn of<T: for<'de> Deserialize<'de>>() -> Self {
        Self::at::<T>(&mut Vec::new())
    }

    /// Deserialises the one key at `path`, and sees what its type asks for.
    fn at<T: for<'de> Deserialize<'de>>(path: &mut Vec<&'static str>) -> Self {
        let found = RefCell::new(Found::Value);
        let probe = Probe {
            path,
            found: &found,
        };
        // It always fails: what is wanted is what was asked for on the way.
        let _ = T::deserialize(probe);
        match found.into_inner() {
            Found::Value => Self::Value,
            Found::Open => Self::Open,
            Found::Section(keys) => {
                let section = keys.iter().map(|key| {
                    path.push(key);
                    let place = Self::at::<T>(path);
                    path.pop();
                    (*key, place)
                });
                Self::Section(section.collect())
            }
        }
    }

    /// The dotted names of all values and open tables.
    pub(super) fn keys(&self) -> Vec<String> {
        let Self::Section(keys) = self else {
            return vec![String::new()];
        };
        let below = |(key, place): &(&str, Self)| {
            let names = place.keys().into_iter();
            let dotted = names.map(|name| match name.is_empty() {
                true => (*key).to_owned(),
                false => format!("{key}.{name}"),
            });
            dotted.collect::<Vec<_>>()
        };
        keys.iter().flat_map(below).collect()
    }
}

#[derive(Clone, Copy)]
enum Found {
    Value,
    Open,
    Section(&'static [&'static str]),
}

type Error = serde::de::value::Error;

/// A deserializer of nothing but nested one-key maps along a path; at its end it notes what was
/// asked for.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [&'static str],
    found: &'a RefCell<Found>,
}

impl Probe<'_> {
    fn ends<T>(self, found: Found) -> Result<T, Error> {
        *self.found.borrow_mut() = found;
        Err(Error::custom("asked"))
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path {
            [] => self.ends(Found::Value),
            _ => visitor.visit_map(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.path {
            [] => self.ends(Found::Section(fields)),
            _ => visitor.visit_map(self),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path {
            [] => self.ends(Found::Open),
            _ => visitor.visit_map(self),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, rest)) = self.path.split_first() else {
            return Ok(None);
        };
        self.path = rest;
        seed.deserialize(StrDeserializer::<Error>::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(*self)
    }
}
