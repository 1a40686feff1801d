//! Interface names, as `sfunnel.io/interfaces` and `IFACES` list them.

use std::fmt;

/// A name that no interface can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceError(String);

impl std::error::Error for InterfaceError {}

impl fmt::Display for InterfaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no interface name: 1 to 15 characters without `/` and `:`, separated by blanks",
            self.0.chars().take(64).collect::<String>()
        )
    }
}

/// Splits a list of interface names at white space. An empty list means every interface that is up.
///
/// The rules for a name are the kernel's (`dev_valid_name`): fewer than `IFNAMSIZ` (16) bytes, not
/// `.` or `..`, no `/`, no `:`.
///
/// # Errors
///
/// The first name that the kernel would refuse.
pub fn parse_interfaces(list: &str) -> Result<Vec<String>, InterfaceError> {
    list.split_ascii_whitespace()
        .map(|name| {
            let valid = name.len() < 16
                && name != "."
                && name != ".."
                && !name.contains(|c: char| matches!(c, '/' | ':') || c.is_control());
            if valid { Ok(name.to_owned()) } else { Err(InterfaceError(name.to_owned())) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse_interfaces;

    #[test]
    fn names_are_checked_as_the_kernel_does() {
        assert_eq!(parse_interfaces(" eth0\tnet1 ").unwrap(), ["eth0", "net1"]);
        assert_eq!(parse_interfaces("").unwrap(), [""; 0]);
        for bad in ["eth0 ..", "a/b", "a:b", "sixteen-letters-", "a\0b"] {
            assert!(parse_interfaces(bad).is_err(), "{bad:?}");
        }
    }
}
