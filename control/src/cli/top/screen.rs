//! How the board looks.

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use super::board::Board;

/// Draws the board over the whole of a frame.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board) {
    let rows = |count: usize| Constraint::Length(u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2));
    let areas = Layout::vertical([
        Constraint::Length(2),
        rows(board.workers.len()),
        rows(board.ports.len()),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [head, workers, ports, drops, foot] = areas.areas(frame.area());
    let (live, capacity) = board.flows;
    frame.render_widget(
        Line::from(format!("margay    connections {live} of {capacity}")).bold(),
        head,
    );
    frame.render_widget(worker_table(board), workers);
    frame.render_widget(port_table(board), ports);
    frame.render_widget(drop_table(board), drops);
    let foot_line = match (&board.trouble, board.paused) {
        (Some(trouble), _) => Line::from(trouble.as_str()).fg(Color::Red),
        (None, true) => Line::from("paused: p goes on, q ends").fg(Color::Yellow),
        (None, false) => Line::from("q ends, p pauses").dim(),
    };
    frame.render_widget(foot_line, foot);
}

/// The board as lines of text, of at most so many columns and rows.
pub(super) fn text(board: &Board, (columns, rows): (u16, u16)) -> String {
    let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(columns, rows));
    let Ok(_) = terminal.draw(|frame| draw(frame, board));
    let buffer = terminal.backend().buffer();
    let line = |row: u16| -> String { (0..columns).map(|column| buffer[(column, row)].symbol()).collect() };
    // The last row is about keys.
    let lines = (0..rows - 1).map(|row| line(row).trim_end().to_owned());
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.join("\n") + "\n\n"
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Style::new().reversed())
}

fn worker_table(board: &Board) -> Table<'_> {
    let rows = board.workers.iter().map(|worker| {
        let load = Cell::from(format!("{:.1} %", worker.load_percent));
        let load = if worker.load_percent > 90.0 {
            load.fg(Color::Red)
        } else {
            load
        };
        Row::new([
            Cell::from(worker.worker.to_string()),
            Cell::from(worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string())),
            load,
            Cell::from(worker.state.as_str()),
            Cell::from(worker.queues.join(" ")),
        ])
    });
    let widths = [8, 6, 9, 10]
        .map(Constraint::Length)
        .into_iter()
        .chain([Constraint::Fill(1)]);
    Table::new(rows, widths).header(header(["worker", "core", "load", "state", "queues"]))
}

fn port_table(board: &Board) -> Table<'_> {
    let rows = board.ports.iter().map(|port| {
        let state = match port.is_up {
            true => Cell::from("up").fg(Color::Green),
            false => Cell::from("down").fg(Color::Red),
        };
        let figures = [port.rx_packets, port.rx_bits, port.tx_packets, port.tx_bits, port.drops];
        let figures = figures.map(|figure| Cell::from(scaled(figure)));
        Row::new([Cell::from(port.name.as_str()), state].into_iter().chain(figures))
    });
    let widths = [Constraint::Fill(1), Constraint::Length(6)].into_iter();
    let widths = widths.chain([Constraint::Length(12); 5]);
    let names = [
        "port",
        "state",
        "rx packet/s",
        "rx bit/s",
        "tx packet/s",
        "tx bit/s",
        "drops/s",
    ];
    Table::new(rows, widths).header(header(names))
}

fn drop_table(board: &Board) -> Table<'_> {
    let rows = board.drops.iter().map(|drop| {
        let rate = Cell::from(scaled(drop.rate));
        let rate = if drop.rate > 0.0 { rate.fg(Color::Yellow) } else { rate };
        Row::new([
            Cell::from(drop.name.as_str()),
            rate,
            Cell::from(scaled(drop.total as f64)),
            Cell::from(drop.sentence.as_str()),
        ])
    });
    let widths = [32, 10, 10]
        .map(Constraint::Length)
        .into_iter()
        .chain([Constraint::Fill(1)]);
    Table::new(rows, widths).header(header(["dropped", "per s", "in all", "because"]))
}

/// A figure with three digits and the prefix of its thousands.
fn scaled(figure: f64) -> String {
    let (mut figure, mut prefixes) = (figure, ["", " k", " M", " G", " T"].into_iter());
    let mut prefix = prefixes.next().unwrap_or_default();
    while figure >= 999.5
        && let Some(next) = prefixes.next()
    {
        (figure, prefix) = (figure / 1000.0, next);
    }
    match figure {
        0.0 => "0".to_owned(),
        _ if figure < 10.0 && !prefix.is_empty() => format!("{figure:.2}{prefix}"),
        _ if figure < 100.0 && !prefix.is_empty() => format!("{figure:.1}{prefix}"),
        _ => format!("{figure:.0}{prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::{DropRow, PortRow};
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let told = [0.0, 7.0, 999.0, 1000.0, 12_345.0, 999_499.0, 999_500.0, 3.14e9].map(scaled);
        let wanted = ["0", "7", "999", "1.00 k", "12.3 k", "999 k", "1.00 M", "3.14 G"];
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_board_says_who_is_down_and_what_is_lost() {
        let port = |name: &str, is_up, rx_packets| PortRow {
            name: name.to_owned(),
            is_up,
            rx_packets,
            rx_bits: 8000.0,
            tx_packets: 0.0,
            tx_bits: 0.0,
            drops: 0.0,
        };
        let board = Board {
            ports: vec![port("left", true, 2_500_000.0), port("right", false, 0.0)],
            workers: vec![],
            drops: vec![DropRow {
                name: "route/no-route".to_owned(),
                sentence: "There is no route.".to_owned(),
                rate: 12.0,
                total: 4000,
            }],
            flows: (3, 64),
            paused: false,
            trouble: None,
        };
        let text = text(&board, (100, 20));
        let line = |word: &str| {
            text.lines()
                .find(|line| line.starts_with(word))
                .unwrap_or_else(|| panic!("{text}"))
        };
        assert!(line("margay").ends_with("connections 3 of 64"));
        assert!(line("left").contains("up") && line("left").contains("2.50 M") && line("left").contains("8.00 k"));
        assert!(line("right").contains("down"));
        assert!(line("route/no-route").contains("12") && line("route/no-route").ends_with("There is no route."));
    }
}
