//! Text of a stranger, made fit for a log line or a message.

/// The text in one line, control characters escaped, shortened with `…` to at most `max` characters.
pub fn one_line(text: &str, max: usize) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    // One character more than wanted is enough to know that there is more.
    let line: Vec<char> = text
        .chars()
        .take(max + 1)
        .flat_map(|c| escaped(c).chars().collect::<Vec<_>>())
        .take(max + 1)
        .collect();
    if line.len() <= max {
        return line.into_iter().collect();
    }
    line.into_iter().take(max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn short_text_stays() {
        assert_eq!(one_line("", 4), "");
        assert_eq!(one_line("größ", 4), "größ");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(one_line("größe", 4), "grö…");
        assert_eq!(one_line(&"€".repeat(1_000), 256).chars().count(), 256);
    }

    #[test]
    fn nothing_breaks_the_line() {
        assert_eq!(one_line("a\nb\0\u{1b}[1m", 64), "a\\nb\\u{0}\\u{1b}[1m");
        assert_eq!(one_line("a\n\n\n\n", 4), "a\\n…");
    }
}
