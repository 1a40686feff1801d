//! Interface names, as `sfunnel.io/interfaces` and `IFACES` list them.

use std::fmt;

use crate::MAX_ENV_TEXT;

/// No list of interface names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceError {
    /// A name that no interface can have.
    Name(String),
    /// So many bytes, which no environment variable can hold.
    TooLong(usize),
}

impl std::error::Error for InterfaceError {}

impl fmt::Display for InterfaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "{:?} is no interface name: 1 to 15 characters without `/` and `:`, separated by blanks",
                name.chars().take(64).collect::<String>()
            ),
            Self::TooLong(len) => write!(
                f,
                "the list has {len} bytes; at most {MAX_ENV_TEXT} can be handed to the loader in an \
                 environment variable"
            ),
        }
    }
}

/// Splits a list of interface names at white space. An empty list means every interface that is up.
///
/// The rules for a name are the kernel's (`dev_valid_name`): fewer than `IFNAMSIZ` (16) bytes, not
/// `.` or `..`, no `/`, no `:`, and none that its `isspace` takes for a blank, as in Latin-1.
///
/// # Errors
///
/// The first name that the kernel would refuse, or that there are too many.
pub fn parse_interfaces(list: &str) -> Result<Vec<String>, InterfaceError> {
    if list.len() > MAX_ENV_TEXT {
        return Err(InterfaceError::TooLong(list.len()));
    }
    list.split_ascii_whitespace()
        .map(|name| {
            let valid = name.len() < 16
                && name != "."
                && name != ".."
                && !name.bytes().any(|byte| matches!(byte, b'/' | b':' | 0xa0))
                && !name.contains(char::is_control);
            if valid { Ok(name.to_owned()) } else { Err(InterfaceError::Name(name.to_owned())) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{InterfaceError, parse_interfaces};
    use crate::MAX_ENV_TEXT;

    #[test]
    fn names_are_checked_as_the_kernel_does() {
        assert_eq!(parse_interfaces(" eth0\tnet1 ").unwrap(), ["eth0", "net1"]);
        assert_eq!(parse_interfaces("").unwrap(), [""; 0]);
        for bad in ["eth0 ..", "a/b", "a:b", "sixteen-letters-", "a\0b", "a\u{a0}b", "à"] {
            assert!(parse_interfaces(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_interfaces("größe").unwrap(), ["größe"]);
    }

    #[test]
    fn a_list_fits_in_a_variable() {
        let longest = "eth0 ".repeat(MAX_ENV_TEXT / 5) + &" ".repeat(MAX_ENV_TEXT % 5);
        assert_eq!(parse_interfaces(&longest).unwrap().len(), MAX_ENV_TEXT / 5);
        let error = parse_interfaces(&(longest + " ")).unwrap_err();
        assert_eq!(error, InterfaceError::TooLong(MAX_ENV_TEXT + 1));
        assert!(error.to_string().starts_with("the list has "), "{error}");
    }
}
