//! What is attached where, and its counters.

use std::error::Error;
use std::fmt;
use std::io;

use abi::{Counter, Reason, SourceChunk, map_name};
use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::loaded_programs;
use serde::Serialize;

use crate::netlink::{Hook, Interface, Netlink};
use crate::object::Value;
use crate::ours::Subject;

/// One attached program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The interface's name.
    pub interface: String,
    /// Where on it.
    pub hook: Hook,
    /// What it looks at.
    #[serde(rename = "for")]
    pub subject: Subject,
    /// The number of the BPF program.
    pub program: u32,
    /// Its rules in order.
    pub rules: Vec<Rule>,
    /// Packets that a rule was not carried out on, by reason.
    pub not_done: Vec<NotDone>,
}

/// A rule, and what it was carried out on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Canonical text.
    pub rule: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on, as they arrived.
    pub bytes: u64,
}

/// A reason, and how often it was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotDone {
    /// One of [`Reason`]'s labels.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
}

/// Why the kernel's state can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// rtnetlink.
    #[error("can't read {what} from the kernel: {error}")]
    Netlink {
        /// What was asked.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The maps of programs that another process loaded.
    #[error("attached to {places}; the rules and counters can't be read: {error}")]
    Maps {
        /// Interfaces, hooks and programs.
        places: String,
        /// What went wrong with the last of them.
        error: String,
    },
}

/// Everything of ours on `interfaces`.
///
/// # Errors
///
/// See [`ShowError`].
pub fn show(netlink: &mut Netlink, interfaces: &[Interface]) -> Result<Vec<Attached>, ShowError> {
    let mut shown = Vec::new();
    let mut closed = Vec::new();
    let mut last_error = String::new();
    for interface in interfaces {
        for hook in Hook::BOTH {
            let filters = netlink
                .filters(interface.index, hook)
                .map_err(|error| ShowError::Netlink { what: "the list of filters", error })?;
            for subject in Subject::ALL {
                let Some(program) = subject.find(&filters).and_then(|ours| ours.program) else {
                    continue;
                };
                let interface = interface.name.clone();
                match read_maps(program) {
                    Ok((rules, not_done)) => {
                        shown.push(Attached { interface, hook, subject, program, rules, not_done });
                    }
                    Err(error) => {
                        let place = subject.on(hook);
                        closed.push(format!("{interface} {place} (BPF program {program})"));
                        last_error = error;
                    }
                }
            }
        }
    }
    if closed.is_empty() {
        Ok(shown)
    } else {
        Err(ShowError::Maps { places: closed.join(", "), error: last_error })
    }
}

/// An error with its causes, and with the privilege that is missing.
fn text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.raw_os_error() == Some(libc::EPERM)
        {
            text += "; CAP_SYS_ADMIN is needed";
        }
        cause = error.source();
    }
    text
}

/// The rules and the counters of a program, out of its maps.
fn read_maps(program: u32) -> Result<(Vec<Rule>, Vec<NotDone>), String> {
    let mut ids = None;
    let mut refused = "it has been replaced just now".to_owned();
    for info in loaded_programs() {
        match info {
            Ok(info) if info.id() == program => {
                ids = Some(info.map_ids().map_err(|e| text(&e))?.unwrap_or_default());
            }
            Ok(_) => {}
            // Programs come and go; only if ours is not found does it matter.
            Err(error) => refused = text(&error),
        }
    }
    let ids = ids.ok_or(refused)?;
    let (mut source, mut counters, mut reasons) = (None, None, None);
    for id in ids {
        let map = MapData::from_id(id).map_err(|e| text(&e))?;
        let info = map.info().map_err(|e| text(&e))?;
        match info.name_as_str() {
            Some(map_name::SOURCE) => source = Some(map),
            Some(map_name::RULE_COUNTERS) => counters = Some(map),
            Some(map_name::REASONS) => reasons = Some(map),
            _ => {}
        }
    }
    let (Some(source), Some(counters), Some(reasons)) = (source, counters, reasons) else {
        return Err("it has not the maps of this version".into());
    };
    let source =
        Array::<_, Value<SourceChunk>>::try_from(Map::Array(source)).map_err(|e| text(&e))?;
    let counters = PerCpuArray::<_, Value<Counter>>::try_from(Map::PerCpuArray(counters))
        .map_err(|e| text(&e))?;
    let reasons =
        PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(reasons)).map_err(|e| text(&e))?;

    let mut canonical = Vec::new();
    for chunk in source.iter() {
        canonical.extend(chunk.map_err(|e| text(&e))?.0);
    }
    let canonical = String::from_utf8(canonical).map_err(|e| text(&e))?;
    let mut rules = Vec::new();
    for (index, rule) in (0..).zip(canonical.trim_end_matches('\0').lines()) {
        let values = counters.get(&index, 0).map_err(|e| text(&e))?;
        let sum = |field: fn(&Counter) -> u64| values.iter().map(|Value(c)| field(c)).sum();
        rules.push(Rule {
            rule: rule.to_owned(),
            packets: sum(|counter| counter.packets),
            bytes: sum(|counter| counter.bytes),
        });
    }
    let mut not_done = Vec::new();
    for &reason in Reason::ALL {
        let values = reasons.get(&(reason as u32), 0).map_err(|e| text(&e))?;
        not_done.push(NotDone { reason: reason.label(), packets: values.iter().sum() });
    }
    Ok((rules, not_done))
}

impl fmt::Display for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.subject.on(self.hook);
        writeln!(f, "{} {place} (BPF program {})", self.interface, self.program)?;
        writeln!(f, "  {:>12} {:>14}  rule", "packets", "bytes")?;
        for Rule { rule, packets, bytes } in &self.rules {
            writeln!(f, "  {packets:>12} {bytes:>14}  {rule}")?;
        }
        for NotDone { reason, packets } in self.not_done.iter().filter(|n| n.packets > 0) {
            writeln!(f, "  {packets:>12} {:>14}  not done: {reason}", "")?;
        }
        Ok(())
    }
}
