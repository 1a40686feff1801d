//! Any annotations on the smallest pod.
//!
//! A JSON object of strings is taken as it is; any other bytes choose annotations that are near the ones
//! with a meaning.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use json_patch::Patch;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use webhook::admission::settings::Settings;

use super::admission::{self, Outcome, Verdict, check_message, check_warnings};
use crate::choices::Choices;
use crate::loader_settings::{Settings as LoaderSettings, Source};
use crate::pods;

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| admission::settings(&[]));

type Annotations = BTreeMap<String, String>;

const RULESET: &str = "sfunnel.io/ruleset";
const EGRESS_RULESET: &str = "sfunnel.io/egress-ruleset";
const INTERFACES: &str = "sfunnel.io/interfaces";
const INJECT: &str = "sfunnel.io/inject";
const STATUS: &str = "sfunnel.io/status";
const OURS: [&str; 5] = [RULESET, EGRESS_RULESET, INTERFACES, INJECT, STATUS];
const MIRROR: &str = "kubernetes.io/config.mirror";

/// The annotations that reach the loader, and the variables that it finds them in.
const HANDED_OVER: [(&str, &str); 3] = [
    (RULESET, "SFUNNEL_RULESET"),
    (EGRESS_RULESET, "SFUNNEL_EGRESS_RULESET"),
    (INTERFACES, "IFACES"),
];

/// Bytes of all annotations of an object, names included, at the most (`TotalAnnotationSizeLimitB` in
/// Kubernetes' apimachinery). A webhook sees more: the API server counts after it.
const MAX_ALL: usize = 256 << 10;

/// Bytes of a value, at the most, so that Linux hands `NAME=value` and the NUL behind it to a program
/// (`MAX_ARG_STRLEN`): as many for every variable, whose names differ, as for the one with the longest.
const MAX_VALUE: usize = (128 << 10) - "SFUNNEL_EGRESS_RULESET".len() - 2;

/// Decides about a pod with annotations. Whoever is injected gets a loader that accepts what it is handed
/// over, and is left alone when asked about again; whoever is denied is told which annotation is wrong;
/// and it is really wrong.
///
/// # Panics
///
/// If anything of that does not hold.
pub fn check(data: &[u8]) {
    let Some(annotations) = read(data) else { return };
    let pod = pod(&annotations);
    let Outcome { verdict, warnings } = admission::decide(&pod, &SETTINGS);
    check_warnings(&warnings);

    let get = |name: &str| annotations.get(name).map(String::as_str);
    let wrong = wrong(&annotations);
    let rules = get(RULESET).or(get(EGRESS_RULESET));
    match (verdict, get(MIRROR), get(INJECT), rules, get(INTERFACES)) {
        (Verdict::Left(why), Some(_), ..) => assert_eq!(why, "mirror-pod"),
        (Verdict::Left(why), None, Some("false"), ..) => assert_eq!(why, "opted-out"),
        (Verdict::Left(why), None, _, None, interfaces) => {
            let expected = if interfaces.is_some() { "interfaces-alone" } else { "no-ruleset" };
            assert_eq!(why, expected);
            unknown_ones_are_named(&annotations, &warnings);
        }
        (Verdict::Injected(patch), None, None | Some("true"), Some(_), _) => {
            assert_eq!(wrong, [""; 0], "injected all the same: {annotations:?}");
            injected(&pod, &patch, &annotations);
            unknown_ones_are_named(&annotations, &warnings);
        }
        (Verdict::Denied { message, .. }, None, _, Some(_), _) => {
            check_message(&message);
            let told = |name: &&&str| message.contains(**name);
            assert!(wrong.iter().any(|name| told(&name)), "{message}\nwrong are {wrong:?}");
        }
        (verdict, ..) => panic!("{verdict:?} for {annotations:?}"),
    }
}

/// The annotations of ours that make no sense.
fn wrong(annotations: &Annotations) -> Vec<&'static str> {
    let inject = annotations.get(INJECT).is_some_and(|value| value != "true" && value != "false");
    let refused = |handed_over: &[(&'static str, &'static str)]| {
        let value = |name| annotations.get(name).map(String::as_str);
        loads(&handed_over.iter().filter_map(|(name, to)| Some((*to, value(*name)?))).collect())
            .is_err()
    };
    // Mostly all of them are good, or absent.
    let which = if refused(&HANDED_OVER) { &HANDED_OVER[..] } else { &[] };
    let alone = which.iter().filter(|pair| refused(&[**pair])).map(|(name, _)| *name);
    alone.chain(inject.then_some(INJECT)).collect()
}

/// What the loader says to these variables: its own reading of them, and its own compiler.
fn loads(variables: &BTreeMap<&str, &str>) -> Result<(), String> {
    for (name, value) in variables {
        if value.len() > MAX_VALUE || value.contains('\0') {
            return Err(format!("no program starts with this {name}"));
        }
    }
    let read = LoaderSettings::read([std::ffi::OsString::from("sfunnel-loader")], |name| {
        variables.get(name).map(Into::into)
    });
    let settings = read.map_err(|error| error.to_string())?;
    for source in settings.ruleset.iter().chain(&settings.egress_ruleset) {
        let Source::Text(text, variable) = source else { panic!("{source:?} is no variable") };
        assert_eq!(variables[variable], text);
        ruleset::compile(text).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn injected(pod: &Pod, patch: &Value, annotations: &Annotations) {
    let operations: Patch = serde_json::from_value(patch.clone()).expect("a JSON patch");
    let mut injected = serde_json::to_value(pod).expect("a pod is plain data");
    json_patch::patch(&mut injected, &operations)
        .unwrap_or_else(|error| panic!("{error}: {patch}"));

    let variables = variables(&injected["spec"]["initContainers"][0], annotations);
    let expected = HANDED_OVER.iter().filter_map(|(annotation, variable)| {
        Some((*variable, annotations.get(*annotation)?.as_str()))
    });
    assert_eq!(variables, expected.collect());
    loads(&variables).unwrap_or_else(|error| panic!("the loader refuses: {error}"));

    let again: Pod = serde_json::from_value(injected).expect("a pod");
    let again = admission::decide(&again, &SETTINGS);
    assert_eq!(again.verdict, Verdict::Left("already-injected"));
}

/// The variables of a container as the kubelet makes them.
fn variables<'a>(container: &'a Value, annotations: &'a Annotations) -> BTreeMap<&'a str, &'a str> {
    let variable = |variable: &'a Value| {
        let path = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str()?;
        let name = path.strip_prefix("metadata.annotations['")?.strip_suffix("']")?;
        Some((variable["name"].as_str()?, annotations.get(name)?.as_str()))
    };
    let all = container["env"].as_array().expect("variables");
    all.iter().map(|v| variable(v).unwrap_or_else(|| panic!("{v} is no annotation's"))).collect()
}

/// As long as they are few, and in plain letters, and other warnings leave room for them.
fn unknown_ones_are_named(annotations: &Annotations, warnings: &[String]) {
    let names = annotations.keys().filter(|name| name.starts_with("sfunnel.io/"));
    let unknown: Vec<_> = names.filter(|name| !OURS.contains(&name.as_str())).collect();
    if unknown.len() > 8 || warnings.iter().any(|warning| warning.contains("are not shown")) {
        return;
    }
    for name in unknown {
        let plain = name.len() < 100 && name.bytes().all(|byte| byte.is_ascii_graphic());
        let told = warnings.iter().any(|warning| warning.contains(name.as_str()));
        assert!(told || !plain, "nobody is told of {name}: {warnings:?}");
    }
}

fn pod(annotations: &Annotations) -> Pod {
    let app = Container { name: "app".to_owned(), ..Container::default() };
    let metadata = ObjectMeta { annotations: Some(annotations.clone()), ..ObjectMeta::default() };
    let spec = PodSpec { containers: vec![app], ..PodSpec::default() };
    Pod { metadata, spec: Some(spec), status: None }
}

/// The annotations that the bytes stand for; none when they are no object of strings, or more than an
/// object may have.
fn read(data: &[u8]) -> Option<Annotations> {
    let annotations = match data {
        [b'{', ..] => serde_json::from_slice(data).ok()?,
        _ => chosen(&mut Choices::new(data)),
    };
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    (size <= MAX_ALL).then_some(annotations)
}

fn chosen(choices: &mut Choices<'_>) -> Annotations {
    let mut all = Annotations::new();
    while choices.more() && all.len() < 24 {
        let name = name(choices);
        let value = match name.as_str() {
            RULESET | EGRESS_RULESET => ruleset(choices),
            INTERFACES => interfaces(choices),
            INJECT => match choices.below(4) {
                3 => choices.text(8),
                known => ["true", "false", "True"][known].to_owned(),
            },
            _ => choices.text(24),
        };
        all.insert(name, value);
    }
    all
}

fn name(choices: &mut Choices<'_>) -> String {
    let ours = choices.pick(&OURS);
    match choices.below(12) {
        0..6 => ours.to_owned(),
        6 => near(choices, ours),
        7 => format!("sfunnel.io/{}", choices.text(12)),
        8 => format!("sfunnel.io/{}", choices.text(4).repeat(choices.below(100))),
        9 => near(choices, MIRROR),
        10 => MIRROR.to_owned(),
        _ => choices.text(24),
    }
}

/// The name with a letter too many, too few, in capitals, or another one.
fn near(choices: &mut Choices<'_>, name: &str) -> String {
    let mut letters: Vec<char> = name.chars().collect();
    let at = choices.below(letters.len());
    match choices.below(4) {
        0 => letters.insert(at, letters[at]),
        1 => drop(letters.remove(at)),
        2 => letters[at] = letters[at].to_ascii_uppercase(),
        _ => letters[at] = choices.pick(&['s', '-', '/', '.', '\u{fc}', '\u{202e}']),
    }
    letters.into_iter().collect()
}

fn ruleset(choices: &mut Choices<'_>) -> String {
    let mut text = String::new();
    for _ in 0..=choices.below(4) {
        match choices.below(8) {
            0..3 => text += choices.pick(&pods::RULESETS),
            3..6 => text += &rule(choices),
            _ => text += &choices.text(40),
        }
        text += choices.pick(&["\n", ";", "\r\n", " # \u{e9}\n", ""]);
    }
    repeated(choices, text)
}

fn rule(choices: &mut Choices<'_>) -> String {
    let mut rule = choices.pick(&["ip ", "ip6 ", ""]).to_owned();
    rule += choices.pick(&["", "saddr 10.0.0.0/8 ", "daddr != 192.0.2.1 ", "saddr ::1 "]);
    rule += choices.pick(&["tcp ", "udp ", ""]);
    for side in ["dport", "sport"] {
        if choices.once_in(2) {
            let first = choices.below(1 << 16);
            match choices.below(3) {
                0 => rule += &format!("{side} {first} "),
                1 => rule += &format!("{side} {first}-{} ", first + choices.below(2000)),
                _ => rule += &format!("{side} != {{ {first}, 80 }} "),
            }
        }
    }
    let port = choices.below(1 << 16);
    let action = match choices.below(7) {
        0 => "accept".to_owned(),
        1 => "drop".to_owned(),
        2 => format!("funnel tcp dport {port} sport 540"),
        3 => "unfunnel tcp".to_owned(),
        4 => format!("unfunnel udp dport {port}"),
        5 => "dnat 192.0.2.9".to_owned(),
        _ => choices.text(16),
    };
    rule + "actions " + &action
}

fn interfaces(choices: &mut Choices<'_>) -> String {
    let mut text = String::new();
    for _ in 0..choices.below(5) {
        match choices.below(3) {
            0 => text += choices.pick(&["eth0", "net1", "lo", "sixteen-letters-", "..", "a/b"]),
            1 => text += &choices.text(16),
            _ => {}
        }
        text += choices.pick(&[" ", "\t", "\n", "", "\u{a0}"]);
    }
    repeated(choices, text)
}

/// As it is, or, now and then, many times, up to what an object may have.
fn repeated(choices: &mut Choices<'_>, text: String) -> String {
    if !choices.once_in(64) || text.is_empty() {
        return text;
    }
    let most = (MAX_ALL - 1000) / text.len();
    let times = choices.pick(&[2, 16, MAX_VALUE / text.len(), most]);
    text.repeat(times.min(most))
}
