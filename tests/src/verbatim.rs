//! JSON as it is written: what isn't changed keeps every byte, and its place among its neighbours.
//!
//! `serde_json::Value` knows neither how a number or a string was written, nor a key that is there
//! twice, and whether it knows the order of keys depends on who else is in the build. Two of its values
//! may be equal although not a byte of their texts is.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// A JSON value, less the blanks between its tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`, `true`, `false`, a number or a string, as it is written.
    Leaf(Cow<'static, str>),
    /// A list.
    List(Vec<Json>),
    /// An object: its keys as they are written, quotes included, in their order.
    Object(Vec<(Cow<'static, str>, Json)>),
}

impl Json {
    /// `null`.
    pub const NULL: Self = Self::Leaf(Cow::Borrowed("null"));

    /// A value that is written like this and is neither list nor object.
    pub const fn leaf(written: &'static str) -> Self {
        Self::Leaf(Cow::Borrowed(written))
    }

    /// A string.
    pub fn string(text: &str) -> Self {
        Self::Leaf(quoted(text).into())
    }

    /// Reads what `serde_json` accepts.
    ///
    /// # Panics
    ///
    /// If `text` is no JSON. Not all of what is no JSON is found out.
    pub fn read(text: &str) -> Self {
        let mut reader = Reader { text, at: 0 };
        let json = reader.value();
        reader.blanks();
        assert_eq!(reader.at, text.len(), "more than one value in {text}");
        json
    }

    /// The same for `serde_json`.
    ///
    /// # Panics
    ///
    /// If it is none, as objects with a key twice.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.to_string()).expect("JSON")
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter().find(|(written, _)| unquoted(written) == key).map(|(_, value)| value)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Object(entries) = self else { return None };
        entries.iter_mut().find(|(written, _)| unquoted(written) == key).map(|(_, value)| value)
    }

    /// What keys, one in the other, lead to.
    pub fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |json, key| json.get(key))
    }

    /// What keys, one in the other, lead to, to be changed.
    pub fn at_mut(&mut self, keys: &[&str]) -> Option<&mut Self> {
        keys.iter().try_fold(self, |json, key| json.get_mut(key))
    }

    /// The text of a string.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Leaf(written) if written.starts_with('"') => Some(unquoted(written)),
            _ => None,
        }
    }

    /// Gives `key` a value: in its place if it has one already, else behind all others.
    ///
    /// # Panics
    ///
    /// If this is no object.
    pub fn set(&mut self, key: &str, value: Self) {
        if let Some(before) = self.get_mut(key) {
            *before = value;
            return;
        }
        let Self::Object(entries) = self else { panic!("no object: {self}") };
        entries.push((quoted(key).into(), value));
    }

    /// Takes a key away.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        let Self::Object(entries) = self else { return None };
        let at = entries.iter().position(|(written, _)| unquoted(written) == key)?;
        Some(entries.remove(at).1)
    }

    /// Whether some object in it has a key twice.
    pub fn has_equal_keys(&self) -> bool {
        match self {
            Self::Leaf(_) => false,
            Self::List(items) => items.iter().any(Self::has_equal_keys),
            Self::Object(entries) => {
                let keys: BTreeSet<_> = entries.iter().map(|(key, _)| unquoted(key)).collect();
                keys.len() < entries.len()
                    || entries.iter().any(|(_, value)| value.has_equal_keys())
            }
        }
    }

    /// Applies a JSON Patch (RFC 6902) of additions.
    ///
    /// # Panics
    ///
    /// If it has anything else in it, or an addition that has no place to go.
    pub fn patch(&mut self, patch: &Value) {
        for operation in patch.as_array().expect("a patch is a list") {
            assert_eq!(operation["op"], "add", "{operation}");
            let path = operation["path"].as_str().expect("a path is a string");
            self.add(path, operation["value"].to_string());
        }
    }

    fn add(&mut self, path: &str, value: String) {
        let (parent, last) = path.rsplit_once('/').expect("a path that is not the whole");
        let step = |step: &str| step.replace("~1", "/").replace("~0", "~");
        let parent = parent.split('/').skip(1).try_fold(&mut *self, |json, key| match json {
            Self::List(items) => items.get_mut(key.parse::<usize>().ok()?),
            _ => json.get_mut(&step(key)),
        });
        let value = Self::read(&value);
        match parent {
            Some(Self::List(items)) => {
                let at = if last == "-" { items.len() } else { last.parse().expect("an index") };
                items.insert(at, value);
            }
            Some(object @ Self::Object(_)) => object.set(&step(last), value),
            other => panic!("nothing can be added at {path}, to {other:?}"),
        }
    }
}

impl FromIterator<Json> for Json {
    fn from_iter<I: IntoIterator<Item = Json>>(items: I) -> Self {
        Self::List(items.into_iter().collect())
    }
}

impl<K: AsRef<str>> FromIterator<(K, Json)> for Json {
    fn from_iter<I: IntoIterator<Item = (K, Json)>>(entries: I) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (quoted(key.as_ref()).into(), value));
        Self::Object(entries.collect())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(written) => f.write_str(written),
            Self::List(items) => {
                f.write_str("[")?;
                for (number, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if number == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(entries) => {
                f.write_str("{")?;
                for (number, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if number == 0 { "" } else { "," })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// The text.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A string as JSON writes it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string can be written")
}

/// What a string means that is written like this.
fn unquoted(written: &str) -> Cow<'_, str> {
    match written.contains('\\') {
        false => Cow::Borrowed(&written[1..written.len() - 1]),
        true => serde_json::from_str(written).expect("a JSON string"),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Json {
        self.blanks();
        match self.peek() {
            Some(b'{') => Json::Object(self.items(b'}', |reader| {
                let key = reader.token().into();
                reader.blanks();
                assert_eq!(reader.peek(), Some(b':'));
                reader.at += 1;
                (key, reader.value())
            })),
            Some(b'[') => Json::List(self.items(b']', Self::value)),
            _ => Json::Leaf(self.token().into()),
        }
    }

    /// What stands between brackets.
    fn items<T>(&mut self, end: u8, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        loop {
            // Over the bracket or the comma.
            self.at += 1;
            self.blanks();
            if self.peek() != Some(end) {
                items.push(item(self));
                self.blanks();
            }
            match self.peek() {
                Some(b',') => {}
                Some(other) if other == end => {
                    self.at += 1;
                    return items;
                }
                other => panic!("{other:?} at byte {} of {}", self.at, self.text),
            }
        }
    }

    /// A string, a number or a word.
    fn token(&mut self) -> String {
        let rest = &self.text.as_bytes()[self.at..];
        let len = if rest.first() == Some(&b'"') {
            let mut escaped = false;
            let end = rest[1..].iter().position(|&byte| {
                let end = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                end
            });
            end.expect("a string has an end") + 2
        } else {
            rest.iter().position(|byte| b",:]} \t\r\n".contains(byte)).unwrap_or(rest.len())
        };
        assert!(len > 0, "nothing at byte {} of {}", self.at, self.text);
        let token = &self.text[self.at..self.at + len];
        self.at += len;
        token.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Json;

    const TEXT: &str = r#"{"b":[1.50,-0,1e3,"\u0061\/\"\\",{}],"\u0061":null,"":{"c":[[],true]}}"#;

    #[test]
    fn every_byte_is_kept() {
        assert_eq!(Json::read(TEXT).to_string(), TEXT);
        let blanks = TEXT.replace(',', " ,\n").replace(':', "\t: ");
        assert_eq!(Json::read(&format!(" {blanks} ")).to_string(), TEXT);
        assert_eq!(Json::read("[ ]").to_string(), "[]");
    }

    #[test]
    fn keys_are_known_however_they_are_written() {
        let json = Json::read(TEXT);
        assert_eq!(json.get("a"), Some(&Json::NULL));
        assert_eq!(json.at(&["", "c"]).unwrap().to_string(), "[[],true]");
        assert!(!json.has_equal_keys());
        assert!(Json::read(r#"[{"a":1,"\u0061":2}]"#).has_equal_keys());
    }

    #[test]
    fn what_is_added_leaves_the_rest_where_it_is() {
        let mut json = Json::read(TEXT);
        json.patch(&json!([
            { "op": "add", "path": "/b/0", "value": "first" },
            { "op": "add", "path": "/b/-", "value": { "x": 1 } },
            { "op": "add", "path": "/a", "value": [] },
            { "op": "add", "path": "//d~1e~0", "value": 0 },
        ]));
        assert_eq!(
            json.to_string(),
            r#"{"b":["first",1.50,-0,1e3,"\u0061\/\"\\",{},{"x":1}],"\u0061":[],"":{"c":[[],true],"d/e~":0}}"#
        );
    }

    #[test]
    #[should_panic(expected = "nothing can be added at /x/y")]
    fn what_has_no_place_is_not_added() {
        Json::read("{}").patch(&json!([{ "op": "add", "path": "/x/y", "value": 0 }]));
    }
}
