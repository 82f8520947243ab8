//! All sections, or some, onto the page.

use std::io::{Write, stderr};
use std::path::PathBuf;

use crate::results::Results;
use crate::round::Servers;
use crate::sections::{self, Kind};
use crate::{Error, goals, page};

/// Everything there is to measure, onto a page
#[derive(clap::Args)]
pub(crate) struct Run {
    /// Fewer and shorter rounds, fewer points
    #[arg(long)]
    quick: bool,
    /// Only sections whose name begins so
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The page with the markers
    #[arg(long, default_value = "docs/benchmarks.md")]
    page: PathBuf,
    /// Where plots go
    #[arg(long, default_value = "docs/benchmarks")]
    plots: PathBuf,
    /// What was measured, for the sections that are not measured again
    #[arg(long, default_value = "target/bench/results.json")]
    results: PathBuf,
    /// Measures nothing: writes the page from what was measured
    #[arg(long)]
    page_only: bool,
}

impl Run {
    pub(crate) fn run(self) -> Result<(), Error> {
        let chosen: Vec<_> =
            sections::all().into_iter().filter(|section| self.is_chosen(section.name)).collect();
        if chosen.is_empty() {
            let names: Vec<_> = sections::all().iter().map(|section| section.name).collect();
            return Err(format!("no such section; there are {}", names.join(", ")).into());
        }
        let mut results = Results::read(&self.results);
        let mut servers = Servers::default();
        for section in &chosen {
            if !self.page_only {
                let mut measured = section.measure(self.quick, &mut servers)?;
                measured.command = self.command();
                results.0.insert(section.name.to_owned(), measured);
                results.write(&self.results)?;
            }
            let Some(measured) = results.0.get(section.name) else { continue };
            if let Kind::Growth { chart, .. } = &section.kind {
                std::fs::create_dir_all(&self.plots)?;
                let file = self.plots.join(format!("{}.svg", section.name));
                std::fs::write(file, chart.svg(measured))?;
            }
            let text = section.markdown(measured);
            println!("## {}\n\n{text}", section.name);
            page::replace(&self.page, section.name, &text)?;
        }
        let goals = goals::markdown(&results);
        println!("## goals\n\n{goals}");
        page::replace(&self.page, "goals", &goals)?;
        page::replace(&self.page, "machine", &page::machine())?;
        let _ = writeln!(stderr(), "{} is written", self.page.display());
        Ok(())
    }

    fn is_chosen(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|begin| name.starts_with(begin.as_str()))
    }

    fn command(&self) -> String {
        let mut command = "scripts/bench".to_owned();
        if self.quick {
            command += " --quick";
        }
        if !self.only.is_empty() {
            command += &format!(" --only {}", self.only.join(","));
        }
        command
    }
}
