//! What an image would hold.

use std::fs;

use anyhow::Result;
use tests::binary;

use crate::table::{Row, Target, Unit, section};

/// Compares each binary to what its image may have.
pub fn compare(_rounds: usize) -> Result<()> {
    section("Sizes");
    for (path, most) in [(binary::loader(), 4e6), (binary::webhook(), 12e6)] {
        let name = path.file_name().unwrap_or_default().display();
        let what = format!("{name} : what its image may have");
        let size = fs::metadata(&path)?.len() as f64;
        let (ours, theirs) = (&[size], &[most]);
        Row { what: &what, ours, theirs, unit: Unit::Bytes, target: Target::AtMost(1.0) }.print();
    }
    Ok(())
}
