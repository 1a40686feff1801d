//! Any bytes as a ruleset.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ruleset::ast::{Cidr, Family, Match, PortRange, Protocol, Rule, Ruleset};
use ruleset::{Compiled, Diagnostic, Kind, Level, MAX_TEXT, Tables, compile, parse, quotes};

use crate::naive::{Seen, first_match};

/// Packets that each accepted ruleset is asked about.
const PACKETS: usize = 128;

/// Compiles `data`. What is accepted means the same when it is written again and decides as asking
/// rule after rule does; what is not accepted is refused in plain text that shows the place.
///
/// # Panics
///
/// If anything of that does not hold.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match compile(&text) {
        Ok(compiled) => {
            for warning in &compiled.warnings {
                assert_eq!(warning.level(), Level::Warning);
                rendered(&text, warning);
            }
            written_again(&compiled);
            decisions(&compiled.ruleset, &compiled.tables);
            quoted(&compiled.ruleset);
        }
        Err(error) => {
            assert_eq!(error.level(), Level::Error);
            rendered(&text, &error);
        }
    }
}

fn written_again(compiled: &Compiled) {
    let canonical = compiled.ruleset.to_string();
    // Blanks that the author left out are written.
    if canonical.len() > MAX_TEXT {
        return;
    }
    let again = compile(&canonical).unwrap_or_else(|error| panic!("{canonical}\n{error}"));
    assert_eq!(again.ruleset, compiled.ruleset);
    assert_eq!(again.tables, compiled.tables);
    assert_eq!(again.ruleset.to_string(), canonical);
    let kinds = |of: &Compiled| of.warnings.iter().map(|w| w.kind.clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&again), kinds(compiled));
    let never = |kind: &Kind| matches!(kind, Kind::Shadowed | Kind::NeverMatches);
    for warning in again.warnings.iter().filter(|warning| never(&warning.kind)) {
        let rule = &compiled.ruleset.rules[warning.line - 1];
        for number in 0..PACKETS {
            let seen = packet(rule, number);
            let first = first_match(&compiled.ruleset, &seen);
            assert_ne!(first, Some(warning.line - 1), "{warning}\n{seen:?}");
        }
    }
}

/// Rules for quotes can be read as well as any others, and are looked up as well.
fn quoted(ruleset: &Ruleset) {
    assert!(quotes(ruleset, None).is_none_or(|all| all.ruleset.rules.len() <= ruleset.rules.len()));
    let Some(quotes) = quotes(ruleset, Some(ruleset)) else { return };
    let text = quotes.ruleset.to_string();
    if text.len() <= MAX_TEXT {
        assert_eq!(parse(&text).unwrap_or_else(|e| panic!("{text}\n{e}")).ruleset, quotes.ruleset);
    }
    decisions(&quotes.ruleset, &quotes.tables);
}

/// Packets are aimed at one rule after the other, so that late rules have their turn too.
fn decisions(ruleset: &Ruleset, tables: &Tables) {
    let rules = &ruleset.rules;
    for number in 0..PACKETS {
        let seen = packet(&rules[number % rules.len()], number);
        assert_eq!(seen.look_up(tables), first_match(ruleset, &seen), "{seen:?} in\n{ruleset}",);
    }
}

/// Packet `number` of those at the borders of what `rule` matches.
fn packet(rule: &Rule, number: usize) -> Seen {
    // Each choice takes other digits of the number, scattered.
    let mut digits = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut draw = |of: usize| {
        digits = digits.rotate_left(23).wrapping_mul(0xD134_2543_DE82_EF95) ^ digits >> 29;
        (digits >> 32) as usize % of
    };
    let Rule { matches, .. } = rule;
    let family = match (draw(8), rule.family()) {
        (0 | 1, Some(Family::Ip)) | (0..4, None) => Family::Ip6,
        (0 | 1, Some(Family::Ip6)) | (_, None) => Family::Ip,
        (_, Some(family)) => family,
    };
    let mut near = |borders: Vec<(u128, u128)>| {
        let (first, last) = match borders.len() {
            0 => (0, u128::MAX),
            len => borders[draw(len)],
        };
        // The next IPv4 address is 2^96 further on.
        let next = [1, 1 << 96][draw(2)];
        [first, last, first.wrapping_sub(next), last.wrapping_add(next)][draw(4)]
    };
    let cidrs = |value: &Option<Match<Cidr>>| match value {
        None => Vec::new(),
        Some(value) => value.values.iter().map(|cidr| cidr.places()).collect(),
    };
    let ports = |value: &Option<Match<PortRange>>| match value {
        None => Vec::new(),
        Some(value) => value
            .values
            .iter()
            .map(|range| (range.first.get().into(), range.last.get().into()))
            .collect(),
    };
    let address = |place: u128| match family {
        Family::Ip => IpAddr::from(Ipv4Addr::from_bits((place >> 96) as u32)),
        Family::Ip6 => IpAddr::from(Ipv6Addr::from_bits(place)),
    };
    let (saddr, daddr) = (near(cidrs(&matches.saddr)), near(cidrs(&matches.daddr)));
    // A port beyond the last is none at all, or 0.
    let (sport, dport) = (near(ports(&matches.sport)) as u16, near(ports(&matches.dport)) as u16);
    let protocol = match (draw(8), matches.protocol) {
        (0, Protocol::Tcp) => Protocol::Udp,
        (0, Protocol::Udp) => Protocol::Tcp,
        (_, protocol) => protocol,
    };
    Seen {
        saddr: address(saddr),
        daddr: address(daddr),
        protocol,
        ports: (draw(16) != 0).then_some((sport, dport)),
    }
}

/// Checks that `diagnostic` is plain text, and points at the character of `text` that it names.
fn rendered(text: &str, diagnostic: &Diagnostic) {
    let shown = diagnostic.to_string();
    assert!(shown.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{shown:?}");
    assert!(!diagnostic.summary().contains('\n'), "{:?}", diagnostic.summary());

    let Some(line) = text.split('\n').nth(diagnostic.line - 1) else {
        panic!("there is no such line: {shown}");
    };
    let at = line.chars().nth(diagnostic.column - 1);
    assert!(at.is_some() || line.chars().count() == diagnostic.column - 1, "{shown}");

    let lines: Vec<_> = shown.lines().collect();
    let (head, place) =
        (lines[0], format!("  at line {}, column {}", diagnostic.line, diagnostic.column));
    let level = if diagnostic.level() == Level::Error { "error: " } else { "warning: " };
    assert!(head.starts_with(level) && head.len() < 160, "{shown}");
    assert_eq!(lines[1], place);
    assert!(lines[lines.len() - 1].starts_with("  help: "), "{shown}");
    match &lines[2..lines.len() - 1] {
        [] => {}
        [excerpt, carets] => {
            let excerpt = excerpt.strip_prefix("  | ").expect("an excerpt");
            let carets = carets.strip_prefix("  | ").expect("carets");
            let indent = carets.len() - carets.trim_start().len();
            let width = carets.len() - indent;
            assert!(width > 0 && carets[indent..].bytes().all(|b| b == b'^'), "{shown}");
            assert!(excerpt.len() <= 126, "{shown}");
            // `#` and `;` end what is shown.
            match at.filter(|c| c.is_ascii_graphic() && !matches!(c, '#' | ';')) {
                // Behind the last word there is room for one caret.
                None => assert!(indent + width <= excerpt.len().max(indent + 1), "{shown}"),
                Some(c) => {
                    assert!(indent + width <= excerpt.len(), "{shown}");
                    let pointed = excerpt[indent..].chars().next();
                    assert!(pointed == Some(c), "{shown}");
                }
            }
        }
        _ => panic!("{shown}"),
    }
}
