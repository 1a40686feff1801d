//! JSON, read strictly.
//!
//! `serde_json` keeps the last of two equal keys. Another reader may keep the first one, and then two
//! programs see two different pods in the same bytes. So a second equal key is an error here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::text::one_line;

/// Checks that one JSON value (RFC 8259) fills all of `bytes`, and that all readers will see the same in
/// it. Nothing is built: values are read afterwards, by those who know what they need.
///
/// # Errors
///
/// Bytes that are not UTF-8, not JSON, nested more than 127 levels deep, or have a key twice in one
/// object.
pub fn check(bytes: &[u8]) -> Result<&str, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    // Strings are UTF-8 by now, and what is between them is ASCII.
    std::str::from_utf8(bytes).map_err(|_| Error::custom("not UTF-8"))
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = Keys::default();
        while let Some(key) = entries.next_key_seed(Key)? {
            if let Some(key) = keys.insert(key) {
                let key = one_line(&key, 64);
                return Err(Error::custom(format_args!("key {key:?} is there twice")));
            }
            entries.next_value_seed(Self)?;
        }
        Ok(())
    }
}

/// A key, borrowed from the text where nothing in it is escaped.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// An object. Derived structures also take a list of their fields' values, which no other reader does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

/// The keys of one object: nearly all have a few, and a few have thousands.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

/// What is compared one by one faster than hashed.
const FEW: usize = 16;

impl<'de> Keys<'de> {
    /// Keeps a key, or gives it back if it is there.
    fn insert(&mut self, key: Cow<'de, str>) -> Option<Cow<'de, str>> {
        if self.few.contains(&key) || self.many.contains(&key) {
            return Some(key);
        }
        if self.few.len() < FEW {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refuse(bytes: &[u8], expect: &str) {
        assert_eq!(check(bytes).unwrap_err().to_string(), expect);
    }

    #[test]
    fn json_is_accepted_as_it_is() {
        let text = r#"{"a":[1,-2,1.5,18446744073709551615,true,null,"ä\u0000"],"b":{"a":{}}}"#;
        assert_eq!(check(text.as_bytes()).unwrap(), text);
        assert_eq!(check(b" 1 ").unwrap(), " 1 ");
    }

    #[test]
    fn a_key_is_found_among_thousands() {
        let keys = |last: &str| {
            let keys: String = (0..5000).map(|n| format!(r#""k{n}":0,"#)).collect();
            format!(r#"{{{keys}"{last}":0}}"#)
        };
        assert!(check(keys("k5000").as_bytes()).is_ok());
        for twice in ["k0", "k15", "k16", "k4999"] {
            let error = check(keys(twice).as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("key {twice:?} is there twice")), "{error}");
        }
    }

    #[test]
    fn a_second_equal_key_is_refused() {
        refuse(br#"{"a":1,"a":1}"#, r#"key "a" is there twice at line 1 column 10"#);
        refuse(br#"{"a":1,"\u0061":1}"#, r#"key "a" is there twice at line 1 column 15"#);
        refuse(br#"[{"b":{"c":0,"c":0}}]"#, r#"key "c" is there twice at line 1 column 16"#);
        assert!(check(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn what_is_not_json_is_refused() {
        refuse(b"", "EOF while parsing a value at line 1 column 0");
        refuse(br#"{"a":"#, "EOF while parsing a value at line 1 column 5");
        refuse(b"1 2", "trailing characters at line 1 column 3");
        refuse(b"\"\xff\"", "invalid unicode code point at line 1 column 2");
        refuse(
            b"\"a\0\"",
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 3",
        );
        refuse(b"1e999", "number out of range at line 1 column 5");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(nested(127).as_bytes()).is_ok());
        refuse(nested(128).as_bytes(), "recursion limit exceeded at line 1 column 128");
        refuse(&b"[".repeat(1_000_000), "recursion limit exceeded at line 1 column 128");
    }
}
