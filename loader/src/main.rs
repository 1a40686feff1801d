//! `sfunnel-loader`: see `--help`.

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    match loader::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be listening any more; the exit status says enough.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}
