//! `top`: who talks to whom right now, how much, and what fails: a view on the terminal, or the table once. `model.rs` adds up what is told,
//! `app.rs` is the view without a terminal, `draw.rs` how it looks.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;

use super::access::{AccessArgs, SelectorArgs, Source};
use super::error::{Error, unwritten};
use super::filters::FilterArgs;
use super::screen::{Output, Screen, ScreenArgs};
use app::App;
use feed::News;
use order::Order;
use terminal::{Held, watch_signals};
use view::View;

pub(super) use list::TopList;

mod app;
mod cursor;
mod draw;
mod ends;
mod feed;
mod list;
mod model;
mod order;
mod rates;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    of: SelectorArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    screen: ScreenArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// How often it is asked what is open
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Print the table once, after an interval; this is also what happens where there is no terminal
    #[arg(long)]
    once: bool,
    /// Without the line that names the columns
    #[arg(long)]
    no_headers: bool,
}

/// For the second answer of whoever is slow.
const GRACE: Duration = Duration::from_secs(5);

/// An answer of 10,000 flows is some 10 MB, which nobody wants more often.
fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval >= Duration::from_millis(500) => Ok(interval),
        Ok(_) => Err("it must be 500ms at least".to_owned()),
        Err(_) => Err("it must be a time such as 2s".to_owned()),
    }
}

impl Top {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<(), Error> {
        let sources = self.access.sources(&self.of)?;
        sources.tell();
        self.run_on(sources.all, out)
    }

    fn run_on(&self, targets: Vec<Source>, out: &mut impl Write) -> Result<(), Error> {
        let screen = self.screen.stdout();
        let count = targets.len();
        let (sender, news) = feed::start(targets, &self.filter.query(), self.interval)?;
        let is_live = screen.is_terminal && io::stdin().is_terminal();
        if self.once || !is_live || self.output != Output::Table {
            drop(sender);
            return self.print_once(&news, count, &screen, out);
        }
        let unusable = |source| Error::Terminal { source };
        watch_signals(sender).map_err(unusable)?;
        let mut app = App::new(count, screen.is_coloured);
        let mut held = Held::take().map_err(unusable)?;
        held.show(&mut View::new(), &mut app, &news).map_err(unusable)
    }

    fn print_once(
        &self,
        news: &Receiver<News>,
        targets: usize,
        screen: &Screen,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        let mut view = View::new();
        let mut app = App::new(targets, screen.is_coloured);
        let deadline = Instant::now() + self.interval + GRACE;
        while !view.is_known(targets) {
            match news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(news) => view.take(news, &mut app),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        for problem in view.problems().values() {
            eprintln!("kubectl outrigger: {problem}");
        }
        if view.problems().len() == targets {
            return Err(Error::NobodyAnswers);
        }
        let mut rows = view.model().rows(view.now());
        Order::default().sort(&mut rows);
        if let Some(syntax) = self.output.syntax() {
            let body = serde_json::to_value(TopList::of(&rows, view.now()))
                .map_err(|error| unwritten(error.into()))?;
            return screen.document(out, syntax, "TopList", &body);
        }
        let screen = Screen {
            width: screen.width.filter(|_| self.output == Output::Table),
            ..*screen
        };
        let text = match self.output {
            Output::Name => rows.iter().map(name).collect(),
            _ => list::table(&rows, &screen, !self.no_headers),
        };
        out.write_all(text.as_bytes()).map_err(unwritten)
    }
}

/// `pair/SOURCE/DESTINATION`.
fn name(row: &model::Row) -> String {
    super::columns::printable(&format!("pair/{}/{}", row.source, row.destination)) + "\n"
}
