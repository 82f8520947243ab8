//! `bus-cli`, as it is installed.

fn main() -> std::process::ExitCode {
    bus_cli::main()
}
