//! The four commands.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fmt, fs, thread};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ruleset::{Compiled, Diagnostic, compile};

use crate::attach::{self, AttachError, Cleaned, HookRules, Rulesets};
use crate::lock::{self, Lock};
use crate::netlink::{Interface, Netlink};
use crate::netns::{self, NetnsError};
use crate::offload::{self, Notice};
use crate::settings::{Command, Direction, RULESET_FILE, Settings, SettingsError, Source};
use crate::show::{self, ShowError};

/// Why a command did not do what it should. The last line of its text is the reason.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Flags and environment.
    #[error("sfunnel-loader: {0}; see `sfunnel-loader --help`")]
    Settings(#[from] SettingsError),
    /// A ruleset.
    #[error("{diagnostic}\nsfunnel-loader: {name} is refused at {}", .diagnostic.summary())]
    Ruleset {
        /// Where it came from.
        name: String,
        /// What is wrong.
        diagnostic: Box<Diagnostic>,
    },
    /// No ruleset at all.
    #[error(
        "sfunnel-loader: there are no rules: set SFUNNEL_RULESET or SFUNNEL_EGRESS_RULESET, \
         or mount {RULESET_FILE}"
    )]
    NoRuleset,
    /// A ruleset's file.
    #[error("sfunnel-loader: can't read the rules from {}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The network namespace.
    #[error("sfunnel-loader: {0}")]
    Netns(#[from] NetnsError),
    /// Loading, attaching, removing.
    #[error("sfunnel-loader: {0}")]
    Attach(#[from] AttachError),
    /// Showing.
    #[error("sfunnel-loader: {0}")]
    Show(#[from] ShowError),
    /// A socket to the kernel.
    #[error("sfunnel-loader: can't open a netlink socket: {0}")]
    Netlink(io::Error),
    /// Standard output.
    #[error("sfunnel-loader: can't write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// 2 for a mistake in rules, flags or environment, 1 for a machine that refuses.
    pub fn exit_code(&self) -> ExitCode {
        let users = match self {
            Self::Settings(_) | Self::Ruleset { .. } | Self::NoRuleset | Self::File { .. } => true,
            Self::Netns(error) => matches!(error, NetnsError::Missing { .. }),
            Self::Attach(error) => error.is_users(),
            Self::Show(_) | Self::Netlink(_) | Self::Output(_) => false,
        };
        ExitCode::from(if users { 2 } else { 1 })
    }
}

/// Runs the command that `arguments` and the environment ask for.
///
/// # Errors
///
/// See [`Failure`].
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let settings = match Settings::read(arguments, |name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(SettingsError::Usage(asked)) if !asked.use_stderr() => return Ok(asked.print()?),
        Err(error) => return Err(error.into()),
    };
    let log = Log { debug: settings.debug };
    match settings.command {
        Command::Check => return check(&settings),
        Command::Load => return load(&settings, log),
        Command::Clean | Command::Show { .. } => {}
    }
    if let Some(name) = &settings.netns {
        netns::enter(name)?;
    }
    let mut netlink = Netlink::open().map_err(Failure::Netlink)?;
    let _lock = match settings.command {
        Command::Clean => Some(Lock::take(lock::PATIENCE).map_err(AttachError::from)?),
        _ => None,
    };
    // What is down now may have been up when it was attached.
    let interfaces = match settings.interfaces.as_slice() {
        [] => netlink
            .interfaces()
            .map_err(|error| AttachError::Read { what: "the list of interfaces", error })?,
        names => attach::select(&mut netlink, names)?,
    };
    if let Command::Show { json } = settings.command {
        return print(&show::show(&mut netlink, &interfaces)?, json);
    }
    let Cleaned { removed, notices } = attach::clean(&mut netlink, &interfaces)?;
    for (interface, hook, subject) in &removed {
        log.say(format_args!("removed from {interface} {}", subject.on(*hook)));
    }
    log.notices(&notices);
    if removed.is_empty() {
        log.say(format_args!("nothing was attached"));
    }
    Ok(())
}

/// Speaks on stderr, where a container's log is.
#[derive(Clone, Copy)]
struct Log {
    debug: bool,
}

impl Log {
    fn say(self, what: fmt::Arguments<'_>) {
        print_line(format_args!("sfunnel-loader: {what}"));
    }

    fn notices(self, notices: &[Notice]) {
        for notice in notices {
            if notice.warning {
                print_line(format_args!("warning: {notice}"));
            } else {
                self.say(format_args!("{notice}"));
            }
        }
    }

    fn debug(self, what: fmt::Arguments<'_>) {
        if self.debug {
            self.say(what);
        }
    }
}

/// Reads and compiles everything that the settings name, before anything in the kernel is touched.
fn rulesets(settings: &Settings) -> Result<Rulesets, Failure> {
    let mounted = Path::new(RULESET_FILE);
    let source = match &settings.ruleset {
        Some(source) => Some(source.clone()),
        // What can't be looked at is looked at, for the reason to be told.
        None if mounted.try_exists().unwrap_or(true) => Some(Source::File(mounted.into())),
        None => None,
    };
    let ruleset = source.map(|source| read(&source)).transpose()?;
    let egress_ruleset = settings.egress_ruleset.as_ref().map(read).transpose()?;
    if settings.direction == Direction::Egress && ruleset.is_some() && egress_ruleset.is_some() {
        print_line(
            "warning: of two rulesets for egress, the one in SFUNNEL_EGRESS_RULESET or \
             --egress-ruleset is taken; DIRECTION=both makes the other one that for ingress",
        );
    }
    let (ingress, egress) = match settings.direction {
        Direction::Ingress => (ruleset, egress_ruleset),
        Direction::Egress => (None, egress_ruleset.or(ruleset)),
        Direction::Both => (ruleset.clone(), egress_ruleset.or(ruleset)),
    };
    if ingress.is_none() && egress.is_none() {
        return Err(Failure::NoRuleset);
    }
    Ok(Rulesets::new(ingress, egress))
}

fn read(source: &Source) -> Result<Compiled, Failure> {
    let (text, name) = match source {
        Source::Text(text, name) => (text.clone(), (*name).to_owned()),
        Source::File(path) => {
            let text =
                read_file(path).map_err(|error| Failure::File { path: path.clone(), error })?;
            (text, path.display().to_string())
        }
    };
    compile(&text).map_err(|diagnostic| Failure::Ruleset { name, diagnostic: Box::new(diagnostic) })
}

/// Reads a file, but no more of it than tells that it is too long.
fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(ruleset::MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > ruleset::MAX_TEXT {
        // Where it was cut, half a character may be left; the length is refused all the same.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes to stderr. Nobody may be listening any more, which changes nothing.
fn print_line(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn check(settings: &Settings) -> Result<(), Failure> {
    let rulesets = rulesets(settings)?;
    let mut out = io::stdout().lock();
    for (hook, HookRules { packets, .. }) in rulesets.by_hook() {
        for warning in &packets.warnings {
            print_line(warning);
        }
        let rules = &packets.ruleset.rules;
        writeln!(out, "# {hook}: {} rule{}", rules.len(), if rules.len() == 1 { "" } else { "s" })?;
        write!(out, "{}", packets.ruleset)?;
    }
    Ok(())
}

fn load(settings: &Settings, log: Log) -> Result<(), Failure> {
    let rulesets = rulesets(settings)?;
    for (_, HookRules { packets, .. }) in rulesets.by_hook() {
        packets.warnings.iter().for_each(print_line);
    }
    for (hook, subject, compiled) in rulesets.filters() {
        let Some(Compiled { ruleset, tables, .. }) = compiled else { continue };
        for rule in &ruleset.rules {
            log.debug(format_args!("{}: {rule}", subject.on(hook)));
        }
        log.debug(format_args!(
            "{}: {} lookup nodes, {} rows",
            subject.on(hook),
            tables.nodes.len(),
            tables.rows.len()
        ));
    }
    if let Some(name) = &settings.netns {
        netns::enter(name)?;
    }
    // Kernels before 5.11 count maps as locked memory. Where the limit may not be raised, the map
    // that does not fit will say so.
    let limit = Resource::RLIMIT_MEMLOCK;
    let _ = setrlimit(limit, libc::RLIM_INFINITY, libc::RLIM_INFINITY)
        .or_else(|_| getrlimit(limit).and_then(|(_, hard)| setrlimit(limit, hard, hard)));

    let mut netlink = Netlink::open().map_err(Failure::Netlink)?;
    let mut attempt = 1;
    let (interfaces, notices) = loop {
        match attach(&mut netlink, &rulesets, settings) {
            Ok(done) => break done,
            Err(error) if error.may_pass() && attempt < settings.attempts => {
                log.say(format_args!(
                    "attempt {attempt} of {}: {error}; next in {:?}",
                    settings.attempts, settings.retry_delay
                ));
                attempt += 1;
                thread::sleep(settings.retry_delay);
            }
            Err(error) => return Err(error.into()),
        }
    };
    log.notices(&notices);
    for (hook, HookRules { packets, .. }) in rulesets.by_hook() {
        log.notices(&offload::gro_notices(&mut netlink, &interfaces, hook, &packets.ruleset));
    }
    for Interface { name, .. } in &interfaces {
        for (hook, subject, compiled) in rulesets.filters() {
            let Some(compiled) = compiled else { continue };
            let (place, count) = (subject.on(hook), compiled.ruleset.rules.len());
            log.say(format_args!("attached to {name} {place}, rules: {count}"));
        }
    }
    Ok(())
}

/// Attaches the rulesets to the interfaces that the settings name, while nobody else changes them.
/// Between two attempts somebody else may.
fn attach(
    netlink: &mut Netlink,
    rulesets: &Rulesets,
    settings: &Settings,
) -> Result<(Vec<Interface>, Vec<Notice>), AttachError> {
    let _lock = Lock::take(lock::PATIENCE)?;
    let interfaces = attach::select(netlink, &settings.interfaces)?;
    let notices = attach::attach(netlink, &interfaces, rulesets, settings.offload)?;
    Ok((interfaces, notices))
}

fn print(attached: &[show::Attached], json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, attached).map_err(io::Error::from)?;
        writeln!(out)?;
    } else if attached.is_empty() {
        writeln!(out, "nothing is attached")?;
    } else {
        for attached in attached {
            write!(out, "{attached}")?;
        }
    }
    Ok(())
}
