//! The words of the language, and what somebody meant who wrote another one.

use crate::ast::Verb;
use crate::diagnostic::Kind;
use crate::lexer::Token;

const MATCHES: [&str; 8] = ["ip", "ip6", "saddr", "daddr", "tcp", "udp", "sport", "dport"];
pub(super) const ACTIONS: [&str; 5] = ["accept", "drop", "funnel", "unfunnel", "dnat"];
/// What only stands behind `funnel`.
const CLAUSES: [&str; 2] = ["flags", "inner"];
const PORTS: [&str; 2] = ["dport", "sport"];

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

/// What somebody may have meant who wrote `word` where an action should stand.
pub(super) fn not_an_action(word: &str) -> Kind {
    out_of_place(word)
        .unwrap_or_else(|| Kind::UnknownAction(word.to_owned(), similar(word, ACTIONS.iter())))
}

/// What somebody may have meant who wrote `word` behind `verb` and its protocol, where `port` is the
/// name of a port that may follow.
pub(super) fn not_a_clause(word: &str, verb: Verb, port: Option<&'static str>) -> Kind {
    if let Some(kind) = out_of_place(word) {
        return kind;
    }
    let clauses = if verb == Verb::Funnel { &CLAUSES[..] } else { &[] };
    let meant = match word {
        "port" => port,
        _ if word.starts_with(|c: char| c.is_ascii_digit()) => port,
        _ => similar(word, PORTS.iter().chain(clauses).chain(&ACTIONS)),
    };
    Kind::UnknownClause(verb, word.to_owned(), meant)
}

/// What is wrong with a word behind `actions` that belongs before it.
fn out_of_place(word: &str) -> Option<Kind> {
    if word == "actions" {
        return Some(Kind::ActionsTwice);
    }
    MATCHES.iter().find(|&&name| name == word).map(|name| Kind::MatchAfterActions(name))
}

/// The word, if it belongs to `funnel` or `unfunnel`.
pub(super) fn clause(word: &str) -> Option<&'static str> {
    PORTS.iter().chain(&CLAUSES).copied().find(|&name| name == word)
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
