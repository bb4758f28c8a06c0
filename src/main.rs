//! Command line → verb → exit code.

fn main() -> std::process::ExitCode {
    tripline::cli::main(std::env::args_os()).into()
}
