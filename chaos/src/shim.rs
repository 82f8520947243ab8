//! The library that is loaded into a server: it notes what of a file was synced, slows down or
//! refuses what is written, and has its clock go wrong. Compiled where there is a compiler.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;
use crate::node::Node;

const SOURCE: &str = include_str!("../shim/fsyncshim.c");

/// The compiled library.
pub(crate) struct Shim(PathBuf);

impl Shim {
    /// Compiles it into the folder of the run; else says why it is not there.
    pub(crate) async fn build(folder: &Path) -> std::result::Result<Self, String> {
        let (source, library) = (folder.join("fsyncshim.c"), folder.join("fsyncshim.so"));
        fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        compiler.args(["-ldl", "-lpthread"]).stdin(Stdio::null());
        match compiler.output().await {
            Ok(output) if output.status.success() => {
                library.canonicalize().map(Self).map_err(|error| error.to_string())
            }
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("there is no C compiler: {error}")),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

/// Cuts the files of a dead server to what it had synced, as a power loss does; gives the bytes
/// that are gone.
pub(crate) fn lose_power(node: &Node) -> Result<u64> {
    let (mut gone, mut is_noted, mut cuts) = (0, false, Vec::new());
    for entry in fs::read_dir(node.path("appendonlydir"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".incr.aof") {
            continue;
        }
        let noted = fs::read_to_string(node.path(&format!("{name}.synced"))).unwrap_or_default();
        is_noted |= !noted.is_empty();
        let synced: u64 = noted.trim().parse().unwrap_or(0);
        let length = fs::metadata(&path)?.len();
        if length > synced {
            cuts.push((path, synced));
            gone += length - synced;
        }
    }
    // To cut what was synced would be no power loss.
    if !is_noted {
        return Err("nothing was noted of what was synced".into());
    }
    for (path, synced) in cuts {
        fs::OpenOptions::new().write(true).open(path)?.set_len(synced)?;
    }
    Ok(gone)
}

/// Tells the shim of a server what to do from now on: how long each sync takes, or that nothing
/// can be written.
pub(crate) fn slow_syncs(node: &Node, millis: u64) -> Result<()> {
    Ok(fs::write(node.path("shim.delay"), millis.to_string())?)
}

pub(crate) fn fill_disk(node: &Node, is_full: bool) -> Result<()> {
    let path = node.path("shim.full");
    if is_full {
        fs::write(path, "1")?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// How far the clock of a server is ahead from now on, in microseconds.
pub(crate) fn set_clock(node: &Node, ahead: i64) -> Result<()> {
    // In place: the server has it mapped.
    let file = fs::OpenOptions::new().write(true).open(node.path("shim.clock"))?;
    Ok(file.write_all_at(&ahead.to_ne_bytes(), 0)?)
}

/// How many syncs it slowed down, and writes it refused, since the server started.
pub(crate) fn hits(node: &Node) -> u64 {
    let text = fs::read_to_string(node.path("shim.hits")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
