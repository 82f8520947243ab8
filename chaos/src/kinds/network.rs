//! What a proxy does to connections and to what passes over them.

use std::time::Duration;

use async_trait::async_trait;
use fastrand::Rng;

use super::{About, Class, Kind};
use crate::Result;
use crate::args::Mode;
use crate::load::BODY;
use crate::proxy::{Deed, Flow, Plan};
use crate::site::{Line, Site};

/// A word of a request stands between two line ends; in the text of a script it does not.
const XADD: &str = "\r\nXADD\r\n";
const XREADGROUP: &str = "\r\nXREADGROUP\r\n";
const XACK: &str = "\r\nXACK\r\n";
/// The settle script alone is given the key of the dead letters.
const SETTLE: &str = ":dead:";
/// Of the log, where an answer brings events.
const EVENTS: &str = "chaos:0";
/// How long the answers that are to be hit may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a dead connection may take to be found.
const FOUND: Duration = Duration::from_secs(15);

/// Answers that are lost after their request was applied.
pub(super) fn lost_replies() -> Vec<Box<dyn Kind>> {
    let lose = |name, row, line, request, answer| -> Box<dyn Kind> {
        let plan = Plan { request, answer, deed: Deed::Lose, left: 3 };
        Box::new(Hit { name, row, class: Class::ReplyLost, line, plan })
    };
    vec![
        lose("append-reply-lost", 16, Line::Publishing, XADD, ""),
        lose("read-reply-lost", 17, Line::Working, XREADGROUP, EVENTS),
        lose("ack-reply-lost", 16, Line::Working, XACK, ""),
        lose("settle-reply-lost", 16, Line::Working, SETTLE, ""),
    ]
}

pub(super) fn kinds() -> Vec<Box<dyn Kind>> {
    let spoil = |name, line, request, answer, deed| -> Box<dyn Kind> {
        let plan = Plan { request, answer, deed, left: 2 };
        Box::new(Hit { name, row: 26, class: Class::Network, line, plan })
    };
    let flow = |name, row, flow: Way, lasts| -> Box<dyn Kind> {
        Box::new(Flowing { name, row, flow, lasts, line: Line::Publishing })
    };
    let cut =
        |name, row, way| -> Box<dyn Kind> { Box::new(Cut { name, row, way, lines: Vec::new() }) };
    vec![
        spoil("publisher-answer-spoiled", Line::Publishing, XADD, "", Deed::Spoil),
        spoil("worker-answer-spoiled", Line::Working, XREADGROUP, EVENTS, Deed::Spoil),
        spoil("event-bits-flipped", Line::Working, XREADGROUP, BODY, Deed::Flip),
        cut("connections-cut", 22, CutWay::Cut),
        cut("connections-reset", 22, CutWay::Reset),
        cut("connections-refused", 22, CutWay::Refuse),
        cut("half-open", 21, CutWay::HalfOpen),
        flow("packets-dropped", 21, Way::both(Flow::Hold), (500, 4_000)),
        flow(
            "answers-dropped",
            23,
            Way { to_server: Flow::Pass, to_client: Flow::Hold },
            (500, 4_000),
        ),
        flow(
            "requests-dropped",
            23,
            Way { to_server: Flow::Hold, to_client: Flow::Pass },
            (500, 4_000),
        ),
        flow("latency", 24, Way::both(Flow::Delay(Duration::from_millis(150))), (500, 2_000)),
        flow("bytes-chopped", 25, Way::both(Flow::Chop), (300, 1_000)),
        Box::new(Swizzle { order: Vec::new(), hits: 0 }),
        flow("slow-line", 24, Way::both(Flow::Trickle(10_000)), (500, 2_000)),
    ]
}

/// Single answers are hit.
struct Hit {
    name: &'static str,
    row: u8,
    class: Class,
    line: Line,
    plan: Plan,
}

#[async_trait]
impl Kind for Hit {
    fn about(&self) -> About {
        About::new(self.name, self.row, self.class, 0..50)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let left = dice.usize(1..=self.plan.left);
        site.line(self.line)?.hit(Plan { left, ..self.plan });
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let line = self.line;
        let is_done = |site: &Site| site.line(line).is_ok_and(|proxy| proxy.left() == 0);
        site.until(PATIENCE, is_done).await?;
        let proxy = site.line(self.line)?;
        proxy.pass();
        Ok(proxy.hits())
    }
}

#[derive(Clone, Copy)]
struct Way {
    to_server: Flow,
    to_client: Flow,
}

impl Way {
    const fn both(flow: Flow) -> Self {
        Self { to_server: flow, to_client: flow }
    }
}

/// Everything of a path is held up.
struct Flowing {
    name: &'static str,
    row: u8,
    flow: Way,
    lasts: (u64, u64),
    line: Line,
}

#[async_trait]
impl Kind for Flowing {
    fn about(&self) -> About {
        About::new(self.name, self.row, Class::Network, self.lasts.0..self.lasts.1)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        self.line = either(dice);
        site.line(self.line)?.flow(self.flow.to_server, self.flow.to_client);
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        let proxy = site.line(self.line)?;
        proxy.pass();
        Ok(proxy.hits())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CutWay {
    Cut,
    Reset,
    Refuse,
    HalfOpen,
}

/// Connections end, or only seem to live.
struct Cut {
    name: &'static str,
    row: u8,
    way: CutWay,
    lines: Vec<Line>,
}

#[async_trait]
impl Kind for Cut {
    fn about(&self) -> About {
        let lasts = if self.way == CutWay::Refuse { 100..1_500 } else { 0..100 };
        About::new(self.name, self.row, Class::Network, lasts)
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        self.lines = match dice.u8(..3) {
            0 => vec![Line::Publishing, Line::Working],
            1 => vec![Line::Publishing],
            _ => vec![Line::Working],
        };
        for line in &self.lines {
            let proxy = site.line(*line)?;
            match self.way {
                CutWay::Cut => proxy.cut(false),
                CutWay::Reset => proxy.cut(true),
                CutWay::Refuse => proxy.refuse(),
                CutWay::HalfOpen => proxy.half_open(),
            }
        }
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        if self.way == CutWay::HalfOpen {
            let lines = self.lines.clone();
            let is_found = |site: &Site| {
                lines.iter().all(|line| site.line(*line).is_ok_and(|proxy| proxy.is_found()))
            };
            if !site.until(FOUND, is_found).await? {
                site.history.note("a half-open connection was not given up");
            }
        }
        let mut hits = 0;
        for line in &self.lines {
            let proxy = site.line(*line)?;
            proxy.pass();
            hits += proxy.hits();
        }
        Ok(hits)
    }
}

/// Every path stops, one after the other, and they go on in another order.
struct Swizzle {
    order: Vec<Path>,
    hits: u64,
}

#[derive(Clone, Copy)]
enum Path {
    Line(Line),
    Server,
}

const STEP: Duration = Duration::from_millis(200);

#[async_trait]
impl Kind for Swizzle {
    fn about(&self) -> About {
        About::new("swizzle", 70, Class::Network, 300..1_500)
    }

    fn unavailable(&self, site: &Site) -> Option<String> {
        (site.mode == Mode::Sentinel).then(|| "the master would be taken for down".to_owned())
    }

    async fn inject(&mut self, site: &mut Site, dice: &mut Rng) -> Result<()> {
        let mut paths = [Path::Line(Line::Publishing), Path::Line(Line::Working), Path::Server];
        dice.shuffle(&mut paths);
        for path in paths {
            match path {
                Path::Line(line) => site.line(line)?.flow(Flow::Hold, Flow::Hold),
                Path::Server => site.server().freeze()?,
            }
            site.pass(STEP).await?;
        }
        dice.shuffle(&mut paths);
        self.order = paths.to_vec();
        Ok(())
    }

    async fn heal(&mut self, site: &mut Site) -> Result<u64> {
        for path in std::mem::take(&mut self.order) {
            match path {
                Path::Line(line) => {
                    let proxy = site.line(line)?;
                    self.hits += proxy.hits();
                    proxy.pass();
                }
                Path::Server => site.server().thaw()?,
            }
            site.pass(STEP).await?;
        }
        Ok(self.hits)
    }
}

fn either(dice: &mut Rng) -> Line {
    if dice.bool() { Line::Publishing } else { Line::Working }
}
