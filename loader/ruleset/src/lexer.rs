//! Text to tokens. Every token knows its place.

use std::ops::Range;

use crate::diagnostic::Kind;

/// Bytes of the text that something was read from.
pub type Span = Range<usize>;

/// A piece of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A keyword, a port, an address.
    Word(&'a str),
    /// `!=`
    NotEqual,
    /// `{`
    Open,
    /// `}`
    Close,
    /// `,`
    Comma,
    /// The end of a rule: `;`, a line's end, the text's end.
    End,
}

/// Splits `text` into tokens. The last one is always [`Token::End`].
///
/// A comment reaches from `#` to the next `;` or line's end, as in the original.
///
/// # Errors
///
/// A character that no rule has, and its place.
pub fn lex(text: &str) -> Result<Vec<(Token<'_>, Span)>, (Kind, Span)> {
    let mut tokens = Vec::new();
    let mut comment = false;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let mut span = at..at + c.len_utf8();
        let token = match c {
            '\n' | ';' => {
                comment = false;
                Token::End
            }
            '\t' => continue,
            // CRLF. Alone it would let a terminal write over what a rule says.
            '\r' if chars.peek().is_none_or(|&(_, next)| next == '\n') => continue,
            c if is_control(c) => return Err((Kind::ControlCharacter(c), span)),
            _ if comment => continue,
            ' ' => continue,
            '#' => {
                comment = true;
                continue;
            }
            '{' => Token::Open,
            '}' => Token::Close,
            ',' => Token::Comma,
            '!' if chars.next_if(|&(_, c)| c == '=').is_some() => {
                span.end += 1;
                Token::NotEqual
            }
            c if is_word(c) => {
                while chars.next_if(|&(_, c)| is_word(c)).is_some() {
                    span.end += 1;
                }
                Token::Word(&text[span.clone()])
            }
            c => return Err((Kind::UnexpectedCharacter(c), span)),
        };
        tokens.push((token, span));
    }
    tokens.push((Token::End, text.len()..text.len()));
    Ok(tokens)
}

/// Whether `c` could make a text look unlike what it says: control characters, Unicode's line ends,
/// and those that turn the direction of writing (CVE-2021-42574).
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether `c` is part of a word. All of them are one byte long.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | ':' | '-' | '_' | '+')
}
