//! `sfunnel-loader`: see `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match loader::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
