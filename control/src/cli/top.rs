//! `margay top`: rates, drops and the load of workers, live.

mod board;
mod screen;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};

use super::client::Client;
use super::{Error, SOCKET, output};
use board::{Board, Sample};

/// How long a key may wait to be looked at.
const KEY_PAUSE: Duration = Duration::from_millis(100);
/// Columns and rows of what `--batch` prints, should there be more to show than that.
const BATCH_SIZE: (u16, u16) = (110, 60);

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Print one look after another instead of drawing on the terminal
    #[arg(short, long)]
    batch: bool,
    /// End after this many looks; needs --batch
    #[arg(short = 'n', long, value_name = "N", requires = "batch")]
    count: Option<u64>,
    /// The Unix socket of the data plane
    #[arg(long, value_name = "PATH", env = "MARGAY_SOCKET", default_value = SOCKET)]
    socket: std::path::PathBuf,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected 0.1 to 3600 seconds".to_owned())
    }
}

impl Top {
    pub(super) fn carry_out(self) -> Result<(), Error> {
        let client = Client::new(&self.socket)?;
        if self.batch {
            return self.print(&client);
        }
        if !std::io::stdout().is_terminal() {
            let sentence = "`margay top` draws on a terminal, and this is none; --batch prints instead";
            return Err(Error::Usage(sentence.to_owned()));
        }
        self.draw(&client)
    }

    fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }

    fn print(&self, client: &Client) -> Result<(), Error> {
        let mut before = Sample::take(client)?;
        let mut looks = 0;
        while self.count.is_none_or(|count| looks < count) {
            std::thread::sleep(self.pause());
            let now = Sample::take(client)?;
            output::print(&screen::text(&Board::between(&before, &now), BATCH_SIZE))?;
            before = now;
            looks += 1;
        }
        Ok(())
    }

    /// Draws until somebody has had enough. A data plane that does not answer is said to be silent, and asked again.
    fn draw(&self, client: &Client) -> Result<(), Error> {
        let mut before = Sample::take(client)?;
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, ended.clone()).map_err(output::odd)?;
        }
        // Restores the terminal after a panic, too.
        let mut terminal = ratatui::try_init().map_err(output::odd)?;
        let mut board = Board::between(&before, &before);
        let (mut next, mut paused) = (Instant::now(), false);
        let result = loop {
            if ended.load(Ordering::Relaxed) {
                break Ok(());
            }
            if !paused && Instant::now() >= next {
                next = Instant::now() + self.pause();
                match Sample::take(client) {
                    Ok(now) => {
                        board = Board::between(&before, &now);
                        before = now;
                    }
                    Err(silent) => board.trouble = Some(format!("{silent}; trying again")),
                }
            }
            board.paused = paused;
            if let Err(error) = terminal.draw(|frame| screen::draw(frame, &board)) {
                break Err(output::odd(error));
            }
            match key() {
                Ok(Some(Key::Quit)) => break Ok(()),
                Ok(Some(Key::Pause)) => paused = !paused,
                Ok(None) => {}
                Err(error) => break Err(output::odd(error)),
            }
        };
        ratatui::restore();
        result
    }
}

enum Key {
    Quit,
    Pause,
}

/// What was pressed within a moment.
fn key() -> std::io::Result<Option<Key>> {
    if !event::poll(KEY_PAUSE)? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else {
        return Ok(None);
    };
    let interrupts = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    Ok(match key.code {
        _ if interrupts => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('p' | ' ') => Some(Key::Pause),
        _ => None,
    })
}
