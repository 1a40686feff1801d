//! The rule language against simpler truths: printing, asking rule after rule, and trying out every
//! packet of a small world.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use abi::{MAX_NODES, MAX_ROWS, MAX_RULES, ROW, Roots, Row, is_row};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use ruleset::ast::{Matches, Protocol, Ruleset};
use ruleset::{Compiled, Kind, MAX_TEXT, Tables, compile, parse};
use tests::naive::{Seen, first_match};
use tests::random;

/// Numbers of the rules that can never match, as the warnings say. `compiled` has one rule a line.
fn warned(compiled: &Compiled) -> BTreeSet<usize> {
    let never = |kind: &Kind| matches!(kind, Kind::Shadowed | Kind::NeverMatches);
    let never = compiled.warnings.iter().filter(|warning| never(&warning.kind));
    never.map(|warning| warning.line - 1).collect()
}

#[test]
fn what_is_printed_is_parsed_to_the_same() {
    let mut rng = random::rng(1);
    for number in 0..10_000 {
        let ruleset = random::ruleset(&mut rng, if number % 100 == 0 { 200 } else { 8 });
        let text = ruleset.to_string();
        let parsed = parse(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.ruleset, ruleset, "{text}");
        assert_eq!(parsed.ruleset.to_string(), text);
    }
}

/// How packets fared in a comparison.
#[derive(Debug, Default)]
struct Tally {
    packets: usize,
    matched: usize,
    /// By a rule behind the first 64, whose bit is not in the first word.
    late: usize,
}

impl Tally {
    /// Looks up `packets` random packets, and asks the rules one after the other.
    fn compare(&mut self, rng: &mut StdRng, compiled: &Compiled, packets: usize) {
        let (ruleset, warned) = (&compiled.ruleset, warned(compiled));
        for _ in 0..packets {
            let seen = random::seen(rng);
            let rule = first_match(ruleset, &seen);
            let found = seen.look_up(&compiled.tables);
            assert_eq!(found, rule, "{seen:?} in\n{ruleset}");
            self.packets += 1;
            if let Some(rule) = rule {
                self.matched += 1;
                self.late += usize::from(rule >= 64);
                assert!(!warned.contains(&rule), "rule {rule} wins {seen:?} in\n{ruleset}");
            }
        }
    }
}

#[test]
fn tables_decide_as_asking_rule_after_rule_does() {
    let mut rng = random::rng(2);
    let mut tally = Tally::default();
    for number in 0..1000 {
        let most = if number % 20 < 2 { 200 } else { [4, 8, 16, 32][number / 2 % 4] };
        // Rules that take nearly everything leave nothing to those behind them.
        let ruleset = match number % 2 {
            0 => random::ruleset(&mut rng, most),
            _ => narrow(&mut rng, most, 3),
        };
        tally.compare(&mut rng, &random::one_to_one(ruleset), 1000);
    }
    assert_eq!(tally.packets, 1_000_000);
    assert!((200_000..800_000).contains(&tally.matched), "{tally:?}");
    assert!(tally.late > 1000, "{tally:?}");
}

#[test]
fn tables_of_4096_rules_decide_as_asking_rule_after_rule_does() {
    let mut rng = random::rng(3);
    let mut tally = Tally::default();
    for _ in 0..3 {
        let ruleset = narrow(&mut rng, MAX_RULES, 2);
        tally.compare(&mut rng, &random::one_to_one(ruleset), 500);
    }
    assert!(tally.matched > 750 && tally.late > 150, "{tally:?}");
}

/// How many things `matches` asks for beside the protocol.
fn conditions(matches: &Matches) -> usize {
    let Matches { family: _, saddr, daddr, protocol: _, sport, dport } = matches;
    let addresses = [saddr, daddr].iter().filter(|value| value.is_some()).count();
    addresses + [sport, dport].iter().filter(|value| value.is_some()).count()
}

/// `count` rules with `least` conditions, and short enough for the largest number to fit.
fn narrow(rng: &mut StdRng, count: usize, least: usize) -> Ruleset {
    let mut rules = Vec::new();
    while rules.len() < count {
        let more = random::ruleset(rng, 100).rules.into_iter().filter(|rule| {
            let positive = [&rule.matches.sport, &rule.matches.dport]
                .iter()
                .all(|ports| ports.as_ref().is_none_or(|ports| !ports.negated));
            positive && conditions(&rule.matches) >= least && rule.to_string().len() < 64
        });
        rules.extend(more);
    }
    rules.truncate(count);
    Ruleset { rules }
}

/// Addresses and ports of a world so small that every packet in it can be tried. In either family an
/// address outside of all values stands for the others, and so does a port; port 0 is in no range
/// that a rule can name, and in what `!=` leaves.
const ADDRESSES: [[&str; 5]; 2] = [
    ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1"],
    ["2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8::3", "::1"],
];
const PORTS: [u16; 5] = [0, 1, 2, 3, 4];

fn small_world() -> Vec<Seen> {
    let mut world = Vec::new();
    let mut ports = vec![None];
    for sport in PORTS {
        ports.extend(PORTS.map(|dport| Some((sport, dport))));
    }
    for addresses in ADDRESSES {
        let addresses: [IpAddr; 5] = addresses.map(|address| address.parse().unwrap());
        for (saddr, daddr) in addresses.iter().flat_map(|a| addresses.map(|b| (*a, b))) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                world.extend(ports.iter().map(|&ports| Seen { saddr, daddr, protocol, ports }));
            }
        }
    }
    world
}

/// Rules whose values are those of the small world.
fn small_rules(rng: &mut StdRng, most: usize) -> String {
    const CIDRS: [&str; 7] =
        ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.0/31", "10.0.0.2/31", "0.0.0.0/0"];
    const CIDRS6: [&str; 7] = [
        "2001:db8::",
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8::3",
        "2001:db8::/127",
        "2001:db8::2/127",
        "::/0",
    ];
    const RANGES: [&str; 8] = ["1", "2", "3", "1-2", "2-3", "3-65535", "1-3", "1-65535"];
    let mut text = String::new();
    for _ in 0..rng.random_range(1..=most) {
        let (family, cidrs) =
            [("", &[][..]), ("ip", &CIDRS), ("ip6", &CIDRS6)][rng.random_range(0..3)];
        text += family;
        for (name, values) in
            [("saddr", cidrs), ("daddr", cidrs), ("sport", &RANGES), ("dport", &RANGES)]
        {
            if !values.is_empty() && rng.random_bool(0.4) {
                let not = if rng.random_bool(0.3) { "!= " } else { "" };
                let count = rng.random_range(1..=3);
                let set: Vec<_> = (0..count).map(|_| *values.choose(rng).unwrap()).collect();
                write!(text, " {name} {not}{{ {} }}", set.join(", ")).unwrap();
            }
        }
        text += [" tcp", " udp"][rng.random_range(0..2)];
        // An address to set is of a family too.
        text += match (family, rng.random_range(0..10)) {
            ("" | "ip", 0) => " actions dnat 10.0.0.9\n",
            ("" | "ip6", 1) => " actions unfunnel tcp dnat 2001:db8::9\n",
            _ => " actions drop\n",
        };
    }
    text
}

/// A rule is warned of if and only if no packet is left to it.
#[test]
fn warnings_are_exact() {
    let mut rng = random::rng(4);
    let world = small_world();
    let (mut rules, mut shadowed, mut never) = (0, 0, 0);
    for _ in 0..1000 {
        let text = small_rules(&mut rng, 12);
        let compiled = compile(&text).unwrap_or_else(|error| panic!("{error}"));
        let mut winners = BTreeSet::new();
        for seen in &world {
            let rule = first_match(&compiled.ruleset, seen);
            assert_eq!(seen.look_up(&compiled.tables), rule);
            winners.extend(rule);
        }
        let losers: BTreeSet<_> =
            (0..compiled.ruleset.rules.len()).filter(|rule| !winners.contains(rule)).collect();
        assert_eq!(warned(&compiled), losers, "{text}");
        for warning in &compiled.warnings {
            let alone = Ruleset { rules: vec![compiled.ruleset.rules[warning.line - 1].clone()] };
            let matches = world.iter().any(|seen| first_match(&alone, seen).is_some());
            let kind = if matches { Kind::Shadowed } else { Kind::NeverMatches };
            assert_eq!(warning.kind, kind, "{text}{warning}");
            if matches { shadowed += 1 } else { never += 1 }
        }
        rules += compiled.ruleset.rules.len();
    }
    assert!(shadowed > rules / 20 && shadowed < rules / 2, "{shadowed} of {rules}");
    assert!(never > 20 && never < rules / 10, "{never} of {rules}");
}

/// Compiles `text`, checks what the kernel relies on, and prints how long it took.
fn measured(name: &str, text: &str) -> Result<Tables, Kind> {
    let start = Instant::now();
    let result = compile(text);
    let time = start.elapsed();
    let result = result.map(|compiled| compiled.tables).map_err(|error| error.kind);
    match &result {
        Err(kind) => eprintln!("{name}: {} bytes, {time:?}, {}", text.len(), kind.message()),
        Ok(tables) => {
            let Tables { nodes, rows, rules, .. } = tables;
            let (len, rules, nodes, rows) = (text.len(), rules.len(), nodes.len(), rows.len());
            eprintln!("{name}: {len} bytes, {time:?}, {rules} rules, {nodes} nodes, {rows} rows");
            well_formed(tables);
        }
    }
    result
}

/// Every path through a trie ends in a row, at its key's end or before, and is no longer than it
/// need be. A row's summary tells which words hold a bit. Nothing is there that no path leads to.
fn well_formed(tables: &Tables) {
    let Tables { roots: Roots { saddr, daddr, sport, dport }, nodes, rows, rules } = tables;
    assert!(rules.len() <= MAX_RULES && nodes.len() <= MAX_NODES && rows.len() <= MAX_ROWS);
    let addresses = [saddr, daddr].into_iter().flat_map(|&[ip, ip6]| [(ip, 4), (ip6, 16)]);
    let ports = sport.iter().chain(dport).map(|&root| (root, 2));
    let mut left: Vec<(u32, usize)> = addresses.chain(ports).collect();
    let (mut reached, mut ends) = (BTreeSet::new(), BTreeSet::new());
    while let Some((next, bytes)) = left.pop() {
        if is_row(next) {
            ends.insert(next & !ROW);
            continue;
        }
        assert!(bytes > 0, "a node behind the key's last byte");
        assert!(reached.insert(next), "two paths to node {next}");
        let node = &nodes[next as usize];
        assert!(
            !(is_row(node[0]) && node.iter().all(|&n| n == node[0])),
            "node {next} tells nothing"
        );
        left.extend(node.iter().map(|&next| (next, bytes - 1)));
    }
    assert_eq!(reached.len(), nodes.len());
    assert_eq!(ends.len(), rows.len());
    let beyond = rules.len();
    for Row { summary, words } in ends.iter().map(|&row| &rows[row as usize]) {
        let holds = (0u32..).zip(words).filter(|&(_, &word)| word != 0);
        assert_eq!(*summary, holds.fold(0, |all, (number, _)| all | abi::bit(number)));
        let bits = (0u32..).zip(words).filter(|&(_, &word)| word != 0).last();
        let last = bits.map_or(0, |(number, word)| number * 64 + 63 - word.trailing_zeros());
        assert!((last as usize) < beyond, "a bit for rule {last} of {beyond}");
    }
}

/// The rules of `rule(1)`, `rule(2)` and so on, at most `most` and as many as a text may hold.
fn many(most: usize, rule: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for number in 1..=most {
        let rule = rule(number);
        if text.len() + rule.len() >= MAX_TEXT {
            break;
        }
        text += &rule;
        text += "\n";
    }
    text
}

#[test]
fn tables_grow_with_the_values_and_not_with_their_product() {
    let text = many(MAX_RULES, |i| {
        let (high, low) = (i / 256, i % 256);
        format!("ip saddr 10.0.{high}.{low} daddr 10.1.{high}.{low} tcp dport {i} actions drop")
    });
    let rules = text.lines().count();
    assert!(rules > 3000);
    let tables = measured("a rule for each pair", &text).unwrap();
    assert_eq!(tables.rules.len(), rules);
    // A row for each rule alone, one for all and one for none: three axes tell the same rules apart.
    assert_eq!(tables.rows.len(), rules + 2);
    // A node for every 256 values on each of them, and what leads there.
    assert!(tables.nodes.len() <= 3 * (rules / 256 + 1) + 30, "{} nodes", tables.nodes.len());
}

#[test]
fn rulesets_of_the_largest_number_fit() {
    let ports = many(MAX_RULES, |port| format!("udp dport {port} actions drop"));
    let tables = measured("a rule for each port", &ports).unwrap();
    assert_eq!((tables.rules.len(), tables.rows.len()), (4096, 4096 + 2));
    assert!(tables.nodes.len() <= 4096 / 256 + 30, "{} nodes", tables.nodes.len());

    // No two ports are in the same rules, down to the middle and up again.
    let nested = many(MAX_RULES, |i| format!("tcp dport {i}-{} actions drop", 65_535 - i));
    let tables = measured("nested ranges", &nested).unwrap();
    assert_eq!((tables.rules.len(), tables.rows.len()), (4096, 4096 + 1));
    assert!(tables.nodes.len() <= 2 * 4096 / 256 + 30, "{} nodes", tables.nodes.len());

    let random = random::one_to_one(narrow(&mut random::rng(5), MAX_RULES, 2)).ruleset;
    let tables = measured("random rules", &random.to_string()).unwrap();
    assert!(tables.rules.len() > 3500, "{} rules", tables.rules.len());
}

/// Values, with commas between them.
fn list<T: ToString>(values: impl Iterator<Item = T>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn long_sets_fit() {
    let addresses = list((0..20_000).map(|i| Ipv4Addr::from_bits(i << 1)));
    for not in ["", "!="] {
        let text = format!("ip saddr {not} {{{addresses}}} tcp actions drop");
        let tables = measured("20,000 addresses", &text).unwrap();
        assert_eq!(tables.rows.len(), 2, "the rule, and none");
        assert!(tables.nodes.len() <= 40_000 / 256 + 30, "{} nodes", tables.nodes.len());
    }

    let scattered = list((0..8_000u32).map(|i| Ipv4Addr::from([(i / 256) as u8, i as u8, 1, 1])));
    let text = format!("ip saddr {{{scattered}}} tcp actions drop");
    let tables = measured("8,000 scattered addresses", &text).unwrap();
    assert_eq!(tables.rows.len(), 2);
    assert!(tables.nodes.len() > 2 * 8_000, "two nodes each: {}", tables.nodes.len());

    let odd = list((1..65_536).step_by(2));
    let tables = measured("every second port", &format!("tcp dport{{{odd}}}actions drop")).unwrap();
    assert_eq!(tables.rows.len(), 2);
    assert!(tables.nodes.len() <= 256 + 30, "{} nodes", tables.nodes.len());
}

/// Ports in which the rules that hold for them are counted up in Gray code, so that every port has
/// a row of its own and one rule begins or ends at each.
fn gray_code(ports: u32) -> String {
    let mut text = String::new();
    for rule in 0..u16::BITS {
        let holds = |port: u32| (port ^ port >> 1) >> rule & 1 == 1;
        let first = (1..=ports).filter(|&port| holds(port) && (port == 1 || !holds(port - 1)));
        let ranges = first.map(|first| {
            let last = (first..=ports).take_while(|&port| holds(port)).last().unwrap();
            format!("{first}-{last}")
        });
        let ranges = list(ranges);
        if !ranges.is_empty() {
            writeln!(text, "tcp dport {{{ranges}}} actions drop").unwrap();
        }
    }
    text
}

#[test]
fn what_does_not_fit_is_refused() {
    let scattered = list((0..9_000u32).map(|i| Ipv4Addr::from([(i / 256) as u8, i as u8, 1, 1])));
    let text = format!("ip saddr {{{scattered}}} tcp actions drop");
    let refused = measured("9,000 scattered addresses", &text);
    assert!(matches!(refused, Err(Kind::TooComplex(MAX_NODES, _))), "{refused:?}");

    // Sixteen nodes each, less those that addresses share.
    let scattered = |count: u128| {
        let address = |i: u128| Ipv6Addr::from_bits((i << 112) | (i << 40) | 1);
        format!("ip6 saddr {{{}}} tcp actions drop", list((1..=count).map(address)))
    };
    let tables = measured("1,000 scattered IPv6 addresses", &scattered(1000)).unwrap();
    assert!(tables.nodes.len() > 14 * 1000, "{} nodes", tables.nodes.len());
    let refused = measured("1,200 scattered IPv6 addresses", &scattered(1200));
    assert!(matches!(refused, Err(Kind::TooComplex(MAX_NODES, _))), "{refused:?}");

    let tables = measured("15,000 rows", &gray_code(15_000)).unwrap();
    assert_eq!(tables.rows.len(), 15_000 + 1, "one for each port, and one for no rule");
    let refused = measured("17,000 rows", &gray_code(17_000));
    assert!(matches!(refused, Err(Kind::TooComplex(MAX_ROWS, _))), "{refused:?}");
}

/// Texts made to cost much. How many steps the search for shadowed rules may take is bounded by
/// count, in crate `ruleset`; here each has to end.
#[test]
fn pathological_rulesets_end() {
    // Long sets, and many rules that each have to be held against them.
    let odd = list((1..50_000).step_by(2));
    let sets = format!("tcp dport{{{odd}}}actions drop;tcp dport != {{1,50000}} actions drop\n");
    let rules = many(2000, |i| format!("tcp sport {i} dport 1-50000 actions accept"));
    let tables = measured("long sets before many rules", &(sets + &rules)).unwrap();
    assert_eq!(tables.rules.len(), 2002);

    // Rules of which any two overlap, on every axis.
    let text = many(MAX_RULES, |i| {
        format!(
            "ip saddr 10.0.0.0/{} tcp sport 1-{} dport {i}-65535 actions drop",
            i % 33,
            60_000 - i
        )
    });
    let tables = measured("overlapping on three axes", &text).unwrap();
    assert!(tables.rules.len() > 3000);

    // As many warnings as rules, each with its place.
    let text = "udp actions drop;".repeat(MAX_RULES);
    let start = Instant::now();
    let repeated = compile(&text).unwrap();
    eprintln!("one rule {MAX_RULES} times: {:?}", start.elapsed());
    assert_eq!(repeated.warnings.len(), MAX_RULES - 1);
    assert_eq!(repeated.warnings[4094].column, 17 * 4095 + 1);

    // Likewise behind as many line ends as fit: each place can't be counted from the text's begin.
    let rules = "udp actions drop\n".repeat(MAX_RULES);
    let before = MAX_TEXT - rules.len();
    let start = Instant::now();
    let repeated = compile(&("\n".repeat(before) + &rules)).unwrap();
    eprintln!("the same behind {before} line ends: {:?}", start.elapsed());
    let lines: Vec<_> = repeated.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, (before + 2..=before + MAX_RULES).collect::<Vec<_>>());

    // Of rules in place any two meet, and what earlier ones take has to be put together.
    let mut text =
        many(1000, |i| format!("tcp dport 81 sport {}-{} actions drop", i * 20, i * 20 + 20));
    text += &many(2000, |i| {
        format!("tcp dport 81 sport 1-{} actions funnel tcp dport 80 sport {i}-20000", 20_001 - i)
    });
    let refused = measured("rules in place of which any two meet", &text);
    assert!(matches!(refused, Err(Kind::TooComplex(..))), "{refused:?}");
}

/// The message that README.md shows is the one that the program prints.
#[test]
fn the_readme_shows_the_message_as_it_is() {
    let readme = include_str!("../../README.md");
    let rule = "ip daddr 192.0.2.1 tcp port 443 actions funnel tcp dport 80 sport 540";
    let message = compile(rule).unwrap_err().to_string();
    assert!(readme.contains(&message), "README.md does not contain\n{message}");
}
