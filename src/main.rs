//! Command line → verb → exit code.

use std::io::Write;

fn main() {
    let code = tripline::cli::main(std::env::args_os());
    let _ = std::io::stdout().flush();
    // Clients that a stop did not wait for still have threads. Handlers that run at an ordinary exit take the TLS library away
    // under them, and the process would end with a signal instead of its exit code. All that is to be kept is kept by now.
    // SAFETY: no preconditions; nothing runs after it.
    unsafe { libc::_exit(code.into()) }
}
