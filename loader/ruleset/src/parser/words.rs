//! The words of the language, and what somebody meant who wrote another one.

use crate::diagnostic::Kind;
use crate::lexer::Token;

const MATCHES: [&str; 8] = ["ip", "ip6", "saddr", "daddr", "tcp", "udp", "sport", "dport"];
pub(super) const ACTIONS: [&str; 5] = ["accept", "drop", "funnel", "unfunnel", "dnat"];
/// What only stands behind `funnel`.
const CLAUSES: [&str; 2] = ["flags", "inner"];

pub(super) fn is_keyword(word: &str) -> bool {
    word == "actions"
        || MATCHES.contains(&word)
        || ACTIONS.contains(&word)
        || CLAUSES.contains(&word)
}

/// What somebody may have meant who wrote `word` where a match should stand.
pub(super) fn not_a_match(word: &str) -> Kind {
    if let Some(action) = ACTIONS.iter().find(|&&name| name == word) {
        return Kind::ActionsMissingBefore(action);
    }
    // A dash: somebody put blanks into a range.
    if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Kind::ValueWithoutMatch(word.to_owned());
    }
    // `tcp port 80` is in the original's own documentation; most who write it mean `dport`.
    let meant = match word {
        "port" => Some("dport"),
        "addr" => Some("daddr"),
        "ip4" | "ipv4" => Some("ip"),
        "ipv6" => Some("ip6"),
        // They look like `tcp`, and are meant as they are written.
        "icmp" | "sctp" => None,
        _ => similar(word, MATCHES.iter().chain(&["actions"])),
    };
    Kind::UnknownMatch(word.to_owned(), meant)
}

pub(super) fn not_an_action(word: &str) -> Kind {
    if word == "actions" {
        return Kind::ActionsTwice;
    }
    if let Some(name) = MATCHES.iter().find(|&&name| name == word) {
        return Kind::MatchAfterActions(name);
    }
    Kind::UnknownAction(word.to_owned(), similar(word, ACTIONS.iter()))
}

/// The keyword that `word` comes close to: at most two letters away, one if the keyword is short.
pub(super) fn similar<'a>(
    word: &str,
    keywords: impl Iterator<Item = &'a &'static str>,
) -> Option<&'static str> {
    let lower = word.get(..16).unwrap_or(word).to_ascii_lowercase();
    keywords
        .map(|&keyword| (strsim::damerau_levenshtein(&lower, keyword), keyword))
        .filter(|&(distance, keyword)| {
            distance <= if keyword.len() > 3 { 2 } else { 1 } && distance < lower.len()
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, keyword)| keyword)
}

pub(super) fn symbol(token: Token<'_>) -> &'static str {
    match token {
        Token::NotEqual => "!=",
        Token::Open => "{",
        Token::Close => "}",
        Token::Comma => ",",
        Token::End => ";",
        Token::Word(_) => "word",
    }
}
