//! Flags and environment -> what to do.
//!
//! Every setting is a flag and an environment variable; the flag wins. The variables without the
//! prefix `SFUNNEL_` are those of the original's container, and mean the same, but for `OFFLOAD`,
//! which it has not. A variable that is set to nothing counts as not set, but for the rulesets: an
//! empty ruleset is a mistake.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ruleset::contract::env;

/// Where a ruleset may be mounted.
pub const RULESET_FILE: &str = "/etc/sfunnel/ruleset";

/// Loads sfunnel's rules into the kernel and attaches them to network interfaces.
///
/// The program stays attached when this command has ended.
#[derive(Debug, Parser)]
#[command(
    name = "sfunnel-loader",
    version,
    after_help = "Exit status: 0 done, 1 the machine refused, 2 a mistake in rules, flags or \
        environment. The last line on stderr says why."
)]
struct Arguments {
    /// What to do; `load` if none is named
    #[command(subcommand)]
    command: Option<Command>,
    /// The rules [env: SFUNNEL_RULESET] [default: what /etc/sfunnel/ruleset holds]
    #[arg(long, global = true, value_name = "TEXT")]
    ruleset: Option<String>,
    /// A file with the rules
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "ruleset")]
    ruleset_file: Option<PathBuf>,
    /// Other rules for egress, whatever --direction says [env: SFUNNEL_EGRESS_RULESET]
    #[arg(long, global = true, value_name = "TEXT")]
    egress_ruleset: Option<String>,
    /// Interfaces, separated by blanks [env: IFACES] [default: every one that is up, but lo]
    #[arg(long, global = true, value_name = "NAMES")]
    ifaces: Option<String>,
    /// Which packets --ruleset is for: ingress, egress or both [env: DIRECTION] [default: ingress]
    #[arg(long, global = true, value_name = env::DIRECTION)]
    direction: Option<String>,
    /// Where the rules encapsulate TCP, `limit` sets the interface's gso_max_segs to 1 and `keep`
    /// leaves it [env: OFFLOAD] [default: limit]
    #[arg(long, global = true, value_name = "WHAT")]
    offload: Option<String>,
    /// Network namespace, by name or path [env: NETNS] [default: the one this runs in]
    #[arg(long, global = true, value_name = "NAME")]
    netns: Option<String>,
    /// Remove what is attached, as the command `clean` does [env: CLEAN]
    #[arg(long, global = true)]
    clean: bool,
    /// Tell each step on stderr [env: DEBUG]
    #[arg(long, global = true)]
    debug: bool,
    /// How often to try while an interface is missing or busy [env: N_ATTEMPTS] [default: 6]
    #[arg(long, global = true, value_name = "N")]
    attempts: Option<String>,
    /// Seconds between two attempts [env: RETRY_DELAY] [default: 3]
    #[arg(long, global = true, value_name = "SECONDS")]
    retry_delay: Option<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Compile the rules, load them and attach them, in place of what an earlier run attached there
    Load,
    /// Remove what `load` attached, and nothing else
    Clean,
    /// Compile the rules and print them as they were understood
    Check,
    /// Print what is attached where, with the counters of every rule
    Show {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which packets of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Those it receives.
    Ingress,
    /// Those it sends.
    Egress,
    /// All.
    Both,
}

/// What becomes of packets that the kernel would segment behind the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Offload {
    /// Where the rules encapsulate TCP, the kernel is to make none.
    Limit,
    /// They stay, and are not funnelled.
    Keep,
}

/// Where the rules come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Their text, and the flag or variable that held it.
    Text(String, &'static str),
    /// A file.
    File(PathBuf),
}

/// What to do, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The command.
    pub command: Command,
    /// The rules for `direction`, if they were named.
    pub ruleset: Option<Source>,
    /// Other rules for egress.
    pub egress_ruleset: Option<Source>,
    /// Names of interfaces; none means every one that is up, but lo.
    pub interfaces: Vec<String>,
    /// Which packets `ruleset` is for.
    pub direction: Direction,
    /// Whether the interfaces' segmentation limit may be lowered.
    pub offload: Offload,
    /// Name or path of a network namespace.
    pub netns: Option<String>,
    /// Tell each step.
    pub debug: bool,
    /// At least 1.
    pub attempts: u32,
    /// Between two attempts.
    pub retry_delay: Duration,
}

/// A flag or a variable that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line. Also help and version, which are no errors.
    #[error("{}", last_words(.0))]
    Usage(#[from] clap::Error),
    /// A value.
    #[error("{name}: {value:?} is not {expected}")]
    Value {
        /// The flag or variable.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A variable that is not UTF-8.
    #[error("{0} is not valid UTF-8")]
    NotUtf8(&'static str),
    /// Interface names.
    #[error("{name}: {error}")]
    Interfaces {
        /// The flag or variable.
        name: &'static str,
        /// What is wrong.
        error: ruleset::InterfaceError,
    },
}

/// clap's message in one line.
fn last_words(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

impl Settings {
    /// Reads the command line, and the variables that `variable` knows.
    ///
    /// # Errors
    ///
    /// See [`SettingsError`].
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, SettingsError> {
        let arguments = Arguments::try_parse_from(arguments)?;
        let text = |name: &'static str| -> Result<Option<String>, SettingsError> {
            variable(name)
                .map(|value| value.into_string().map_err(|_| SettingsError::NotUtf8(name)))
                .transpose()
        };
        // The value and the name of where it came from.
        type Setting = Option<(String, &'static str)>;
        let setting = |flag: Option<String>, flag_name, name| -> Result<Setting, SettingsError> {
            match flag {
                Some(value) => Ok(Some((value, flag_name))),
                None => {
                    Ok(text(name)?.filter(|value| !value.is_empty()).map(|value| (value, name)))
                }
            }
        };

        let clean = arguments.clean
            || setting(None, "--clean", env::CLEAN)?.map(switch).transpose()?.unwrap_or(false);
        // Other programs have a DEBUG of their own, and injectors may set theirs for every
        // container.
        let debug = arguments.debug
            || setting(None, "--debug", env::DEBUG)?
                .is_some_and(|value| matches!(switch(value), Ok(true)));
        let direction = match setting(arguments.direction, "--direction", env::DIRECTION)? {
            None => Direction::Ingress,
            Some((value, name)) => Direction::from_str(&value, false).map_err(|_| {
                SettingsError::Value { name, value, expected: "`ingress`, `egress` or `both`" }
            })?,
        };
        let offload = match setting(arguments.offload, "--offload", env::OFFLOAD)? {
            None => Offload::Limit,
            Some((value, name)) => Offload::from_str(&value, false)
                .map_err(|_| SettingsError::Value { name, value, expected: "`limit` or `keep`" })?,
        };
        let attempts = match setting(arguments.attempts, "--attempts", env::ATTEMPTS)? {
            None => 6,
            Some((value, name)) => match value.parse() {
                Ok(attempts @ 1..=1000) => attempts,
                _ => {
                    let expected = "a number from 1 to 1000";
                    return Err(SettingsError::Value { name, value, expected });
                }
            },
        };
        let retry_delay = match setting(arguments.retry_delay, "--retry-delay", env::RETRY_DELAY)? {
            None => Duration::from_secs(3),
            Some((value, name)) => match value.parse() {
                Ok(seconds) if (0.0..=3600.0).contains(&seconds) => {
                    Duration::from_secs_f64(seconds)
                }
                _ => {
                    let expected = "a number of seconds from 0 to 3600";
                    return Err(SettingsError::Value { name, value, expected });
                }
            },
        };
        let interfaces = match setting(arguments.ifaces, "--ifaces", env::INTERFACES)? {
            None => Vec::new(),
            Some((list, name)) => ruleset::parse_interfaces(&list)
                .map_err(|error| SettingsError::Interfaces { name, error })?,
        };
        let ruleset = match (arguments.ruleset, arguments.ruleset_file) {
            (Some(text), _) => Some(Source::Text(text, "--ruleset")),
            (None, Some(path)) => Some(Source::File(path)),
            (None, None) => text(env::RULESET)?.map(|text| Source::Text(text, env::RULESET)),
        };
        let egress_ruleset = match arguments.egress_ruleset {
            Some(text) => Some(Source::Text(text, "--egress-ruleset")),
            None => text(env::EGRESS_RULESET)?.map(|text| Source::Text(text, env::EGRESS_RULESET)),
        };
        Ok(Self {
            command: match arguments.command {
                None | Some(Command::Load) if clean => Command::Clean,
                command => command.unwrap_or(Command::Load),
            },
            ruleset,
            egress_ruleset,
            interfaces,
            direction,
            offload,
            netns: setting(arguments.netns, "--netns", env::NETNS)?.map(|(name, _)| name),
            debug,
            attempts,
            retry_delay,
        })
    }
}

fn switch((value, name): (String, &'static str)) -> Result<bool, SettingsError> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(SettingsError::Value { name, value, expected: "`1` or `0`" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let arguments = std::iter::once("sfunnel-loader").chain(arguments.split_whitespace());
        Settings::read(arguments.map(Into::into), |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_originals() {
        let settings = read("", &[]).unwrap();
        assert_eq!(settings.command, Command::Load);
        assert_eq!(settings.direction, Direction::Ingress);
        assert_eq!(settings.offload, Offload::Limit);
        assert_eq!((settings.attempts, settings.retry_delay), (6, Duration::from_secs(3)));
        assert_eq!((settings.ruleset, settings.egress_ruleset, settings.netns), (None, None, None));
        assert!(settings.interfaces.is_empty() && !settings.debug);
    }

    #[test]
    fn the_originals_variables_are_read_and_flags_win() {
        let variables = [
            ("SFUNNEL_RULESET", "one"),
            ("IFACES", "eth0 eth1"),
            ("DIRECTION", "both"),
            ("NETNS", "blue"),
            ("DEBUG", "1"),
            ("N_ATTEMPTS", "2"),
            ("RETRY_DELAY", "0.5"),
        ];
        let settings = read("--ifaces eth2 --attempts 9", &variables).unwrap();
        assert_eq!(settings.ruleset, Some(Source::Text("one".into(), "SFUNNEL_RULESET")));
        assert_eq!(settings.interfaces, ["eth2"]);
        assert_eq!(settings.direction, Direction::Both);
        assert_eq!(settings.netns.as_deref(), Some("blue"));
        assert!(settings.debug);
        assert_eq!((settings.attempts, settings.retry_delay), (9, Duration::from_millis(500)));
    }

    #[test]
    fn offload_is_limited_or_kept() {
        for (arguments, variable, expected) in [
            ("", "", Offload::Limit),
            ("", "limit", Offload::Limit),
            ("", "keep", Offload::Keep),
            ("--offload keep", "limit", Offload::Keep),
            ("--offload limit", "keep", Offload::Limit),
        ] {
            assert_eq!(read(arguments, &[("OFFLOAD", variable)]).unwrap().offload, expected);
        }
    }

    #[test]
    fn clean_is_a_command_a_flag_and_a_variable() {
        assert_eq!(read("clean", &[]).unwrap().command, Command::Clean);
        assert_eq!(read("--clean", &[]).unwrap().command, Command::Clean);
        assert_eq!(read("", &[("CLEAN", "1")]).unwrap().command, Command::Clean);
        assert_eq!(read("", &[("CLEAN", "0")]).unwrap().command, Command::Load);
        assert_eq!(read("check", &[("CLEAN", "1")]).unwrap().command, Command::Check);
    }

    #[test]
    fn a_debug_that_is_meant_for_others_is_none() {
        assert!(!read("", &[("DEBUG", "app:*")]).unwrap().debug);
        assert!(read("--debug", &[("DEBUG", "app:*")]).unwrap().debug);
    }

    #[test]
    fn a_variable_set_to_nothing_is_not_set_but_an_empty_ruleset_is_one() {
        let settings =
            read("", &[("IFACES", ""), ("DIRECTION", ""), ("SFUNNEL_RULESET", "")]).unwrap();
        assert_eq!(settings.direction, Direction::Ingress);
        assert_eq!(settings.ruleset, Some(Source::Text(String::new(), "SFUNNEL_RULESET")));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (arguments, variables, expected) in [
            (
                "",
                ("DIRECTION", "sideways"),
                "DIRECTION: \"sideways\" is not `ingress`, `egress` or `both`",
            ),
            ("", ("N_ATTEMPTS", "0"), "N_ATTEMPTS: \"0\" is not a number from 1 to 1000"),
            (
                "",
                ("RETRY_DELAY", "-1"),
                "RETRY_DELAY: \"-1\" is not a number of seconds from 0 to 3600",
            ),
            ("", ("OFFLOAD", "off"), "OFFLOAD: \"off\" is not `limit` or `keep`"),
            ("", ("CLEAN", "maybe"), "CLEAN: \"maybe\" is not `1` or `0`"),
            (
                "--ifaces a/b",
                ("", ""),
                "--ifaces: \"a/b\" is no interface name: 1 to 15 characters without `/` and `:`, \
                 separated by blanks",
            ),
            ("--sideways", ("", ""), "unexpected argument '--sideways' found"),
        ] {
            assert_eq!(read(arguments, &[variables]).unwrap_err(), expected);
        }
    }
}
