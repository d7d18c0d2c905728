//! The program `margay`.

fn main() -> std::process::ExitCode {
    control::cli::main()
}
