//! `aifb-loadgen`: the program. All of it is in the library beside it, so that fuzz targets and
//! examples can link it.

use std::process::ExitCode;

fn main() -> ExitCode {
    aifb_loadgen::main()
}
