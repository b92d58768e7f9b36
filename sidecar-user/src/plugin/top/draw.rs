//! Draws what there is to be seen into a frame. Only rows that are on the screen are made into text, however many there are.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::super::columns::{Layout, printable, shortened};
use super::super::paint::{Cell, Tint};
use super::super::table::{Shape, Table};
use super::super::why::render;
use super::super::words::{rate, size};
use super::app::{App, Detail, Places};
use super::order::{COLUMNS, cells, is_number};
use super::rates::WINDOW;
use crate::observe::WhyReport;

pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    // A title, the names of the columns, a row and the keys.
    if area.height < 4 || area.width < 20 {
        buffer.set_stringn(0, 0, "too small", usize::from(area.width), Style::default());
        return;
    }
    title(app, area, buffer);
    let body = Rect {
        y: 1,
        height: area.height - 2,
        ..area
    };
    match app.detail.take() {
        Some(mut detail) => {
            flows(app, &mut detail, body, buffer);
            app.detail = Some(detail);
        }
        None => pairs(app, body, buffer),
    }
    footer(app, area, buffer);
    if app.has_help {
        help(area, buffer);
    }
}

fn line(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    buffer.set_stringn(area.x, y, printable(text), usize::from(area.width), style);
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn title(app: &App, area: Rect, buffer: &mut Buffer) {
    let total = &app.total;
    let mut parts = vec![
        format!("{} pairs", total.pairs),
        format!("{} open", total.open),
        format!("{} conn/s", rate(total.rates.connections)),
        format!("{}/s", size(total.rates.bytes() as u64)),
        format!("{} failed/s", rate(total.rates.failed)),
    ];
    if app.targets > 1 {
        parts.insert(0, format!("{} nodes", app.targets));
    }
    if !app.filter.is_empty() && app.prompt.is_none() {
        parts.insert(0, format!("/{}", app.filter));
    }
    let text = format!(" outrigger top   {}", parts.join("   "));
    line(buffer, area, 0, &text, bold());
    let state = match app.is_paused {
        true => " PAUSED ".to_owned(),
        false => format!("of {WINDOW:.0}s "),
    };
    let width = state.chars().count() as u16;
    let is_free = usize::from(area.width) > text.chars().count() + usize::from(width);
    // That it is paused is said whatever else there is no room for.
    let style = match app.is_paused {
        true => bold().add_modifier(Modifier::REVERSED),
        false => Style::default().add_modifier(Modifier::DIM),
    };
    if is_free || app.is_paused {
        buffer.set_string(area.width.saturating_sub(width), 0, state, style);
    }
}

fn pairs(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let height = usize::from(area.height - 1);
    let shown = app.pairs.shown(height, app.rows.len());
    let rows: Vec<Vec<Cell>> = app.rows[shown.clone()].iter().map(cells).collect();
    for row in &rows {
        for (width, cell) in app.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    // The arrow beside the name of a column, and the space before the first.
    let mut widths = app.widths;
    for (width, column) in widths.iter_mut().zip(&COLUMNS) {
        *width = (*width).max(column.name.len());
    }
    let arrow = app.order.column;
    widths[arrow] = widths[arrow].max(COLUMNS[arrow].name.len() + 1);
    let layout = Layout::of(&COLUMNS, &widths, Some(usize::from(area.width) - 1));
    app.places = Places {
        header: area.y,
        columns: Vec::new(),
        first: area.y + 1,
        first_row: shown.start,
        height,
    };
    let mut names: Vec<Cell> = COLUMNS.iter().map(|column| column.name.into()).collect();
    names[arrow]
        .text
        .push(if app.order.is_descending { '▼' } else { '▲' });
    let places = aligned(buffer, area, area.y, &layout, &names, false);
    app.places.columns = places;
    buffer.set_style(
        Rect { height: 1, ..area },
        bold().add_modifier(Modifier::REVERSED),
    );
    for (n, row) in rows.iter().enumerate() {
        let y = area.y + 1 + n as u16;
        aligned(buffer, area, y, &layout, row, app.is_coloured);
        if shown.start + n == app.pairs.at() {
            chosen(buffer, area, y);
        }
    }
    if rows.is_empty() {
        let text = match app.filter.is_empty() {
            true => " nothing yet: no connection is open, and none has opened or ended since",
            false => " no row has this; Esc takes the filter away",
        };
        line(
            buffer,
            area,
            area.y + 1,
            text,
            Style::default().add_modifier(Modifier::DIM),
        );
    }
}

fn chosen(buffer: &mut Buffer, area: Rect, y: u16) {
    let row = Rect { y, height: 1, ..area };
    buffer.set_style(row, Style::default().add_modifier(Modifier::REVERSED));
}

/// Writes a row of cells; where each of them stands.
fn aligned(
    buffer: &mut Buffer,
    area: Rect,
    y: u16,
    layout: &Layout,
    row: &[Cell],
    is_coloured: bool,
) -> Vec<(usize, u16, u16)> {
    let mut x = area.x + 1;
    let mut places = Vec::with_capacity(layout.shown.len());
    for (n, width) in &layout.shown {
        let room = usize::from(area.right().saturating_sub(x)).min(*width);
        let text = printable(&row[*n].text);
        let text = shortened(&text, room);
        let style = match row[*n].tint {
            Some(tint) if is_coloured => Style::default().fg(colour(tint)),
            _ => Style::default(),
        };
        let before = match is_number(*n) {
            true => room - text.chars().count(),
            false => 0,
        };
        buffer.set_stringn(x + before as u16, y, &text, room, style);
        places.push((*n, x, x + room as u16));
        x = x.saturating_add((width + layout.gap) as u16).min(area.right());
    }
    places
}

fn colour(tint: Tint) -> Color {
    match tint {
        Tint::Secured => Color::Green,
        Tint::Plaintext => Color::Yellow,
        Tint::Failed => Color::Red,
    }
}

fn flows(app: &mut App, detail: &mut Detail, area: Rect, buffer: &mut Buffer) {
    line(buffer, area, area.y, &format!(" {}", detail.title), bold());
    let room = usize::from(area.width) - 1;
    if detail.is_explained
        && let Some(flow) = detail.flows.get(detail.cursor.at())
    {
        let text = render(&WhyReport::of_flow(flow));
        let lines = text.lines().flat_map(|line| wrapped(line, room));
        for (y, text) in (area.y + 2..area.bottom()).zip(lines) {
            line(buffer, area, y, &format!(" {text}"), Style::default());
        }
        return;
    }
    let height = usize::from(area.height.saturating_sub(2));
    let shown = detail.cursor.shown(height, detail.flows.len());
    let visible: Vec<_> = detail.flows[shown.clone()].iter().collect();
    let shape = Shape {
        wide: true,
        headers: true,
        room: Some(room),
        ..Shape::default()
    };
    let text = Table::new(shape, &visible).text();
    app.places = Places {
        header: area.y + 1,
        columns: Vec::new(),
        first: area.y + 2,
        first_row: shown.start,
        height,
    };
    for (n, text) in text.lines().enumerate() {
        let y = area.y + 1 + n as u16;
        let failed = n.checked_sub(1).and_then(|n| visible.get(n));
        let is_failed =
            failed.is_some_and(|flow| flow.close_cause.as_deref().is_some_and(|cause| cause != "eof"));
        let style = match is_failed && app.is_coloured {
            true => Style::default().fg(Color::Red),
            false => Style::default(),
        };
        line(buffer, area, y, &format!(" {text}"), style);
        match n {
            0 => buffer.set_style(
                Rect { y, height: 1, ..area },
                bold().add_modifier(Modifier::REVERSED),
            ),
            n if shown.start + n - 1 == detail.cursor.at() => chosen(buffer, area, y),
            _ => {}
        }
    }
}

/// A line in lines of so many characters, broken at spaces; those that go on are set in.
fn wrapped(line: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in line.split_inclusive(' ') {
        let length = word.chars().count();
        if used + length > room && used > 4 {
            lines.push("    ".to_owned());
            used = 4;
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(word);
        }
        used += length;
    }
    lines
}

fn footer(app: &App, area: Rect, buffer: &mut Buffer) {
    let y = area.bottom() - 1;
    let dim = Style::default().add_modifier(Modifier::DIM);
    if let Some(typed) = &app.prompt {
        return line(buffer, area, y, &format!(" /{typed}▏"), bold());
    }
    if let Some(problem) = app.problems.first() {
        let more = match app.problems.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let style = match app.is_coloured {
            true => bold().fg(Color::Red),
            false => bold(),
        };
        return line(buffer, area, y, &format!(" {problem}{more}"), style);
    }
    let keys = match &app.detail {
        Some(detail) if detail.is_explained => " Esc back   ? help   q quit",
        Some(_) => " Enter explain   Esc back   Space pause   ? help   q quit",
        None => " Enter flows   / filter   s < > sort   r reverse   Space pause   ? help   q quit",
    };
    line(buffer, area, y, keys, dim);
}

const HELP: [&str; 15] = [
    "j k ↓ ↑ wheel      down, up",
    "PgDn PgUp ^F ^B    a page",
    "g G Home End       first, last",
    "Enter, click       flows of the pair; the flow explained",
    "Esc                back; takes the filter away",
    "/                  filter: a word, or !word for those without it",
    "s > <              sort by the next, the previous column",
    "1 … 9              sort by this column; again: the other way",
    "click on a name    the same",
    "r                  the other way round",
    "Space              pause",
    "q Ctrl-C           quit",
    "",
    "Rates are of the last ten seconds; FAILED counts since the view",
    "began. A connection that both ends tell of counts once.",
];

fn help(area: Rect, buffer: &mut Buffer) {
    let width = 68.min(area.width);
    let height = (HELP.len() as u16 + 2).min(area.height);
    let box_of = Rect {
        x: (area.width - width) / 2,
        y: (area.height - height) / 2,
        width,
        height,
    };
    for y in box_of.top()..box_of.bottom() {
        let text = match (y - box_of.y).checked_sub(1).map(usize::from) {
            Some(n) if y + 1 < box_of.bottom() => HELP.get(n).copied().unwrap_or_default(),
            _ => "",
        };
        let room = usize::from(width).saturating_sub(2);
        let text = format!(" {:<room$} ", shortened(text, room));
        buffer.set_stringn(
            box_of.x,
            y,
            text,
            usize::from(width),
            Style::reset().add_modifier(Modifier::REVERSED),
        );
    }
}
