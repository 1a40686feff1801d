//! JSON, read strictly.
//!
//! `serde_json` keeps the last of two equal keys. Another reader may keep the first one, and then two
//! programs see two different pods in the same bytes. So a second equal key is an error here.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::text::one_line;

/// Parses one JSON value (RFC 8259) that fills all of `bytes`.
///
/// # Errors
///
/// Bytes that are not UTF-8, not JSON, nested more than 127 levels deep, or have a key twice in one
/// object.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
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

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(number.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = one_line(&key, 64);
                return Err(Error::custom(format_args!("key {key:?} is there twice")));
            }
            map.insert(key, entries.next_value_seed(Self)?);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parse;

    #[track_caller]
    fn refuse(bytes: &[u8], expect: &str) {
        assert_eq!(parse(bytes).unwrap_err().to_string(), expect);
    }

    #[test]
    fn values_are_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,1.5,18446744073709551615,true,null,"ä\u0000"],"b":{"a":{}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(b" 1 ").unwrap(), json!(1));
    }

    #[test]
    fn a_second_equal_key_is_refused() {
        refuse(br#"{"a":1,"a":1}"#, r#"key "a" is there twice at line 1 column 10"#);
        refuse(br#"{"a":1,"\u0061":1}"#, r#"key "a" is there twice at line 1 column 15"#);
        refuse(br#"[{"b":{"c":0,"c":0}}]"#, r#"key "c" is there twice at line 1 column 16"#);
        assert!(parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
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
        assert!(parse(nested(127).as_bytes()).is_ok());
        refuse(nested(128).as_bytes(), "recursion limit exceeded at line 1 column 128");
        refuse(&b"[".repeat(1_000_000), "recursion limit exceeded at line 1 column 128");
    }
}
