//! The one convention of everything that changes or destroys: `--dry-run` shows what would be
//! done, `--yes` does it unasked, and otherwise somebody at a terminal is asked.

use std::io::{self, IsTerminal, Write};

use clap::ArgAction;
use clap::builder::BoolishValueParser;

use crate::failure::{Exit, Failure};

/// The flags of a command that changes something; flattened into its own.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Consent {
    /// Show what would be done, and do nothing
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) dry_run: bool,
    /// Do it without asking
    #[arg(long, short = 'y', action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pub(crate) yes: bool,
}

impl Consent {
    /// Whether to go on. `what` says what will be done, as in "delete 7 dead letters of email".
    ///
    /// Without one of the flags the question goes to stderr, and stdin must be a terminal.
    ///
    /// # Errors
    /// A usage error where there is nobody to ask, and one where the answer is no.
    pub(crate) fn ask(self, what: &str) -> Result<Go, Failure> {
        if self.dry_run {
            let _ = writeln!(io::stderr(), "would {what} (--dry-run)");
            return Ok(Go::Stop);
        }
        if self.yes {
            return Ok(Go::On);
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(format!(
                "cannot ask whether to {what}: stdin is no terminal"
            ))
            .with_help("--yes does it unasked, --dry-run shows what would be done"));
        }
        let _ = write!(io::stderr(), "{what}? [y/N] ");
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::failed("cannot read the answer").because(&error))?;
        if is_yes(&answer) { Ok(Go::On) } else { Err(refused()) }
    }
}

/// What to do after the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    /// It was only to be shown.
    Stop,
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

fn refused() -> Failure {
    let failure = Failure::failed("nothing was done: the answer was not yes");
    debug_assert_eq!(failure.exit, Exit::Failed);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "Y", " yes \r\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "no", "yess", "ja"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }

    #[test]
    fn the_flags_answer_for_the_user() {
        let ask = |dry_run, yes| Consent { dry_run, yes }.ask("delete 7 dead letters");
        assert_eq!(ask(false, true).expect("no question"), Go::On);
        assert_eq!(ask(true, false).expect("no question"), Go::Stop);
        assert_eq!(ask(true, true).expect("no question"), Go::Stop, "the careful one wins");
    }
}
