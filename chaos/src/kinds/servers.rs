//! The server is gone, starts again, or stands still.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::Result;
use crate::args::Mode;
use crate::history::Costs;
use crate::session::Session;
use crate::site::Site;

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    vec![
        Box::new(Down { how: How::Kill, run_id: String::new() }),
        Box::new(Down { how: How::Terminate, run_id: String::new() }),
        Box::new(Down { how: How::Loading, run_id: String::new() }),
        Box::new(Down { how: How::TornTail, run_id: String::new() }),
        Box::new(Down { how: How::WhileRewriting, run_id: String::new() }),
        Box::new(Frozen),
        Box::new(Asleep),
        Box::new(Busy { stranger: None }),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Kill,
    Terminate,
    /// Starts again with a slow load.
    Loading,
    /// Starts again on a log whose last write is half there.
    TornTail,
    /// Killed while it rewrites its log.
    WhileRewriting,
}

/// The server ends and starts again.
struct Down {
    how: How,
    run_id: String,
}

#[async_trait]
impl Kind for Down {
    fn about(&self) -> About {
        let (name, row) = match self.how {
            How::Kill => ("server-killed", 1),
            How::Terminate => ("server-restarted", 1),
            How::Loading => ("server-loading", 12),
            How::TornTail => ("log-tail-torn", 7),
            How::WhileRewriting => ("server-killed-in-rewrite", 1),
        };
        About::new(name, row, Class::Server, 100..900)
    }

    fn costs(&self, site: &Site) -> Costs {
        if site.mode.has_file() { Costs::Nothing } else { Costs::Everything }
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        if site.mode == Mode::Sentinel {
            return Some("sentinels replace the master: see master-killed".to_owned());
        }
        let wants_file = matches!(self.how, How::Loading | How::TornTail | How::WhileRewriting);
        (wants_file && !site.mode.has_file()).then(|| "the server keeps no file".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        let server = site.server();
        self.run_id = server.info("run_id").await?;
        match self.how {
            How::Terminate => return server.terminate().await,
            How::WhileRewriting => {
                server.say("BGREWRITEAOF").await?;
            }
            _ => {}
        }
        server.kill().await
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let server = site.server();
        if self.how == How::TornTail {
            tear(server)?;
        }
        match self.how {
            How::Loading => {
                server.launch(&["--key-load-delay", "-10"])?;
                site.pass(Duration::from_millis(700)).await?;
                let server = site.server();
                server.until_loaded().await?;
                server.ask(&["CONFIG", "SET", "key-load-delay", "0"]).await?;
            }
            _ => server.restart(&[]).await?,
        }
        let run_id = site.server().info("run_id").await?;
        if site.mode == Mode::Replica {
            // It loads anew what the server has, and confirms nothing until it has.
            super::replicas::until_followed(site, 1).await?;
        }
        Ok(u64::from(run_id != self.run_id))
    }
}

/// Appends half a write to the log: to its last file, after a rewrite that was cut off there are
/// several, and only the last can have a torn tail.
fn tear(server: &crate::node::Node) -> Result<()> {
    let mut last = None;
    for entry in std::fs::read_dir(server.path("appendonlydir"))? {
        let path = entry?.path();
        last = last.max(number_of(&path).map(|number| (number, path)));
    }
    let (_, path) = last.ok_or("the server keeps no log")?;
    OpenOptions::new().append(true).open(path)?.write_all(b"*3\r\n$3\r\nSET\r\n$4\r\nto")?;
    Ok(())
}

/// The number of a file of the log, as in `appendonly.aof.2.incr.aof`.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".incr.aof")?.rsplit('.').next()?.parse().ok()
}

/// SIGSTOP.
struct Frozen;

#[async_trait]
impl Kind for Frozen {
    fn about(&self) -> About {
        About::new("server-frozen", 13, Class::Server, 400..4_000).stalling()
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "see master-frozen".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        site.server().freeze()
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let server = site.server();
        let was_frozen = server.is_frozen();
        server.thaw()?;
        Ok(u64::from(was_frozen))
    }
}

/// A command that takes long.
struct Asleep;

#[async_trait]
impl Kind for Asleep {
    fn about(&self) -> About {
        About::new("debug-sleep", 14, Class::Server, 0..50).stalling()
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "it would be taken for down".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let seconds = format!("{}.{}", dice.u32(0..2), dice.u32(5..10));
        let mut session = site.server().session().await?;
        session.send(&["DEBUG", "SLEEP", &seconds]).await
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        // It answers this when it is awake.
        site.server().say("PING").await?;
        Ok(1)
    }
}

/// Another client's script that does not end.
struct Busy {
    stranger: Option<Session>,
}

#[async_trait]
impl Kind for Busy {
    fn about(&self) -> About {
        About::new("script-busy", 14, Class::Server, 400..1_500)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "it would be taken for down".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, _: &mut Rng) -> Result<()> {
        let mut stranger = site.server().session().await?;
        stranger.send(&["EVAL", "while true do end", "0"]).await?;
        self.stranger = Some(stranger);
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let server = site.server();
        if let Err(error) = server.say("SCRIPT KILL").await
            && !error.to_string().contains("NOTBUSY")
        {
            return Err(error);
        }
        Ok(server.errors().await?.get("BUSY").copied().unwrap_or(0))
    }
}
