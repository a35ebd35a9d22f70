//! `softmax completions`: what a shell completes after `softmax`.

use clap::value_parser;
use clap_complete::{Shell, generate};

use crate::failure::Failure;
use crate::{command, stdout};

/// Prints a script that completes commands, options and their values in a shell.
///
/// For bash: softmax completions bash > ~/.local/share/bash-completion/completions/softmax
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL", value_parser = value_parser!(Shell))]
    shell: Shell,
}

impl Completions {
    /// Prints it.
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut command(), "softmax", &mut script);
        stdout::print_text(&String::from_utf8_lossy(&script))
    }
}
