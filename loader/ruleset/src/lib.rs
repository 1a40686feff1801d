//! The sfunnel rule language: rule text -> AST -> tables.
//!
//! ```text
//! ip daddr 192.0.2.1 tcp dport { 443, 8080 } actions funnel tcp dport 80 sport 540
//! ```
//!
//! [`compile`] is the one function that decides whether a ruleset is good. The webhook and the
//! loader both call it, so what the webhook admits the loader accepts. The crate does no I/O and
//! knows neither BPF nor Kubernetes.
#![forbid(unsafe_code)]

pub mod ast;
mod axes;
pub mod contract;
mod diagnostic;
mod entry;
mod interfaces;
mod lexer;
mod parser;
mod print;
mod quotes;
mod shadow;
mod tables;
mod translation;

use diagnostic::Places;

pub use ast::Ruleset;
pub use diagnostic::{Diagnostic, Kind, Level};
pub use interfaces::{InterfaceError, parse_interfaces};
pub use parser::parse;
pub use quotes::quotes;
pub use tables::Tables;

/// Bytes of a ruleset, at the most: all annotations of an object together may have no more
/// (`TotalAnnotationSizeLimitB` in Kubernetes' apimachinery).
pub const MAX_TEXT: usize = 256 << 10;

/// Bytes of a ruleset that fit in an environment variable, at the most. Linux takes strings of up
/// to 128 KiB (`MAX_ARG_STRLEN`), which have to hold the variable's name, `=` and a NUL as well.
pub const MAX_ENV_TEXT: usize = (128 << 10) - "SFUNNEL_EGRESS_RULESET=".len() - 1;

/// A ruleset that can be loaded.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The rules, as they were understood. Its `Display` is the canonical text.
    pub ruleset: Ruleset,
    /// What the BPF maps will hold.
    pub tables: Tables,
    /// What is accepted but can't be what the author meant.
    pub warnings: Vec<Diagnostic>,
}

/// Compiles the text of a ruleset.
///
/// # Errors
///
/// The first mistake, with its place in the text.
pub fn compile(text: &str) -> Result<Compiled, Diagnostic> {
    let parsed = parse(text)?;
    let rules = &parsed.ruleset.rules;
    let axes: Vec<_> = rules.iter().map(axes::rule_axes).collect();
    let too_complex = |kind| {
        // No rule alone is to blame; the largest one is the first to look at.
        let sizes = axes.iter().map(|axes| axes.iter().map(Vec::len).sum::<usize>());
        let largest = sizes.zip(&parsed.rules).max_by_key(|&(size, _)| size);
        Diagnostic::new(kind, text, largest.map_or(0..0, |(_, span)| span.clone()))
    };
    let collision = translation::collision(rules, &axes, text.len());
    if let Some((first, second)) = collision.map_err(too_complex)? {
        let kind = Kind::Collision(Places::new(text).find(parsed.rules[first].start).0);
        return Err(Diagnostic::new(kind, text, parsed.actions[second].clone()));
    }
    let tables = Tables::build(&parsed.ruleset, &axes).map_err(too_complex)?;
    let mut warnings = shadow::find(&axes, text.len());
    warnings.extend(translation::doubtful(rules, &axes));
    warnings.sort_by_key(|&(number, _)| number);
    let mut places = Places::new(text);
    let warnings = warnings
        .into_iter()
        .map(|(number, kind)| Diagnostic::at(kind, &mut places, parsed.rules[number].clone()))
        .collect();
    Ok(Compiled { ruleset: parsed.ruleset, tables, warnings })
}
