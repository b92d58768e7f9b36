//! The terminal while the view is on it, and its return to what it was: at the end, on an error, when this process panics, and on SIGTERM and
//! SIGHUP. The one loop of the view.

use std::io::{self, Stdout, Write};
use std::panic;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, DisableMouseCapture, EnableMouseCapture, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tokio::signal::unix::{SignalKind, signal};

use super::app::{App, Next};
use super::draw::draw;
use super::feed::News;
use super::view::View;

/// Dropping it gives the terminal back.
pub(super) struct Held {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

/// A key is answered within this time, and the view is never older.
const FRAME: Duration = Duration::from_millis(250);
/// News that are taken in between two frames, so that a flood of them does not keep keys waiting.
const BATCH: usize = 4_096;

/// For the loop to end by itself: it looks four times a second.
const GRACE: Duration = Duration::from_secs(1);

impl Held {
    pub(super) fn take() -> io::Result<Self> {
        let (before, own) = (panic::take_hook(), thread::current().id());
        // The message would be lost with the screen that it is written on.
        panic::set_hook(Box::new(move |info| {
            // Another thread would wait for the lock of standard output.
            if thread::current().id() == own {
                give_back();
            }
            before(info);
        }));
        enable_raw_mode()?;
        let terminal = execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Until somebody quits.
    pub(super) fn show(&mut self, view: &mut View, app: &mut App, news: &Receiver<News>) -> io::Result<()> {
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                view.refresh(app);
                next = Instant::now() + FRAME;
            }
            self.terminal.draw(|frame| draw(app, frame))?;
            let now = Instant::now();
            if event::poll(next.saturating_duration_since(now))? && self.input(view, app)? == Next::Quit {
                return Ok(());
            }
            for _ in 0..BATCH {
                match news.try_recv() {
                    Ok(News::End) => return Ok(()),
                    Ok(news) => view.take(news, app),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
        }
    }

    /// All that has been typed meanwhile.
    fn input(&mut self, view: &View, app: &mut App) -> io::Result<Next> {
        loop {
            match event::read()? {
                Event::Key(key) if app.key(key, view.model(), view.now()) == Next::Quit => {
                    return Ok(Next::Quit);
                }
                Event::Mouse(mouse) => app.mouse(mouse, view.model()),
                Event::Resize(..) => app.resized(),
                _ => {}
            }
            if !event::poll(Duration::ZERO)? {
                return Ok(Next::Stay);
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        give_back();
    }
}

/// As far as it can be done: there is nobody to tell.
fn give_back() {
    let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = io::stdout().flush();
}

/// Tells when this process is asked to end.
pub(super) fn watch_signals(news: SyncSender<News>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut term, mut hangup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = term.recv() => {}
                _ = hangup.recv() => {}
            }
            let _ = news.try_send(News::End);
            // crossterm reads a terminal that is gone over and over, and then nobody hears of the end.
            tokio::time::sleep(GRACE).await;
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "the terminal is gone, and the main thread waits for it with the lock of standard output"
        )]
        std::process::exit(1);
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[ignore = "it wants a terminal: the next test runs it on one of its own"]
    fn panics_on_the_terminal() {
        let _held = Held::take().unwrap();
        panic!("on purpose");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let own = std::env::current_exe().unwrap();
        let test = "plugin::top::terminal::tests::panics_on_the_terminal";
        // `script` of util-linux runs it on a pseudo terminal.
        let line = format!("{} {test} --exact --ignored --nocapture; stty -a", own.display());
        let said = Command::new("script")
            .args(["-qc", &line, "/dev/null"])
            .stdin(Stdio::null())
            .env("TERM", "xterm")
            .env("RUST_BACKTRACE", "0")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?}: {text:?}"));
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"), "{text:?}");
        assert!(at("\x1b[?1049l") < at("on purpose"), "{text:?}");
        for mode in [" icanon", " echo "] {
            at(mode);
        }
    }
}
