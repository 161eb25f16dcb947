//! `florin completions` and `florin man`: completion scripts and manual pages, generated from the
//! definition of the command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Arguments;
use super::destination::Destination;
use super::exit::{ExitClass, Failure};
use super::output::{print, print_error};
use super::patient::Stop;

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  florin completions bash > /usr/share/bash-completion/completions/florin
  florin completions zsh > \"${fpath[1]}/_florin\"
  florin completions fish > ~/.config/fish/completions/florin.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  florin man | man -l -
      the page of `florin` itself
  florin man /usr/local/share/man/man1
      a page for each command: man florin-start";

/// Options of `florin completions`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = COMPLETIONS_EXAMPLES)]
pub struct CompletionsArguments {
    /// Shell to write a script for
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Options of `florin man`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = MAN_EXAMPLES)]
pub struct ManArguments {
    /// Directory to write a page for each command into [default: print the page of `florin`]
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

/// Prints a script for a shell.
///
/// # Errors
///
/// Never.
pub fn run_completions(arguments: &CompletionsArguments) -> Result<(), Failure> {
    print(completions(arguments.shell).trim_end());
    Ok(())
}

/// The line of the bash script that finds the word to complete, and the lines to add after it: to
/// bash, `=` is a word of its own, and all our examples have one.
const BASH_WORDS: &str = "    prev=\"$3\"\n";
const BASH_EQUALS: &str = "    if [[ \"${prev}\" == \"=\" ]]; then
        prev=\"${COMP_WORDS[COMP_CWORD-2]}\"
    elif [[ \"${cur}\" == \"=\" ]]; then
        cur=\"\"
    fi
";

fn completions(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "florin", &mut bytes);
    let script = String::from_utf8(bytes).expect("the definitions are text");
    match shell {
        Shell::Bash => script.replacen(BASH_WORDS, &format!("{BASH_WORDS}{BASH_EQUALS}"), 1),
        _ => script,
    }
}

/// Prints a manual page, or writes all of them.
///
/// # Errors
///
/// If a page cannot be written.
///
/// # Panics
///
/// Never: memory can be written to.
pub fn run_man(arguments: &ManArguments) -> Result<(), Failure> {
    if let Some(folder) = &arguments.folder {
        let count = write_pages(folder)?;
        print_error(&format!("{count} pages written to {}", folder.display()));
        return Ok(());
    }
    let mut page = Vec::new();
    Man::new(manual()).render(&mut page).expect("memory can be written to");
    let page = String::from_utf8(page).expect("the definitions are text");
    let _ = std::io::stdout().lock().write_all(copyable(&page).as_bytes());
    Ok(())
}

/// Returns the definition without `florin help`, which needs no page.
fn manual() -> clap::Command {
    let root = Arguments::command();
    let names: Vec<String> = root.get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let root = root.disable_help_subcommand(true);
    names.into_iter().fold(root, |root, name| {
        root.mut_subcommand(name, |inner| inner.disable_help_subcommand(true))
    })
}

/// Returns a page whose examples can be copied: without hyphenation and justified lines.
fn copyable(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 100);
    for line in page.lines() {
        text.push_str(if line == ".SH EXTRA" { ".SH EXAMPLES" } else { line });
        text.push('\n');
        if line.starts_with(".TH ") {
            text.push_str(".nh\n.ad l\n");
        }
    }
    text
}

/// Writes the pages of `florin` and all its commands, and returns their number. Other files stay as
/// they are.
fn write_pages(folder: &Path) -> Result<usize, Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("{}: the pages cannot be written: {error}", folder.display());
        Failure::new(ExitClass::Error, message)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let drafts = folder.join(format!(".florin-man.{}.part", std::process::id()));
    std::fs::create_dir(&drafts).map_err(failed)?;
    let result = clap_mangen::generate_to(manual(), &drafts).map_err(failed);
    let result = result.and_then(|()| finish_pages(&drafts, folder, &failed));
    let _ = std::fs::remove_dir_all(&drafts);
    result
}

/// Writes each draft as a page whose examples can be copied.
fn finish_pages(
    drafts: &Path,
    folder: &Path,
    failed: &dyn Fn(std::io::Error) -> Failure,
) -> Result<usize, Failure> {
    let mut count = 0;
    for draft in std::fs::read_dir(drafts).map_err(failed)? {
        let draft = draft.map_err(failed)?;
        let text = std::fs::read_to_string(draft.path()).map_err(failed)?;
        let path = folder.join(draft.file_name());
        let mut page = Destination::open("DIR", &path, &Stop::never())?;
        page.writer(&Stop::never())?.write_all(copyable(&text).as_bytes()).map_err(failed)?;
        page.complete().map_err(failed)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every shell gets a script that knows the commands and options.
    #[test]
    fn scripts() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = completions(shell);
            for word in ["florin", "benchmark", "addresses", "cache-accounts"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
        assert!(completions(Shell::Bash).contains(BASH_EQUALS), "clap has changed its script");
    }

    /// Goal: there is a page for every command; a folder that cannot be created is named.
    #[test]
    fn pages() {
        let folder = std::env::temp_dir().join(format!("florin-test-man-{}", std::process::id()));
        let count = write_pages(&folder).unwrap();
        let commands = Arguments::command().get_subcommands().count();
        assert!(count > commands, "{count} pages, {commands} commands");
        let page = std::fs::read_to_string(folder.join("florin-start.1")).unwrap();
        assert!(page.contains(".TH") && page.contains("cache\\-accounts"), "{page}");
        assert!(page.contains("\n.nh\n.ad l\n.SH NAME\n"), "{page}");
        assert!(page.contains("\n.SH EXAMPLES\n"), "{page}");
        // The second time, the pages are the same, links stay, and other files are not touched.
        let notes = folder.join("florin-notes.1");
        std::fs::write(&notes, ".TH MINE 1\n").unwrap();
        let (linked, target) = (folder.join("florin-start.1"), folder.join("elsewhere"));
        std::fs::rename(&linked, &target).unwrap();
        std::os::unix::fs::symlink("elsewhere", &linked).unwrap();
        assert_eq!(write_pages(&folder).unwrap(), count);
        assert_eq!(std::fs::read_to_string(&notes).unwrap(), ".TH MINE 1\n");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), page);
        assert!(std::fs::symlink_metadata(&linked).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), count + 2);
        std::fs::remove_dir_all(&folder).unwrap();
        let failure = write_pages(Path::new("/dev/null/man")).unwrap_err();
        assert!(failure.message.starts_with("/dev/null/man: "), "{failure}");
    }
}
