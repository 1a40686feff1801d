//! Names of Kubernetes objects (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).

/// Reads the name of a namespace or a Service (RFC 1123, section 2.1).
///
/// # Errors
///
/// What such a name has to be.
pub fn label(text: &str) -> Result<String, String> {
    match text.len() <= 63 && is_label(text) {
        true => Ok(text.to_owned()),
        false => Err("not 1 to 63 lower case letters, digits and `-` in between".to_owned()),
    }
}

/// Reads the name of any other object.
///
/// # Errors
///
/// What such a name has to be.
pub fn subdomain(text: &str) -> Result<String, String> {
    match text.len() <= 253 && text.split('.').all(is_label) {
        true => Ok(text.to_owned()),
        false => {
            Err("not 1 to 253 lower case letters, digits, and `-` and `.` in between".to_owned())
        }
    }
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.chars().all(|c| alphanumeric(c) || c == '-')
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
}
