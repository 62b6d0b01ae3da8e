//! `ringback completions` and `ringback man`: what shells and `man` know of the command line, made from
//! the command line itself.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::out;

/// Options of `ringback completions`.
#[derive(Args)]
pub(crate) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Options of `ringback man`.
#[derive(Args)]
pub(crate) struct ManArgs {
    /// The directory, such as ~/.local/share/man/man1; it is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the script.
pub(crate) fn completions<C: CommandFactory>(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "ringback", &mut script);
    out!("{}", String::from_utf8_lossy(&script).trim_end());
    Ok(())
}

/// Writes a page for each command.
pub(crate) fn pages<C: CommandFactory>(args: &ManArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    let written = std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(C::command(), dir))
        .and_then(|()| std::fs::read_dir(dir).map(Iterator::count));
    let count = written.map_err(|error| {
        Failure::new(format!(
            "writing manual pages to {}: {error}",
            dir.display()
        ))
    })?;
    out!(
        "{} has {count} pages; `man -l {}` shows the first",
        dir.display(),
        dir.join("ringback.1").display()
    );
    Ok(())
}
