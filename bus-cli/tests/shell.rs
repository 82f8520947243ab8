//! What `bus-cli` writes for shells and for `man`.

#[path = "cli/mod.rs"]
mod cli;
#[path = "../../tests/server/mod.rs"]
mod server;

use std::process::{Command, Stdio};

use cli::{bare, feed, run};

/// The commands, as the help lists them.
fn commands() -> Vec<String> {
    let (help, _, _) = run(&mut bare(&["--help"]));
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let (list, _) = list.split_once("\n\n").expect("options follow");
    let indented = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let names = list.lines().filter(indented).filter_map(|line| line.split_whitespace().next());
    let names: Vec<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(names.contains(&"publish".to_owned()) && names.len() >= 5, "{names:?}");
    names
}

#[test]
fn every_shell_gets_completions_that_name_each_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (script, err, code) = run(&mut bare(&["completions", shell]));
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for command in commands() {
            assert!(script.contains(&command), "{shell} does not complete {command}");
        }
        assert!(script.contains("until-end"), "{shell} does not complete flags");
    }
}

#[test]
fn bash_reads_its_completions() {
    let (script, _, _) = run(&mut bare(&["completions", "bash"]));
    let mut bash = Command::new("bash");
    let (_, err, code) = feed(bash.arg("-n").stdout(Stdio::piped()), &script);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn each_command_has_a_manual_page_that_its_parent_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("man1");
    let (_, err, code) = run(bare(&["man", "--out"]).arg(&out));
    assert_eq!((code, err.as_str()), (0, ""));
    let page = |name: &str| std::fs::read_to_string(out.join(name)).expect(name);
    let first = page("bus-cli.1");
    for command in commands() {
        assert!(page(&format!("bus-cli-{command}.1")).contains(".SH DESCRIPTION"), "{command}");
        let named = command.replace('-', "\\-");
        let listed = first.contains(&format!("bus\\-cli\\-{named}(1)"));
        assert!(listed, "{command} is not in bus-cli.1");
    }
    assert!(page("bus-cli-config-show.1").contains("effective settings"));

    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let (_, err, code) = run(bare(&["man", "--out"]).arg(&file));
    assert_eq!(code, 1);
    assert!(err.starts_with("error: cannot write manual pages to "), "{err}");
}
