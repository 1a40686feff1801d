//! Text of a stranger, made fit for a log line or a message.

/// The text in one line, control and format characters escaped, shortened with `…` to at most `max` characters.
pub fn one_line(text: &str, max: usize) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() || misleads(c) => c.escape_default().to_string(),
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

/// Whether a character ends the line for some readers, or is unseen and turns the direction of
/// writing, joins or hides what is around it: Unicode's categories Zl, Zp and Cf.
fn misleads(c: char) -> bool {
    matches!(
        c,
        '\u{2028}'
            | '\u{2029}'
            | '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
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
        assert_eq!(one_line("a\u{2028}b\u{2029}\u{85}", 64), "a\\u{2028}b\\u{2029}\\u{85}");
    }

    #[test]
    fn nothing_is_unseen_or_turned_around() {
        assert_eq!(one_line("\u{202e}drop\u{200b}\u{feff}", 64), "\\u{202e}drop\\u{200b}\\u{feff}");
        assert_eq!(one_line("\u{ad}\u{2066}\u{e0041}", 64), "\\u{ad}\\u{2066}\\u{e0041}");
        // Letters and signs of all writings stay.
        assert_eq!(one_line("дом 家 é 🚀", 64), "дом 家 é 🚀");
    }
}
