//! Every diagnostic, as its reader sees it.
//!
//! The whole text is compared. When a wording changes, a failure shows both texts; copy the new one
//! once it reads well to somebody who sees nothing else.

use std::cell::RefCell;
use std::collections::BTreeSet;

use ruleset::{Kind, compile};

/// Names each kind of diagnostic; doesn't compile while one is missing in the list.
macro_rules! kinds {
    ($($name:ident)+) => {
        const KINDS: &[&str] = &[$(stringify!($name)),+];

        fn name(kind: &Kind) -> &'static str {
            match kind {
                $(Kind::$name { .. } => stringify!($name),)+
            }
        }
    };
}

kinds! {
    Empty TooLong TooManyRules TooComplex ControlCharacter UnexpectedCharacter UnknownMatch
    ValueWithoutMatch ActionsMissingBefore ActionsMissing ActionsTwice MatchTwice BothProtocols
    BothFamilies PortWithoutProtocol ProtocolMissing IpMissing ValueMissing NotAProtocol BadPort
    PortZero RangeReversed BadAddress WrongFamily BadPrefix EmptySet SetNotClosed CommaMissing
    Misplaced ActionMissing UnknownAction UnknownClause MatchAfterActions FunnelPortMissing
    FunnelOnePort InnerOnePort InnerFirst NotOfUnfunnel FlagsOfUdp UnknownFlag FlagsWithoutBraces
    NoHeader InPlacePortMissing InPlaceProtocol InPlaceMatch InPlaceSize Collision InPlaceDnat
    DnatOneAddress DnatPort DnatNoHost BehindDnat Contradiction ActionTwice DnatFirst Shadowed
    NeverMatches Strangers OwnPorts
}

thread_local! {
    /// The kinds that this thread's cases have shown.
    static SHOWN: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

#[test]
fn every_kind_has_a_case() {
    let groups: [fn(); 16] = [
        mistakes_of_the_originals_documentation,
        nothing_to_do,
        limits,
        characters,
        places,
        words,
        matches,
        ports,
        addresses,
        families,
        sets,
        actions,
        funnels,
        clauses,
        in_place,
        warnings,
    ];
    groups.iter().for_each(|group| group());
    let shown = SHOWN.take();
    let missing: Vec<_> = KINDS.iter().filter(|&&kind| !shown.contains(kind)).collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}

/// Compiles `input` and compares the error, or all warnings, with `expect` less its indentation.
#[track_caller]
fn check(input: &str, expect: &str) {
    let diagnostics = match compile(input) {
        Ok(compiled) => compiled.warnings,
        Err(error) => vec![error],
    };
    let shown: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
    let (shown, expect) = (shown.join("\n"), unindent(expect));
    assert!(
        shown == expect,
        "input    {:?}\n\nexpected\n\n{expect}\n\nfound\n\n{shown}\n",
        input.chars().take(200).collect::<String>(),
    );
    assert!(shown.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "plain ASCII");
    SHOWN.with_borrow_mut(|all| all.extend(diagnostics.iter().map(|found| name(&found.kind))));
}

/// The lines between the first and the last, without the blanks that all of them begin with.
fn unindent(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let [_, lines @ .., _] = lines.as_slice() else {
        panic!("an expectation begins and ends with an empty line");
    };
    let indent = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| &line[indent..]).collect::<Vec<_>>().join("\n")
}

/// Rules as the original sfunnel's own pages print them, with an address filled in.
#[test]
fn mistakes_of_the_originals_documentation() {
    check(
        "ip daddr 10.0.0.1 tcp port 443 actions funnel tcp dport 80 sport 540",
        r"
        error: unknown match `port`; did you mean `dport`?
          at line 1, column 23
          | ip daddr 10.0.0.1 tcp port 443 actions funnel tcp dport 80 sport 540
          |                       ^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "ip daddr 10.0.0.1 tcp dport 443  funnel tcp dport 80 sport 540  # HTTPs",
        r"
        error: `actions` is missing before `funnel`
          at line 1, column 34
          | ip daddr 10.0.0.1 tcp dport 443  funnel tcp dport 80 sport 540
          |                                  ^^^^^^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        "tcp dport 80 sport 540 unfunnel tcp",
        r"
        error: `actions` is missing before `unfunnel`
          at line 1, column 24
          | tcp dport 80 sport 540 unfunnel tcp
          |                        ^^^^^^^^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        "daddr 10.0.0.1 tcp dport 443 actions funnel tcp dport 80 sport 540",
        r"
        error: `daddr` needs `ip`
          at line 1, column 1
          | daddr 10.0.0.1 tcp dport 443 actions funnel tcp dport 80 spo...
          | ^^^^^
          help: write `ip daddr ...`
        ",
    );
    check(
        "tcp dport 443 saddr != 10.0.0.1 actions funnel tcp dport 80 sport 540",
        r"
        error: `saddr` needs `ip`
          at line 1, column 15
          | tcp dport 443 saddr != 10.0.0.1 actions funnel tcp dport 80 sport 540
          |               ^^^^^
          help: write `ip saddr ...`
        ",
    );
    check(
        "ip saddr 127.0.0.1",
        r"
        error: the rule ends without `actions`
          at line 1, column 19
          | ip saddr 127.0.0.1
          |                   ^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        "ip daddr <your LB IP1> tcp dport 443 actions funnel tcp dport 80 sport 540",
        r"
        error: unexpected character `<`
          at line 1, column 10
          | ip daddr <your LB IP1> tcp dport 443 actions funnel tcp dport 80 spor...
          |          ^
          help: nothing is filled in or expanded here: write the port or the address itself
        ",
    );
    check(
        "ip daddr ${LB_IP} tcp dport 8080 actions funnel tcp dport 80 sport 540",
        r"
        error: unexpected character `$`
          at line 1, column 10
          | ip daddr ${LB_IP} tcp dport 8080 actions funnel tcp dport 80 sport 54...
          |          ^
          help: nothing is filled in or expanded here: write the port or the address itself
        ",
    );
    // A line is continued in the shell that it was copied from.
    check(
        "ip tcp dport 443 actions funnel tcp dport 80 sport 540;\\\n  ip tcp dport 8080 actions funnel tcp dport 80 sport 540",
        r"
        error: unexpected character `\`
          at line 1, column 56
          | \
          | ^
          help: no line is continued here: a rule ends at its line's end or at `;`
        ",
    );
    // The original takes this, and leaves out the negation.
    check(
        "udp sport ! = 65000 actions drop",
        r"
        error: unexpected character `!`
          at line 1, column 11
          | udp sport ! = 65000 actions drop
          |           ^
          help: write `!=` in one piece to negate a match
        ",
    );
    // To the original port 0 is every port.
    check(
        "tcp dport 0 actions accept",
        r"
        error: port 0 is reserved
          at line 1, column 11
          | tcp dport 0 actions accept
          |           ^
          help: a port is a number from 1 to 65535; a match that is left out holds for every port
        ",
    );
}

/// A ruleset without a rule.
#[test]
fn nothing_to_do() {
    check(
        "",
        r"
        error: the ruleset has no rule
          at line 1, column 1
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        " \t\r\n\n",
        r"
        error: the ruleset has no rule
          at line 1, column 1
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        "# nothing\n## to do; # here",
        r"
        error: the ruleset has no rule
          at line 1, column 1
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        ";;\n;",
        r"
        error: the ruleset has no rule
          at line 1, column 1
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
}

/// Texts that are too large, whichever way.
#[test]
fn limits() {
    // The place is where the limit is passed.
    check(
        &format!("tcp actions drop #{}", "x".repeat(1 << 20)),
        r"
        error: the ruleset is longer than 262144 bytes
          at line 1, column 262145
          | ...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
          |                                                                ^
          help: sets and ranges make one rule of many: `dport { 443, 8000-8999 }`
        ",
    );
    // Two bytes each; the limit lies within one of them.
    check(
        &format!("#{}", "\u{e9}".repeat(1 << 17)),
        r"
        error: the ruleset is longer than 262144 bytes
          at line 1, column 131073
          | ...\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}
          |                                                                ^
          help: sets and ranges make one rule of many: `dport { 443, 8000-8999 }`
        ",
    );
    check(
        &"tcp actions drop\n".repeat(10_000),
        r"
        error: the ruleset has more than 4096 rules
          at line 4097, column 1
          | tcp actions drop
          | ^^^^^^^^^^^^^^^^
          help: sets and ranges make one rule of many: `dport { 443, 8000-8999 }`
        ",
    );
    // Addresses in as many networks; the rule that has them is shown.
    check(
        &format!(
            "tcp actions drop; ip saddr {{ {} }} tcp actions drop",
            (0..19_000).map(|i| format!("{}.{}.1.1,", i / 256, i % 256)).collect::<String>()
        ),
        r"
        error: the ruleset needs more than 16384 nodes of lookup table
          at line 1, column 19
          | ip saddr { 0.0.1.1,0.1.1.1,0.2.1.1,0.3.1.1,0.4.1.1,0.5.1.1,0...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: name fewer separate addresses and ports; CIDRs and ranges cost as much as one value
        ",
    );
}

/// What no rule is written with. Nothing of it gets out as it is.
#[test]
fn characters() {
    check(
        "tcp dport 80\0 actions drop",
        r"
        error: control character U+0000
          at line 1, column 13
          | tcp dport 80\u{0} actions drop
          |             ^^^^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    check(
        "tcp dport 80 \u{1b}[2J actions drop",
        r"
        error: control character U+001B
          at line 1, column 14
          | tcp dport 80 \u{1b}[2J actions drop
          |              ^^^^^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    check(
        "tcp actions drop # \u{7} in a comment",
        r"
        error: control character U+0007
          at line 1, column 20
          | \u{7} in a comment
          | ^^^^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    // Alone it would make a terminal hide the comment sign.
    check(
        "tcp actions drop # fine\rtcp actions accept",
        r"
        error: control character U+000D
          at line 1, column 24
          | fine\rtcp actions accept
          |     ^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    // The original, in Python, begins a new line here.
    check(
        "tcp actions drop # fine\u{2028}udp actions drop",
        r"
        error: control character U+2028
          at line 1, column 24
          | fine\u{2028}udp actions drop
          |     ^^^^^^^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    // Trojan Source: what is shown is not what is read.
    check(
        "tcp actions drop # \u{202e}\u{2066} eno siht ton",
        r"
        error: control character U+202E
          at line 1, column 20
          | \u{202e}\u{2066} eno siht ton
          | ^^^^^^^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    // The mistake is a blank of a kind, at the end of the rule.
    check(
        "tcp actions drop\u{b}",
        r"
        error: control character U+000B
          at line 1, column 17
          | tcp actions drop\u{b}
          |                 ^^^^^
          help: remove it; blanks, tabs and line ends separate words
        ",
    );
    check(
        "tcp\u{a0}dport 80 actions drop",
        r"
        error: unexpected character `\u{a0}`
          at line 1, column 4
          | tcp\u{a0}dport 80 actions drop
          |    ^^^^^^
          help: outside comments there are only words, numbers, addresses, `!=`, `{`, `,`, `}` and `;`, in plain ASCII
        ",
    );
    check(
        "tcp dport ８０ actions drop",
        r"
        error: unexpected character `\u{ff18}`
          at line 1, column 11
          | tcp dport \u{ff18}\u{ff10} actions drop
          |           ^^^^^^^^
          help: outside comments there are only words, numbers, addresses, `!=`, `{`, `,`, `}` and `;`, in plain ASCII
        ",
    );
    check(
        "tcp dport 80 actions drop é",
        r"
        error: unexpected character `\u{e9}`
          at line 1, column 27
          | tcp dport 80 actions drop \u{e9}
          |                           ^^^^^^
          help: outside comments there are only words, numbers, addresses, `!=`, `{`, `,`, `}` and `;`, in plain ASCII
        ",
    );
    check(
        "\u{feff}tcp actions drop",
        r"
        error: unexpected character `\u{feff}`
          at line 1, column 1
          | \u{feff}tcp actions drop
          | ^^^^^^^^
          help: outside comments there are only words, numbers, addresses, `!=`, `{`, `,`, `}` and `;`, in plain ASCII
        ",
    );
    check(
        "tcp dport \"80\" actions drop",
        r#"
        error: unexpected character `"`
          at line 1, column 11
          | tcp dport "80" actions drop
          |           ^
          help: rules have no quotation marks
        "#,
    );
    check(
        "tcp dport \u{201c}80\u{201d} actions drop",
        r"
        error: unexpected character `\u{201c}`
          at line 1, column 11
          | tcp dport \u{201c}80\u{201d} actions drop
          |           ^^^^^^^^
          help: rules have no quotation marks
        ",
    );
    check(
        "tcp dport != 80, ! tcp",
        r"
        error: unexpected character `!`
          at line 1, column 18
          | tcp dport != 80, ! tcp
          |                  ^
          help: write `!=` in one piece to negate a match
        ",
    );
    check(
        "tcp dport = 80 actions drop",
        r"
        error: unexpected character `=`
          at line 1, column 11
          | tcp dport = 80 actions drop
          |           ^
          help: a value follows its match directly, as in `dport 80`
        ",
    );
    check(
        "ip saddr 10.0.0.* tcp actions drop",
        r"
        error: unexpected character `*`
          at line 1, column 17
          | ip saddr 10.0.0.* tcp actions drop
          |                 ^
          help: nothing is filled in or expanded here: write the port or the address itself
        ",
    );
    check(
        "tcp dport (80) actions drop",
        r"
        error: unexpected character `(`
          at line 1, column 11
          | tcp dport (80) actions drop
          |           ^
          help: outside comments there are only words, numbers, addresses, `!=`, `{`, `,`, `}` and `;`, in plain ASCII
        ",
    );
}

/// Line, column and caret, wherever the mistake stands.
#[test]
fn places() {
    check(
        "tcp\tdport\t65536\tactions\tdrop",
        r"
        error: `65536` is not a port
          at line 1, column 11
          | tcp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "\t  tcp dport 65536 actions drop",
        r"
        error: `65536` is not a port
          at line 1, column 14
          | tcp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp actions drop; udp actions drop;udp dport 65536 actions drop; tcp actions accept",
        r"
        error: `65536` is not a port
          at line 1, column 46
          | udp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "# one\n\ntcp actions drop # two; udp actions drop # three\nudp dport 65536 actions drop # four",
        r"
        error: `65536` is not a port
          at line 4, column 11
          | udp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp actions drop\r\nudp dport 65536 actions drop\r\n",
        r"
        error: `65536` is not a port
          at line 2, column 11
          | udp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp actions drop\r\nudp dport 80\r\n",
        r"
        error: the rule ends without `actions`
          at line 2, column 13
          | udp dport 80
          |             ^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    // Behind the last word, not behind the comment.
    check(
        "tcp dport 80 # actions drop",
        r"
        error: the rule ends without `actions`
          at line 1, column 13
          | tcp dport 80
          |             ^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    // Columns are characters.
    check(
        "# \u{fc}; tcp dport 65536 actions drop",
        r"
        error: `65536` is not a port
          at line 1, column 16
          | tcp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    // A long rule is cut on both sides.
    check(
        &format!(
            "ip tcp dport {{ {}http, {}443 }} actions drop",
            "80, ".repeat(5_000),
            "81, ".repeat(5_000)
        ),
        r"
        error: `http` is not a port
          at line 1, column 20016
          | ...80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, 80, http, 81, 81, 81, 81, 81, 81, 81, 81, 81, 81, 81, 81, 81, 81...
          |                                                                ^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    // So is a long word, wherever it is quoted.
    check(
        &format!("tcp dport {} actions drop", "8".repeat(200_000)),
        r"
        error: `8888888888888888888888888888888888888888...` is not a port
          at line 1, column 11
          | tcp dport 888888888888888888888888888888888888888888888888888888888888...
          |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        &format!("tcp actions {}", "x".repeat(61)),
        r"
        error: unknown action `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...`
          at line 1, column 13
          | tcp actions xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
          |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
}

/// A word where a match should stand.
#[test]
fn words() {
    check(
        "ip tpc dport 80 actions drop",
        r"
        error: unknown match `tpc`; did you mean `tcp`?
          at line 1, column 4
          | ip tpc dport 80 actions drop
          |    ^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "TCP dport 80 actions drop",
        r"
        error: unknown match `TCP`; did you mean `tcp`?
          at line 1, column 1
          | TCP dport 80 actions drop
          | ^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "tcp dst port 80 actions drop",
        r"
        error: unknown match `dst`
          at line 1, column 5
          | tcp dst port 80 actions drop
          |     ^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "ip addr 10.0.0.1 tcp actions drop",
        r"
        error: unknown match `addr`; did you mean `daddr`?
          at line 1, column 4
          | ip addr 10.0.0.1 tcp actions drop
          |    ^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "ipv4 tcp dport 80 actions drop",
        r"
        error: unknown match `ipv4`; did you mean `ip`?
          at line 1, column 1
          | ipv4 tcp dport 80 actions drop
          | ^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    // No other protocol has ports, nor is one meant.
    check(
        "ip icmp actions drop",
        r"
        error: unknown match `icmp`
          at line 1, column 4
          | ip icmp actions drop
          |    ^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "sctp dport 80 actions drop",
        r"
        error: unknown match `sctp`
          at line 1, column 1
          | sctp dport 80 actions drop
          | ^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "tcp dport 80 443 actions drop",
        r"
        error: `443` belongs to no match
          at line 1, column 14
          | tcp dport 80 443 actions drop
          |              ^^^
          help: a port follows `sport` or `dport`, an address `saddr` or `daddr`; several are written `dport { 80, 443 }` or `dport 1024-2047`
        ",
    );
    check(
        "tcp 80 actions drop",
        r"
        error: `80` belongs to no match
          at line 1, column 5
          | tcp 80 actions drop
          |     ^^
          help: a port follows `sport` or `dport`, an address `saddr` or `daddr`; several are written `dport { 80, 443 }` or `dport 1024-2047`
        ",
    );
    // Blanks make three words of a range.
    check(
        "tcp dport 1024 - 2047 actions drop",
        r"
        error: `-` belongs to no match
          at line 1, column 16
          | tcp dport 1024 - 2047 actions drop
          |                ^
          help: a port follows `sport` or `dport`, an address `saddr` or `daddr`; several are written `dport { 80, 443 }` or `dport 1024-2047`
        ",
    );
    check(
        "ip 10.0.0.1 tcp actions drop",
        r"
        error: `10.0.0.1` belongs to no match
          at line 1, column 4
          | ip 10.0.0.1 tcp actions drop
          |    ^^^^^^^^
          help: a port follows `sport` or `dport`, an address `saddr` or `daddr`; several are written `dport { 80, 443 }` or `dport 1024-2047`
        ",
    );
    check(
        "tcp dport 80 action drop",
        r"
        error: unknown match `action`; did you mean `actions`?
          at line 1, column 14
          | tcp dport 80 action drop
          |              ^^^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "{ 80 } tcp actions drop",
        r"
        error: `{` has no place here
          at line 1, column 1
          | { 80 } tcp actions drop
          | ^
          help: braces hold a set behind a match: `dport { 80, 443 }`
        ",
    );
    check(
        "tcp dport 80, 443 actions drop",
        r"
        error: `,` has no place here
          at line 1, column 13
          | tcp dport 80, 443 actions drop
          |             ^
          help: a comma separates the values of a set, as in `dport { 80, 443 }`
        ",
    );
    check(
        "tcp != dport 80 actions drop",
        r"
        error: `!=` has no place here
          at line 1, column 5
          | tcp != dport 80 actions drop
          |     ^^
          help: it follows `saddr`, `daddr`, `sport` or `dport`
        ",
    );
}

/// Matches that don't go together, or are not whole.
#[test]
fn matches() {
    check(
        "tcp dport 80 dport 443 actions drop",
        r"
        error: `dport` is given twice
          at line 1, column 14
          | tcp dport 80 dport 443 actions drop
          |              ^^^^^
          help: for several values write a set, `dport { 80, 443 }`
        ",
    );
    check(
        "ip saddr 10.0.0.1 saddr 10.0.0.2 tcp actions drop",
        r"
        error: `saddr` is given twice
          at line 1, column 19
          | ip saddr 10.0.0.1 saddr 10.0.0.2 tcp actions drop
          |                   ^^^^^
          help: for several values write a set, `saddr { 10.0.0.1, 10.1.0.0/16 }`
        ",
    );
    check(
        "ip ip tcp actions drop",
        r"
        error: `ip` is given twice
          at line 1, column 4
          | ip ip tcp actions drop
          |    ^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "udp dport 80 udp actions drop",
        r"
        error: `udp` is given twice
          at line 1, column 14
          | udp dport 80 udp actions drop
          |              ^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp udp dport 53 actions drop",
        r"
        error: `tcp` and `udp` in one rule
          at line 1, column 5
          | tcp udp dport 53 actions drop
          |     ^^^
          help: no packet is both; write a rule for each
        ",
    );
    check(
        "dport 80 actions drop",
        r"
        error: `dport` needs `tcp` or `udp`
          at line 1, column 1
          | dport 80 actions drop
          | ^^^^^
          help: write `tcp dport ...` or `udp dport ...`
        ",
    );
    check(
        "ip daddr 10.0.0.1 sport 80 actions drop",
        r"
        error: `sport` needs `tcp` or `udp`
          at line 1, column 19
          | ip daddr 10.0.0.1 sport 80 actions drop
          |                   ^^^^^
          help: write `tcp sport ...` or `udp sport ...`
        ",
    );
    check(
        "ip daddr 10.0.0.1 actions drop",
        r"
        error: the rule names no protocol
          at line 1, column 1
          | ip daddr 10.0.0.1 actions drop
          | ^^^^^^^^^^^^^^^^^^^^^^^^^
          help: add `tcp` or `udp`
        ",
    );
    check(
        "actions drop",
        r"
        error: the rule names no protocol
          at line 1, column 1
          | actions drop
          | ^^^^^^^
          help: add `tcp` or `udp`
        ",
    );
    check(
        "tcp dport actions drop",
        r"
        error: `dport` needs a port
          at line 1, column 11
          | tcp dport actions drop
          |           ^^^^^^^
          help: such as `dport 80`
        ",
    );
    check(
        "tcp dport != actions drop",
        r"
        error: `dport` needs a port
          at line 1, column 14
          | tcp dport != actions drop
          |              ^^^^^^^
          help: such as `dport 80`
        ",
    );
    check(
        "tcp sport dport 80 actions drop",
        r"
        error: `sport` needs a port
          at line 1, column 11
          | tcp sport dport 80 actions drop
          |           ^^^^^
          help: such as `sport 80`
        ",
    );
    check(
        "ip saddr tcp actions drop",
        r"
        error: `saddr` needs an address
          at line 1, column 10
          | ip saddr tcp actions drop
          |          ^^^
          help: such as `saddr 10.0.0.1`
        ",
    );
    check(
        "tcp dport",
        r"
        error: `dport` needs a port
          at line 1, column 10
          | tcp dport
          |          ^
          help: such as `dport 80`
        ",
    );
    check(
        "tcp dport 80",
        r"
        error: the rule ends without `actions`
          at line 1, column 13
          | tcp dport 80
          |             ^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
    check(
        "ip tcp dport 80 accept",
        r"
        error: `actions` is missing before `accept`
          at line 1, column 17
          | ip tcp dport 80 accept
          |                 ^^^^^^
          help: a rule is `<matches> actions <action>`, such as `ip tcp dport 80 sport 540 actions unfunnel tcp`
        ",
    );
}

/// Values that are no ports.
#[test]
fn ports() {
    check(
        "tcp dport http actions drop",
        r"
        error: `http` is not a port
          at line 1, column 11
          | tcp dport http actions drop
          |           ^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport 65536 actions drop",
        r"
        error: `65536` is not a port
          at line 1, column 11
          | tcp dport 65536 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport -1 actions drop",
        r"
        error: `-1` is not a port
          at line 1, column 11
          | tcp dport -1 actions drop
          |           ^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport +80 actions drop",
        r"
        error: `+80` is not a port
          at line 1, column 11
          | tcp dport +80 actions drop
          |           ^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport 80- actions drop",
        r"
        error: `80-` is not a port
          at line 1, column 11
          | tcp dport 80- actions drop
          |           ^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport 80:90 actions drop",
        r"
        error: `80:90` is not a port
          at line 1, column 11
          | tcp dport 80:90 actions drop
          |           ^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport 80-90-100 actions drop",
        r"
        error: `80-90-100` is not a port
          at line 1, column 11
          | tcp dport 80-90-100 actions drop
          |           ^^^^^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp dport 0-1023 actions drop",
        r"
        error: port 0 is reserved
          at line 1, column 11
          | tcp dport 0-1023 actions drop
          |           ^^^^^^
          help: a port is a number from 1 to 65535; a match that is left out holds for every port
        ",
    );
    check(
        "tcp sport 60999-32768 actions drop",
        r"
        error: the range 60999-32768 ends before it starts
          at line 1, column 11
          | tcp sport 60999-32768 actions drop
          |           ^^^^^^^^^^^
          help: write `32768-60999`
        ",
    );
    check(
        "tcp dport 10.0.0.1 actions drop",
        r"
        error: `10.0.0.1` is not a port
          at line 1, column 11
          | tcp dport 10.0.0.1 actions drop
          |           ^^^^^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
}

/// Values that are no addresses.
#[test]
fn addresses() {
    check(
        "ip saddr 10.0.0.0/33 tcp actions drop",
        r"
        error: `/33` is not an IPv4 prefix length
          at line 1, column 10
          | ip saddr 10.0.0.0/33 tcp actions drop
          |          ^^^^^^^^^^^
          help: write a number from 0 to 32, as in `10.0.0.0/8`, or a netmask
        ",
    );
    check(
        "ip saddr 10.0.0.0/ tcp actions drop",
        r"
        error: `/` is not an IPv4 prefix length
          at line 1, column 10
          | ip saddr 10.0.0.0/ tcp actions drop
          |          ^^^^^^^^^
          help: write a number from 0 to 32, as in `10.0.0.0/8`, or a netmask
        ",
    );
    check(
        "ip saddr 10.0.0.0/-8 tcp actions drop",
        r"
        error: `/-8` is not an IPv4 prefix length
          at line 1, column 10
          | ip saddr 10.0.0.0/-8 tcp actions drop
          |          ^^^^^^^^^^^
          help: write a number from 0 to 32, as in `10.0.0.0/8`, or a netmask
        ",
    );
    check(
        "ip saddr 10.0.0.0/255.0.255.0 tcp actions drop",
        r"
        error: `/255.0.255.0` is not an IPv4 prefix length
          at line 1, column 10
          | ip saddr 10.0.0.0/255.0.255.0 tcp actions drop
          |          ^^^^^^^^^^^^^^^^^^^^
          help: write a number from 0 to 32, as in `10.0.0.0/8`, or a netmask
        ",
    );
    check(
        "ip saddr 10.0.0 tcp actions drop",
        r"
        error: `10.0.0` is not an IPv4 address or CIDR
          at line 1, column 10
          | ip saddr 10.0.0 tcp actions drop
          |          ^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
    check(
        "ip saddr 10.0.0.256 tcp actions drop",
        r"
        error: `10.0.0.256` is not an IPv4 address or CIDR
          at line 1, column 10
          | ip saddr 10.0.0.256 tcp actions drop
          |          ^^^^^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
    check(
        "ip saddr 010.0.0.1 tcp actions drop",
        r"
        error: `010.0.0.1` is not an IPv4 address or CIDR
          at line 1, column 10
          | ip saddr 010.0.0.1 tcp actions drop
          |          ^^^^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
    check(
        "ip daddr nginx.shop.svc tcp actions drop",
        r"
        error: `nginx.shop.svc` is not an IPv4 address or CIDR
          at line 1, column 10
          | ip daddr nginx.shop.svc tcp actions drop
          |          ^^^^^^^^^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
    check(
        "ip daddr 10.0.0.1:80 tcp actions drop",
        r"
        error: `10.0.0.1:80` is not an IPv4 address or CIDR
          at line 1, column 10
          | ip daddr 10.0.0.1:80 tcp actions drop
          |          ^^^^^^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
    check(
        "ip daddr 10.0.0.1-10.0.0.9 tcp actions drop",
        r"
        error: `10.0.0.1-10.0.0.9` is not an IPv4 address or CIDR
          at line 1, column 10
          | ip daddr 10.0.0.1-10.0.0.9 tcp actions drop
          |          ^^^^^^^^^^^^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
}

/// IPv4 and IPv6.
#[test]
fn families() {
    check(
        "ipv6 daddr 2001:db8::1 tcp actions drop",
        r"
        error: unknown match `ipv6`; did you mean `ip6`?
          at line 1, column 1
          | ipv6 daddr 2001:db8::1 tcp actions drop
          | ^^^^
          help: matches are `ip`, `ip6`, `tcp`, `udp`, and followed by a value `saddr`, `daddr`, `sport`, `dport`; then comes `actions`
        ",
    );
    check(
        "ip saddr 2001:db8::1 tcp actions drop",
        r"
        error: `2001:db8::1` is an IPv6 address in a rule for IPv4
          at line 1, column 10
          | ip saddr 2001:db8::1 tcp actions drop
          |          ^^^^^^^^^^^
          help: a rule for `ip` has no addresses of `ip6`; write a rule for each
        ",
    );
    check(
        "ip saddr { 10.0.0.1, 2001:db8::/32 } tcp actions drop",
        r"
        error: `2001:db8::` is an IPv6 address in a rule for IPv4
          at line 1, column 22
          | ip saddr { 10.0.0.1, 2001:db8::/32 } tcp actions drop
          |                      ^^^^^^^^^^^^^
          help: a rule for `ip` has no addresses of `ip6`; write a rule for each
        ",
    );
    check(
        "ip6 daddr 10.0.0.0/8 tcp actions drop",
        r"
        error: `10.0.0.0` is an IPv4 address in a rule for IPv6
          at line 1, column 11
          | ip6 daddr 10.0.0.0/8 tcp actions drop
          |           ^^^^^^^^^^
          help: a rule for `ip6` has no addresses of `ip`; write a rule for each
        ",
    );
    check(
        "tcp saddr ::1 ip actions drop",
        r"
        error: `::1` is an IPv6 address in a rule for IPv4
          at line 1, column 11
          | tcp saddr ::1 ip actions drop
          |           ^^^
          help: a rule for `ip` has no addresses of `ip6`; write a rule for each
        ",
    );
    check(
        "ip6 saddr fe80::1:: tcp actions drop",
        r"
        error: `fe80::1::` is not an IPv6 address or CIDR
          at line 1, column 11
          | ip6 saddr fe80::1:: tcp actions drop
          |           ^^^^^^^^^
          help: such as `2001:db8::1` or `2001:db8::/32`
        ",
    );
    check(
        "ip6 saddr 2001:db8::/129 tcp actions drop",
        r"
        error: `/129` is not an IPv6 prefix length
          at line 1, column 11
          | ip6 saddr 2001:db8::/129 tcp actions drop
          |           ^^^^^^^^^^^^^^
          help: write a number from 0 to 128, as in `2001:db8::/32`
        ",
    );
    check(
        "ip6 saddr 2001:db8::/ffff:: tcp actions drop",
        r"
        error: `/ffff::` is not an IPv6 prefix length
          at line 1, column 11
          | ip6 saddr 2001:db8::/ffff:: tcp actions drop
          |           ^^^^^^^^^^^^^^^^^
          help: write a number from 0 to 128, as in `2001:db8::/32`
        ",
    );
    check(
        "ip6 saddr 2001:db8::/255.255.0.0 tcp actions drop",
        r"
        error: `/255.255.0.0` is not an IPv6 prefix length
          at line 1, column 11
          | ip6 saddr 2001:db8::/255.255.0.0 tcp actions drop
          |           ^^^^^^^^^^^^^^^^^^^^^^
          help: write a number from 0 to 128, as in `2001:db8::/32`
        ",
    );
    check(
        "ip6 saddr [2001:db8::1] tcp actions drop",
        r"
        error: unexpected character `[`
          at line 1, column 11
          | ip6 saddr [2001:db8::1] tcp actions drop
          |           ^
          help: addresses have no brackets here: write `2001:db8::1`
        ",
    );
    check(
        "ip6 saddr fe80::1%eth0 tcp actions drop",
        r"
        error: unexpected character `%`
          at line 1, column 18
          | ip6 saddr fe80::1%eth0 tcp actions drop
          |                  ^
          help: addresses have no zone here: write `fe80::1` alone
        ",
    );
    check(
        "saddr client tcp actions drop",
        r"
        error: `client` is not an address or CIDR
          at line 1, column 7
          | saddr client tcp actions drop
          |       ^^^^^^
          help: such as `10.0.0.1` or `10.0.0.0/8`
        ",
    );
    check(
        "ip ip6 tcp actions drop",
        r"
        error: `ip` and `ip6` in one rule
          at line 1, column 4
          | ip ip6 tcp actions drop
          |    ^^^
          help: no packet is both; write a rule for each
        ",
    );
    check(
        "ip6 tcp ip6 actions drop",
        r"
        error: `ip6` is given twice
          at line 1, column 9
          | ip6 tcp ip6 actions drop
          |         ^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "saddr 2001:db8::1 tcp actions drop",
        r"
        error: `saddr` needs `ip6`
          at line 1, column 1
          | saddr 2001:db8::1 tcp actions drop
          | ^^^^^
          help: write `ip6 saddr ...`
        ",
    );
    check(
        "tcp daddr != { 10.0.0.1, ::1 } actions drop",
        r"
        error: `daddr` needs `ip`
          at line 1, column 5
          | tcp daddr != { 10.0.0.1, ::1 } actions drop
          |     ^^^^^
          help: write `ip daddr ...`
        ",
    );
    check(
        "ip tcp actions dnat ::1",
        r"
        error: `::1` is an IPv6 address in a rule for IPv4
          at line 1, column 21
          | ip tcp actions dnat ::1
          |                     ^^^
          help: a rule for `ip` has no addresses of `ip6`; write a rule for each
        ",
    );
    check(
        "ip6 tcp actions unfunnel tcp dnat 10.0.0.1",
        r"
        error: `10.0.0.1` is an IPv4 address in a rule for IPv6
          at line 1, column 35
          | ip6 tcp actions unfunnel tcp dnat 10.0.0.1
          |                                   ^^^^^^^^
          help: a rule for `ip6` has no addresses of `ip`; write a rule for each
        ",
    );
}

/// Braces and commas.
#[test]
fn sets() {
    check(
        "tcp dport { } actions drop",
        r"
        error: the set is empty
          at line 1, column 13
          | tcp dport { } actions drop
          |             ^
          help: name a value, or leave `dport` out
        ",
    );
    check(
        "tcp dport != {} actions drop",
        r"
        error: the set is empty
          at line 1, column 15
          | tcp dport != {} actions drop
          |               ^
          help: name a value, or leave `dport` out
        ",
    );
    check(
        "tcp dport { 80, 443 actions drop",
        r"
        error: the set has no `}`
          at line 1, column 21
          | tcp dport { 80, 443 actions drop
          |                     ^^^^^^^
          help: a set ends in the rule it began in: `{ 80, 443 }`
        ",
    );
    check(
        "tcp dport { 80 443 } actions drop",
        r"
        error: `,` is missing between two values of a set
          at line 1, column 16
          | tcp dport { 80 443 } actions drop
          |                ^^^
          help: write `{ 80, 443 }`
        ",
    );
    check(
        "tcp dport { 80,\n443 } actions drop",
        r"
        error: the set has no `}`
          at line 1, column 16
          | tcp dport { 80,
          |                ^
          help: a set ends in the rule it began in: `{ 80, 443 }`
        ",
    );
    check(
        "tcp dport { 80; 443 } actions drop",
        r"
        error: the set has no `}`
          at line 1, column 15
          | tcp dport { 80
          |               ^
          help: a set ends in the rule it began in: `{ 80, 443 }`
        ",
    );
    check(
        "tcp dport {",
        r"
        error: the set has no `}`
          at line 1, column 12
          | tcp dport {
          |            ^
          help: a set ends in the rule it began in: `{ 80, 443 }`
        ",
    );
    check(
        "tcp dport { 80,, 443 } actions drop",
        r"
        error: `,` has no place here
          at line 1, column 16
          | tcp dport { 80,, 443 } actions drop
          |                ^
          help: a comma separates the values of a set, as in `dport { 80, 443 }`
        ",
    );
    check(
        "tcp dport { , 80 } actions drop",
        r"
        error: `,` has no place here
          at line 1, column 13
          | tcp dport { , 80 } actions drop
          |             ^
          help: a comma separates the values of a set, as in `dport { 80, 443 }`
        ",
    );
    check(
        "tcp dport { { 80 } } actions drop",
        r"
        error: `{` has no place here
          at line 1, column 13
          | tcp dport { { 80 } } actions drop
          |             ^
          help: braces hold a set behind a match: `dport { 80, 443 }`
        ",
    );
    check(
        "tcp dport { 80, != 443 } actions drop",
        r"
        error: `!=` has no place here
          at line 1, column 17
          | tcp dport { 80, != 443 } actions drop
          |                 ^^
          help: it follows `saddr`, `daddr`, `sport` or `dport`
        ",
    );
    check(
        "tcp dport { 80, tcp } actions drop",
        r"
        error: `dport` needs a port
          at line 1, column 17
          | tcp dport { 80, tcp } actions drop
          |                 ^^^
          help: such as `dport 80`
        ",
    );
    check(
        "tcp dport 80 } actions drop",
        r"
        error: `}` has no place here
          at line 1, column 14
          | tcp dport 80 } actions drop
          |              ^
          help: braces hold a set behind a match: `dport { 80, 443 }`
        ",
    );
}

/// What stands behind `actions`.
#[test]
fn actions() {
    check(
        "tcp dport 80 actions",
        r"
        error: `actions` without an action
          at line 1, column 21
          | tcp dport 80 actions
          |                     ^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
    check(
        "tcp dport 80 actions ; udp actions drop",
        r"
        error: `actions` without an action
          at line 1, column 21
          | tcp dport 80 actions
          |                     ^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
    check(
        "tcp dport 80 actions funnle tcp dport 80 sport 540",
        r"
        error: unknown action `funnle`; did you mean `funnel`?
          at line 1, column 22
          | tcp dport 80 actions funnle tcp dport 80 sport 540
          |                      ^^^^^^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
    check(
        "tcp dport 80 actions reject",
        r"
        error: unknown action `reject`
          at line 1, column 22
          | tcp dport 80 actions reject
          |                      ^^^^^^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
    check(
        "tcp dport 80 actions DROP",
        r"
        error: unknown action `DROP`; did you mean `drop`?
          at line 1, column 22
          | tcp dport 80 actions DROP
          |                      ^^^^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
    check(
        "tcp dport 80 actions accept 80",
        r"
        error: unknown action `80`
          at line 1, column 29
          | tcp dport 80 actions accept 80
          |                             ^^
          help: actions are `accept`, `drop`, `funnel`, `unfunnel` and `dnat`
        ",
    );
    check(
        "tcp dport 80 actions accept, drop",
        r"
        error: `,` has no place here
          at line 1, column 28
          | tcp dport 80 actions accept, drop
          |                            ^
          help: a comma separates the values of a set, as in `dport { 80, 443 }`
        ",
    );
    check(
        "tcp actions accept actions drop",
        r"
        error: `actions` is given twice
          at line 1, column 20
          | tcp actions accept actions drop
          |                    ^^^^^^^
          help: one rule a line; `;` separates rules as well
        ",
    );
    check(
        "tcp actions dport 80 drop",
        r"
        error: `dport` stands after `actions`
          at line 1, column 13
          | tcp actions dport 80 drop
          |             ^^^^^
          help: matches come before `actions`
        ",
    );
    check(
        "tcp actions accept drop",
        r"
        error: `accept` and `drop` in one rule
          at line 1, column 20
          | tcp actions accept drop
          |                    ^^^^
          help: `accept` and `drop` stand alone; write one action a rule
        ",
    );
    check(
        "tcp actions drop drop",
        r"
        error: `drop` is given twice
          at line 1, column 18
          | tcp actions drop drop
          |                  ^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions accept dnat 10.0.0.1",
        r"
        error: `accept` and `dnat` in one rule
          at line 1, column 20
          | tcp actions accept dnat 10.0.0.1
          |                    ^^^^
          help: `accept` and `drop` stand alone; write one action a rule
        ",
    );
    check(
        "tcp actions dnat 10.0.0.1 drop",
        r"
        error: `dnat` and `drop` in one rule
          at line 1, column 27
          | tcp actions dnat 10.0.0.1 drop
          |                           ^^^^
          help: `accept` and `drop` stand alone; write one action a rule
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 unfunnel tcp",
        r"
        error: `funnel` and `unfunnel` in one rule
          at line 1, column 43
          | tcp actions funnel tcp dport 80 sport 540 unfunnel tcp
          |                                           ^^^^^^^^
          help: a rule pushes a header or removes one
        ",
    );
    check(
        "tcp actions unfunnel tcp unfunnel udp",
        r"
        error: `unfunnel` is given twice
          at line 1, column 26
          | tcp actions unfunnel tcp unfunnel udp
          |                          ^^^^^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions unfunnel tcp dnat 10.0.0.1 dnat 10.0.0.2",
        r"
        error: `dnat` is given twice
          at line 1, column 40
          | tcp actions unfunnel tcp dnat 10.0.0.1 dnat 10.0.0.2
          |                                        ^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions dnat 10.0.0.1 funnel tcp dport 80 sport 540",
        r"
        error: `dnat` stands before `funnel`
          at line 1, column 27
          | tcp actions dnat 10.0.0.1 funnel tcp dport 80 sport 540
          |                           ^^^^^^
          help: write `funnel ... dnat ADDRESS`
        ",
    );
    check(
        "tcp actions dnat 10.0.0.1 unfunnel tcp",
        r"
        error: `dnat` stands before `unfunnel`
          at line 1, column 27
          | tcp actions dnat 10.0.0.1 unfunnel tcp
          |                           ^^^^^^^^
          help: write `unfunnel ... dnat ADDRESS`
        ",
    );
    check(
        "tcp actions dnat",
        r"
        error: `dnat` needs an address
          at line 1, column 17
          | tcp actions dnat
          |                 ^
          help: such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat drop",
        r"
        error: `dnat` needs an address
          at line 1, column 18
          | tcp actions dnat drop
          |                  ^^^^
          help: such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat backend",
        r"
        error: `dnat` takes exactly one address
          at line 1, column 18
          | tcp actions dnat backend
          |                  ^^^^^^^
          help: such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat 10.0.0.0/8",
        r"
        error: `dnat` takes exactly one address
          at line 1, column 18
          | tcp actions dnat 10.0.0.0/8
          |                  ^^^^^^^^^^
          help: such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions unfunnel udp dnat { 10.0.0.1, 10.0.0.2 }",
        r"
        error: `dnat` takes exactly one address
          at line 1, column 31
          | tcp actions unfunnel udp dnat { 10.0.0.1, 10.0.0.2 }
          |                               ^
          help: such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat != 10.0.0.1",
        r"
        error: `dnat` takes exactly one address
          at line 1, column 18
          | tcp actions dnat != 10.0.0.1
          |                  ^^
          help: such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat 10.0.0.1:80",
        r"
        error: `dnat` takes no port
          at line 1, column 18
          | tcp actions dnat 10.0.0.1:80
          |                  ^^^^^^^^^^^
          help: write the address alone; ports are set by `funnel` and `unfunnel`, as in `unfunnel tcp dport 9090 dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions unfunnel tcp dnat 0.0.0.0",
        r"
        error: no host has the address `0.0.0.0`
          at line 1, column 31
          | tcp actions unfunnel tcp dnat 0.0.0.0
          |                               ^^^^^^^
          help: name one host, such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat 255.255.255.255",
        r"
        error: no host has the address `255.255.255.255`
          at line 1, column 18
          | tcp actions dnat 255.255.255.255
          |                  ^^^^^^^^^^^^^^^
          help: name one host, such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat 224.0.0.1",
        r"
        error: no host has the address `224.0.0.1`
          at line 1, column 18
          | tcp actions dnat 224.0.0.1
          |                  ^^^^^^^^^
          help: name one host, such as `dnat 10.0.0.1`
        ",
    );
    check(
        "ip6 tcp actions dnat ::",
        r"
        error: no host has the address `::`
          at line 1, column 22
          | ip6 tcp actions dnat ::
          |                      ^^
          help: name one host, such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions dnat ff02::1",
        r"
        error: no host has the address `ff02::1`
          at line 1, column 18
          | tcp actions dnat ff02::1
          |                  ^^^^^^^
          help: name one host, such as `dnat 10.0.0.1`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 dnat 10.0.0.1 flags syn",
        r"
        error: `flags` stands behind `dnat`
          at line 1, column 57
          | tcp actions funnel tcp dport 80 sport 540 dnat 10.0.0.1 flags syn
          |                                                         ^^^^^
          help: `dnat` comes last: write `... flags ... dnat ADDRESS`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 dnat 10.0.0.1 inner sport 7",
        r"
        error: `inner` stands behind `dnat`
          at line 1, column 57
          | tcp actions funnel tcp dport 80 sport 540 dnat 10.0.0.1 inner sport 7
          |                                                         ^^^^^
          help: `dnat` comes last: write `... inner ... dnat ADDRESS`
        ",
    );
    check(
        "tcp actions unfunnel tcp dnat 10.0.0.1 dport 9090",
        r"
        error: `dport` stands behind `dnat`
          at line 1, column 40
          | tcp actions unfunnel tcp dnat 10.0.0.1 dport 9090
          |                                        ^^^^^
          help: `dnat` comes last: write `... dport ... dnat ADDRESS`
        ",
    );
}

/// `funnel` and `unfunnel` without what they need.
#[test]
fn funnels() {
    check(
        "tcp actions funnel",
        r"
        error: `funnel` needs `tcp` or `udp`
          at line 1, column 19
          | tcp actions funnel
          |                   ^
          help: such as `funnel tcp`
        ",
    );
    check(
        "tcp actions funnel dport 80 sport 540",
        r"
        error: `dport` is neither `tcp` nor `udp`
          at line 1, column 20
          | tcp actions funnel dport 80 sport 540
          |                    ^^^^^
          help: write `funnel tcp` or `unfunnel udp`, in lower case, and ports behind it
        ",
    );
    check(
        "tcp actions funnel TCP dport 80 sport 540",
        r"
        error: `TCP` is neither `tcp` nor `udp`
          at line 1, column 20
          | tcp actions funnel TCP dport 80 sport 540
          |                    ^^^
          help: write `funnel tcp` or `unfunnel udp`, in lower case, and ports behind it
        ",
    );
    check(
        "tcp actions funnel encap",
        r"
        error: `funnel` needs `tcp` or `udp`
          at line 1, column 25
          | tcp actions funnel encap
          |                         ^
          help: such as `funnel tcp`
        ",
    );
    check(
        "tcp actions funnel sctp dport 80 sport 540",
        r"
        error: `sctp` is neither `tcp` nor `udp`
          at line 1, column 20
          | tcp actions funnel sctp dport 80 sport 540
          |                    ^^^^
          help: write `funnel tcp` or `unfunnel udp`, in lower case, and ports behind it
        ",
    );
    check(
        "tcp actions funnel tcp",
        r"
        error: `funnel` needs `sport`
          at line 1, column 23
          | tcp actions funnel tcp
          |                       ^
          help: the new header needs one port each: `funnel tcp dport 80 sport 540`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80",
        r"
        error: `funnel` needs `sport`
          at line 1, column 32
          | tcp actions funnel tcp dport 80
          |                                ^
          help: the new header needs one port each: `funnel tcp dport 80 sport 540`
        ",
    );
    check(
        "tcp actions funnel tcp sport 540 dnat 10.0.0.1",
        r"
        error: `funnel` needs `dport`
          at line 1, column 34
          | tcp actions funnel tcp sport 540 dnat 10.0.0.1
          |                                  ^^^^
          help: the new header needs one port each: `funnel tcp dport 80 sport 540`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport",
        r"
        error: `sport` needs a port
          at line 1, column 38
          | tcp actions funnel tcp dport 80 sport
          |                                      ^
          help: such as `sport 80`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 dport 81",
        r"
        error: `dport` is given twice
          at line 1, column 33
          | tcp actions funnel tcp dport 80 dport 81
          |                                 ^^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 0",
        r"
        error: port 0 is reserved
          at line 1, column 39
          | tcp actions funnel tcp dport 80 sport 0
          |                                       ^
          help: a port is a number from 1 to 65535; a match that is left out holds for every port
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport uucp",
        r"
        error: `uucp` is not a port
          at line 1, column 39
          | tcp actions funnel tcp dport 80 sport uucp
          |                                       ^^^^
          help: a port is a number from 1 to 65535; a range is written `1024-2047`
        ",
    );
    check(
        "tcp actions unfunnel",
        r"
        error: `unfunnel` needs `tcp` or `udp`
          at line 1, column 21
          | tcp actions unfunnel
          |                     ^
          help: such as `unfunnel tcp`
        ",
    );
    check(
        "tcp actions unfunnel encap tcp",
        r"
        error: `encap` is neither `tcp` nor `udp`
          at line 1, column 22
          | tcp actions unfunnel encap tcp
          |                      ^^^^^
          help: write `funnel tcp` or `unfunnel udp`, in lower case, and ports behind it
        ",
    );
    check(
        "tcp actions unfunnel { tcp, udp }",
        r"
        error: `{` has no place here
          at line 1, column 22
          | tcp actions unfunnel { tcp, udp }
          |                      ^
          help: braces hold a set behind a match: `dport { 80, 443 }`
        ",
    );
}

/// What stands behind the protocol of `funnel` and `unfunnel`.
#[test]
fn clauses() {
    check(
        "tcp actions funnel tcp dport 80 sport 540 flags",
        r"
        error: `flags` needs a TCP flag
          at line 1, column 48
          | tcp actions funnel tcp dport 80 sport 540 flags
          |                                                ^
          help: such as `flags ack`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 flags SYN",
        r"
        error: unknown TCP flag `SYN`; did you mean `syn`?
          at line 1, column 49
          | tcp actions funnel tcp dport 80 sport 540 flags SYN
          |                                                 ^^^
          help: flags are `fin`, `syn`, `rst`, `psh`, `ack`, `urg`, `ece`, `cwr`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 flags { syn, akc }",
        r"
        error: unknown TCP flag `akc`; did you mean `ack`?
          at line 1, column 56
          | tcp actions funnel tcp dport 80 sport 540 flags { syn, akc }
          |                                                        ^^^
          help: flags are `fin`, `syn`, `rst`, `psh`, `ack`, `urg`, `ece`, `cwr`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 flags { }",
        r"
        error: the set is empty
          at line 1, column 51
          | tcp actions funnel tcp dport 80 sport 540 flags { }
          |                                                   ^
          help: name a value, or leave `flags` out
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 flags 16",
        r"
        error: unknown TCP flag `16`
          at line 1, column 49
          | tcp actions funnel tcp dport 80 sport 540 flags 16
          |                                                 ^^
          help: flags are `fin`, `syn`, `rst`, `psh`, `ack`, `urg`, `ece`, `cwr`
        ",
    );
    check(
        "tcp actions funnel tcp flags ack dport 80 flags syn sport 540",
        r"
        error: `flags` is given twice
          at line 1, column 43
          | tcp actions funnel tcp flags ack dport 80 flags syn sport 540
          |                                           ^^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions funnel udp dport 80 sport 540 flags ack",
        r"
        error: `flags` does not belong to `funnel udp`
          at line 1, column 43
          | tcp actions funnel udp dport 80 sport 540 flags ack
          |                                           ^^^^^
          help: a UDP header has no flags
        ",
    );
    check(
        "tcp actions unfunnel tcp flags ack",
        r"
        error: `flags` does not belong to `unfunnel`
          at line 1, column 26
          | tcp actions unfunnel tcp flags ack
          |                          ^^^^^
          help: they are those of the header that `funnel tcp` pushes
        ",
    );
    check(
        "tcp actions unfunnel tcp inner dport 9090",
        r"
        error: `inner` does not belong to `unfunnel`
          at line 1, column 26
          | tcp actions unfunnel tcp inner dport 9090
          |                          ^^^^^
          help: the ports of `unfunnel` are the inner ones already: `unfunnel tcp dport 9090`
        ",
    );
    check(
        "tcp actions funnel tcp inner sport 2055 dport 80 sport 540",
        r"
        error: `inner` stands before the funnel's own ports
          at line 1, column 24
          | tcp actions funnel tcp inner sport 2055 dport 80 sport 540
          |                        ^^^^^
          help: write `funnel tcp dport 80 sport 540 inner sport 2055`: ports behind `inner` are those of the packet's own header
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 inner",
        r"
        error: `inner` needs `sport` or `dport`
          at line 1, column 48
          | tcp actions funnel tcp dport 80 sport 540 inner
          |                                                ^
          help: such as `inner sport 2055`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 inner sport 2055 inner dport 1",
        r"
        error: `inner` is given twice
          at line 1, column 60
          | tcp actions funnel tcp dport 80 sport 540 inner sport 2055 inner dport 1
          |                                                            ^^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 inner sport 2055-2056",
        r"
        error: `sport` behind `inner` takes exactly one port
          at line 1, column 55
          | tcp actions funnel tcp dport 80 sport 540 inner sport 2055-2056
          |                                                       ^^^^^^^^^
          help: such as `inner sport 2055`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 inner sport { 2055, 2056 }",
        r"
        error: `sport` behind `inner` takes exactly one port
          at line 1, column 55
          | tcp actions funnel tcp dport 80 sport 540 inner sport { 2055, 2056 }
          |                                                       ^
          help: such as `inner sport 2055`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 inner sport 2055 sport 2056",
        r"
        error: `sport` is given twice
          at line 1, column 60
          | tcp actions funnel tcp dport 80 sport 540 inner sport 2055 sport 2056
          |                                                            ^^^^^
          help: remove one of them, or start a new rule
        ",
    );
    check(
        "tcp actions unfunnel tcp dport { 80, 81 }",
        r"
        error: `dport` behind `actions` takes one port, or one range
          at line 1, column 32
          | tcp actions unfunnel tcp dport { 80, 81 }
          |                                ^
          help: single ports are a header's, `funnel tcp dport 80 sport 540`; ranges translate in place, `funnel tcp dport 80 sport 1024-29255`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport != 540",
        r"
        error: `sport` behind `actions` takes one port, or one range
          at line 1, column 39
          | tcp actions funnel tcp dport 80 sport != 540
          |                                       ^^
          help: single ports are a header's, `funnel tcp dport 80 sport 540`; ranges translate in place, `funnel tcp dport 80 sport 1024-29255`
        ",
    );
    check(
        "tcp actions funnel tcp dprt 80 sport 540",
        r"
        error: unknown word `dprt` behind `funnel`; did you mean `dport`?
          at line 1, column 24
          | tcp actions funnel tcp dprt 80 sport 540
          |                        ^^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp port 80 sport 540",
        r"
        error: unknown word `port` behind `funnel`; did you mean `dport`?
          at line 1, column 24
          | tcp actions funnel tcp port 80 sport 540
          |                        ^^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 port 540",
        r"
        error: unknown word `port` behind `funnel`; did you mean `sport`?
          at line 1, column 33
          | tcp actions funnel tcp dport 80 port 540
          |                                 ^^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp encap dport 80 sport 540",
        r"
        error: unknown word `encap` behind `funnel`
          at line 1, column 24
          | tcp actions funnel tcp encap dport 80 sport 540
          |                        ^^^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 flag ack",
        r"
        error: unknown word `flag` behind `funnel`; did you mean `flags`?
          at line 1, column 43
          | tcp actions funnel tcp dport 80 sport 540 flag ack
          |                                           ^^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 541",
        r"
        error: unknown word `541` behind `funnel`
          at line 1, column 43
          | tcp actions funnel tcp dport 80 sport 540 541
          |                                           ^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 dnta 10.0.0.1",
        r"
        error: unknown word `dnta` behind `funnel`; did you mean `dnat`?
          at line 1, column 43
          | tcp actions funnel tcp dport 80 sport 540 dnta 10.0.0.1
          |                                           ^^^^
          help: behind `funnel tcp` come `dport`, `sport`, `flags` and `inner`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp saddr 10.0.0.1 dport 80 sport 540",
        r"
        error: `saddr` stands after `actions`
          at line 1, column 24
          | tcp actions funnel tcp saddr 10.0.0.1 dport 80 sport 540
          |                        ^^^^^
          help: matches come before `actions`
        ",
    );
    check(
        "tcp actions unfunnel tcp port 9090",
        r"
        error: unknown word `port` behind `unfunnel`; did you mean `dport`?
          at line 1, column 26
          | tcp actions unfunnel tcp port 9090
          |                          ^^^^
          help: behind `unfunnel tcp` come `dport` and `sport`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions unfunnel tcp 9090",
        r"
        error: unknown word `9090` behind `unfunnel`; did you mean `dport`?
          at line 1, column 26
          | tcp actions unfunnel tcp 9090
          |                          ^^^^
          help: behind `unfunnel tcp` come `dport` and `sport`, each with its value, and `dnat`
        ",
    );
    check(
        "tcp actions funnel tcp flags syn ack dport 80 sport 540",
        r"
        error: several flags without braces
          at line 1, column 34
          | tcp actions funnel tcp flags syn ack dport 80 sport 540
          |                                  ^^^
          help: write `flags { syn, ack }`
        ",
    );
    check(
        "tcp actions funnel tcp dport 80 sport 540 flags syn,ack",
        r"
        error: several flags without braces
          at line 1, column 52
          | tcp actions funnel tcp dport 80 sport 540 flags syn,ack
          |                                                    ^
          help: write `flags { syn, ack }`
        ",
    );
}

/// Ports written as ranges.
#[test]
fn in_place() {
    check(
        "tcp sport 1-9 actions funnel tcp dport 80 sport 1-9",
        r"
        error: ports are translated in place, but the rule does not match one range of `dport`
          at line 1, column 40
          | tcp sport 1-9 actions funnel tcp dport 80 sport 1-9
          |                                        ^^
          help: match one range each, without `!=`: `tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255`
        ",
    );
    check(
        "tcp dport 8080 sport 32768-60999 actions funnel tcp sport 1024-29255",
        r"
        error: ports are translated in place, but `dport` is missing
          at line 1, column 69
          | ...t 8080 sport 32768-60999 actions funnel tcp sport 1024-29255
          |                                                                ^
          help: a range needs both: `funnel tcp dport 80 sport 1024-29255`
        ",
    );
    check(
        "tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29254",
        r"
        error: 28232 ports of `sport` can't become 28231
          at line 1, column 68
          | ...rt 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29254
          |                                                                ^^^^^^^^^^
          help: each port becomes one other: write `sport 1024-29255`, or match `sport 32768-60998`
        ",
    );
    check(
        "tcp dport 8080 sport 32768-60999 actions unfunnel tcp dport 80 sport 40000-65535",
        r"
        error: 28232 ports of `sport` can't become 25536
          at line 1, column 70
          | ... 8080 sport 32768-60999 actions unfunnel tcp dport 80 sport 40000-65535
          |                                                                ^^^^^^^^^^^
          help: each port becomes one other: match `sport 32768-58303`
        ",
    );
    check(
        "tcp dport 8080-8081 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255",
        r"
        error: 2 ports of `dport` can't become 1
          at line 1, column 64
          | ... dport 8080-8081 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255
          |                                                                ^^
          help: each port becomes one other: write `dport 80-81`, or match `dport 8080`
        ",
    );
    check(
        "udp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255",
        r"
        error: `funnel tcp` in place, in a rule for udp
          at line 1, column 49
          | udp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255
          |                                                 ^^^
          help: a range of ports is translated without a header, so the protocol stays; single ports mean a header, which may be of another one
        ",
    );
    check(
        "tcp dport 8080 sport { 1-2, 4-5 } actions funnel tcp dport 80 sport 1-4",
        r"
        error: ports are translated in place, but the rule does not match one range of `sport`
          at line 1, column 69
          | ...t 8080 sport { 1-2, 4-5 } actions funnel tcp dport 80 sport 1-4
          |                                                                ^^^
          help: match one range each, without `!=`: `tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255`
        ",
    );
    check(
        "tcp dport != 8080 sport 1-4 actions funnel tcp dport 80 sport 1-4",
        r"
        error: ports are translated in place, but the rule does not match one range of `dport`
          at line 1, column 54
          | tcp dport != 8080 sport 1-4 actions funnel tcp dport 80 sport 1-4
          |                                                      ^^
          help: match one range each, without `!=`: `tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 1024-29255`
        ",
    );
    check(
        "tcp dport 80 sport 1-4 actions funnel tcp dport 80 sport 1-4 flags ack",
        r"
        error: `flags` is for a header, and with a range of ports there is none
          at line 1, column 62
          | ...cp dport 80 sport 1-4 actions funnel tcp dport 80 sport 1-4 flags ack
          |                                                                ^^^^^
          help: write one port each, such as `sport 540`, to push or remove a header; a range, even `540-540`, is translated in place
        ",
    );
    check(
        "tcp dport 80 sport 1-4 actions funnel tcp dport 80 sport 1-4 inner sport 5",
        r"
        error: `inner` is for a header, and with a range of ports there is none
          at line 1, column 62
          | ...cp dport 80 sport 1-4 actions funnel tcp dport 80 sport 1-4 inner sport 5
          |                                                                ^^^^^
          help: write one port each, such as `sport 540`, to push or remove a header; a range, even `540-540`, is translated in place
        ",
    );
    check(
        "tcp dport 80 sport 1-4 actions funnel encap tcp dport 80 sport 1-4",
        r"
        error: `encap` is for a header, and with a range of ports there is none
          at line 1, column 39
          | tcp dport 80 sport 1-4 actions funnel encap tcp dport 80 sport 1-4
          |                                       ^^^^^
          help: write one port each, such as `sport 540`, to push or remove a header; a range, even `540-540`, is translated in place
        ",
    );
    check(
        "tcp dport 80 sport 1-4 actions funnel tcp dport 80 sport 1-4 unfunnel tcp",
        r"
        error: `funnel` and `unfunnel` in one rule
          at line 1, column 62
          | ...cp dport 80 sport 1-4 actions funnel tcp dport 80 sport 1-4 unfunnel tcp
          |                                                                ^^^^^^^^
          help: a rule pushes a header or removes one
        ",
    );
    check(
        "tcp dport 8080 sport 1-9 actions funnel tcp dport 80 sport 101-109\ntcp dport 8081 sport 1-9 actions funnel tcp dport 80 sport 109-117 # two clients' ports",
        r"
        error: two flows would become one: what comes out here also comes out of line 1
          at line 2, column 34
          | tcp dport 8081 sport 1-9 actions funnel tcp dport 80 sport 109-117
          |                                  ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: give the two rules source ranges that don't overlap behind `actions`, or addresses that differ
        ",
    );
    check(
        "tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80-81 sport 1024-29255",
        r"
        error: 1 port of `dport` can't become 2
          at line 1, column 59
          | tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80-81 sport 1024-29255
          |                                                           ^^^^^
          help: each port becomes one other: write `dport 80`, or match `dport 8080-8081`
        ",
    );
    // Neither range can be as long as the other.
    check(
        "tcp dport 8080-8089 sport 60000-65535 actions funnel tcp dport 80-89 sport 40000-65535",
        r"
        error: 5536 ports of `sport` can't become 25536
          at line 1, column 76
          | ...8089 sport 60000-65535 actions funnel tcp dport 80-89 sport 40000-65535
          |                                                                ^^^^^^^^^^^
          help: each port becomes one other: write `sport 40000-45535`, or match a range of 25536
        ",
    );
    check(
        "tcp dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.1",
        r"
        error: ports are translated in place and the address is set, but the rule does not match one `daddr`
          at line 1, column 64
          | ... dport 81 sport 1-9 actions funnel tcp dport 80 sport 11-19 dnat 10.0.0.1
          |                                                                ^^^^
          help: flows to several addresses would become one: match a single address, as in `ip daddr 192.0.2.1`
        ",
    );
    check(
        "ip daddr 10.0.0.0/31 tcp dport 81 sport 1-9 actions unfunnel tcp dport 80 sport 11-19 dnat 10.0.0.1",
        r"
        error: ports are translated in place and the address is set, but the rule does not match one `daddr`
          at line 1, column 87
          | ...port 81 sport 1-9 actions unfunnel tcp dport 80 sport 11-19 dnat 10.0.0.1
          |                                                                ^^^^
          help: flows to several addresses would become one: match a single address, as in `ip daddr 192.0.2.1`
        ",
    );
}

/// What is accepted, and can't be meant.
#[test]
fn warnings() {
    check(
        "ip tcp actions accept\nip tcp dport 80 actions drop",
        r"
        warning: the rule can never match: earlier rules take all of it
          at line 2, column 1
          | ip tcp dport 80 actions drop
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: the first match wins: move the rule up, or remove it
        ",
    );
    // Two earlier rules together.
    check(
        "tcp dport 1-443 actions drop; tcp dport 444-65535 actions drop; # all\n tcp dport { 80, 8080 } actions accept # too late",
        r"
        warning: the rule can never match: earlier rules take all of it
          at line 2, column 2
          | tcp dport { 80, 8080 } actions accept
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: the first match wins: move the rule up, or remove it
        ",
    );
    check(
        "ip saddr != 0.0.0.0/0 tcp actions drop",
        r"
        warning: the rule can never match: its `!=` excludes every packet
          at line 1, column 1
          | ip saddr != 0.0.0.0/0 tcp actions drop
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: narrow what `!=` excludes, or remove the rule
        ",
    );
    // Of several warnings each is shown, in the order of the rules.
    check(
        "tcp actions drop\r\ntcp actions drop\r\nip daddr != { 0.0.0.0/1, 128.0.0.0/1 } udp actions drop\r\n",
        r"
        warning: the rule can never match: earlier rules take all of it
          at line 2, column 1
          | tcp actions drop
          | ^^^^^^^^^^^^^^^^
          help: the first match wins: move the rule up, or remove it
        warning: the rule can never match: its `!=` excludes every packet
          at line 3, column 1
          | ip daddr != { 0.0.0.0/1, 128.0.0.0/1 } udp actions drop
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: narrow what `!=` excludes, or remove the rule
        ",
    );
    // The caret is cut where the excerpt is.
    check(
        &format!(
            "tcp actions drop; ip saddr {{ {}10.0.0.1 }} tcp actions drop",
            "10.0.0.1, ".repeat(50)
        ),
        r"
        warning: the rule can never match: earlier rules take all of it
          at line 1, column 19
          | ip saddr { 10.0.0.1, 10.0.0.1, 10.0.0.1, 10.0.0.1, 10.0.0.1,...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: the first match wins: move the rule up, or remove it
        ",
    );
    check(
        "ip tcp dport 80 sport 1024-29255 actions unfunnel tcp dport 8080 sport 32768-60999",
        r"
        warning: ports are translated back for packets from anywhere
          at line 1, column 1
          | ip tcp dport 80 sport 1024-29255 actions unfunnel tcp dport ...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: a stranger with a source port of that range would reach the wrong port; match the `saddr` of clients that are known
        ",
    );
    // Addresses that are all addresses.
    check(
        "ip saddr 0.0.0.0/0 tcp dport 80 sport 1024-29255 actions unfunnel tcp dport 8080 sport 32768-60999",
        r"
        warning: ports are translated back for packets from anywhere
          at line 1, column 1
          | ip saddr 0.0.0.0/0 tcp dport 80 sport 1024-29255 actions unf...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: a stranger with a source port of that range would reach the wrong port; match the `saddr` of clients that are known
        ",
    );
    check(
        "ip6 saddr { ::/1, 8000::/1 } tcp dport 80 sport 1024-29255 actions unfunnel tcp dport 8080 sport 32768-60999",
        r"
        warning: ports are translated back for packets from anywhere
          at line 1, column 1
          | ip6 saddr { ::/1, 8000::/1 } tcp dport 80 sport 1024-29255 a...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: a stranger with a source port of that range would reach the wrong port; match the `saddr` of clients that are known
        ",
    );
    // The source port stays: a client's direct connections to port 80 have such ports as well.
    check(
        "tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80 sport 32768-60999",
        r"
        warning: ports of `sport` come out among those that the rule matches
          at line 1, column 1
          | tcp dport 8080 sport 32768-60999 actions funnel tcp dport 80...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: a connection that is not funnelled may have these ports as well, and would be taken for one that is; choose a range outside of the matched one and of net.ipv4.ip_local_port_range, as 1024-29255 is
        ",
    );
    check(
        "tcp sport 8080 dport 32768-60999 actions funnel tcp sport 80 dport 4537-32768",
        r"
        warning: ports of `dport` come out among those that the rule matches
          at line 1, column 1
          | tcp sport 8080 dport 32768-60999 actions funnel tcp sport 80...
          | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
          help: a connection that is not funnelled may have these ports as well, and would be taken for one that is; choose a range outside of the matched one and of net.ipv4.ip_local_port_range, as 1024-29255 is
        ",
    );
}
