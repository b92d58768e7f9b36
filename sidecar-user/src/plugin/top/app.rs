//! What the view shows and how keys and the mouse change it. Pure: it gets rows and input, and says what is to be drawn.

use ratatui::crossterm::event::{
    KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};

use super::cursor::Cursor;
use super::ends::Pair;
use super::model::{Model, Row};
use super::order::{COLUMNS, Order, USUAL, has};
use crate::observe::FlowReport;

#[derive(Debug, Default)]
pub(super) struct App {
    /// Those that pass the filter, in order.
    pub(super) rows: Vec<Row>,
    pub(super) keys: Vec<Pair>,
    pub(super) pairs: Cursor<Pair>,
    pub(super) order: Order,
    pub(super) filter: String,
    /// What is being typed as the next filter.
    pub(super) prompt: Option<String>,
    pub(super) is_paused: bool,
    pub(super) has_help: bool,
    /// Of one pair, its flows.
    pub(super) detail: Option<Detail>,
    /// How wide columns have become; they do not become narrower while rows come and go.
    pub(super) widths: [usize; COLUMNS.len()],
    pub(super) places: Places,
    /// Of all pairs, also those that the filter leaves out.
    pub(super) total: Total,
    /// Who cannot be asked, and why.
    pub(super) problems: Vec<String>,
    pub(super) targets: usize,
    pub(super) is_coloured: bool,
}

/// Pod, number, and when it was opened.
type FlowKey = (Option<String>, u64, String);

#[derive(Debug)]
pub(super) struct Detail {
    pub(super) pair: Pair,
    pub(super) title: String,
    pub(super) flows: Vec<FlowReport>,
    pub(super) keys: Vec<FlowKey>,
    pub(super) cursor: Cursor<FlowKey>,
    /// One of them, step by step.
    pub(super) is_explained: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    pub(super) pairs: usize,
    pub(super) open: u64,
    pub(super) rates: super::rates::Rates,
}

/// Where things were drawn, for the mouse and for whole pages.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) header: u16,
    /// Column, and from where to where.
    pub(super) columns: Vec<(usize, u16, u16)>,
    /// The first line of rows, which row stands there, and how many there are.
    pub(super) first: u16,
    pub(super) first_row: usize,
    pub(super) height: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Quit,
}

/// Rows that one notch of the wheel moves.
const NOTCH: isize = 3;

impl App {
    pub(super) fn new(targets: usize, is_coloured: bool) -> Self {
        Self {
            targets,
            is_coloured,
            widths: USUAL,
            ..Self::default()
        }
    }

    /// Takes what is known now, unless it is paused.
    pub(super) fn refresh(&mut self, model: &Model, now: f64) {
        if self.is_paused {
            return;
        }
        let rows = model.rows(now);
        self.total = Total {
            pairs: rows.len(),
            ..Total::default()
        };
        for row in &rows {
            self.total.open += row.open;
            self.total.rates.add(&row.rates);
        }
        self.rows = rows;
        self.rows.retain(|row| has(row, &self.filter));
        self.arrange();
        if let Some(detail) = &mut self.detail {
            detail.take(model.flows(&detail.pair));
        }
    }

    fn arrange(&mut self) {
        self.order.sort(&mut self.rows);
        self.keys = self.rows.iter().map(|row| row.pair.clone()).collect();
        self.pairs.settle(&self.keys);
    }

    pub(super) fn key(&mut self, key: KeyEvent, model: &Model, now: f64) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Stay;
        }
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.prompt.is_some() {
            self.type_filter(key, model, now);
            return Next::Stay;
        }
        if self.has_help {
            self.has_help = false;
            return Next::Stay;
        }
        let page = self.places.height.max(1) as isize;
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('j') | KeyCode::Down => self.step(1),
            KeyCode::Char('k') | KeyCode::Up => self.step(-1),
            KeyCode::Char('f') if is_control => self.step(page),
            KeyCode::Char('b') if is_control => self.step(-page),
            KeyCode::PageDown => self.step(page),
            KeyCode::PageUp => self.step(-page),
            KeyCode::Char('g') | KeyCode::Home => self.step(isize::MIN),
            KeyCode::Char('G') | KeyCode::End => self.step(isize::MAX),
            KeyCode::Char('?' | 'h') => self.has_help = true,
            KeyCode::Char(' ') => {
                self.is_paused = !self.is_paused;
                self.refresh(model, now);
            }
            KeyCode::Enter => self.enter(model),
            KeyCode::Esc | KeyCode::Backspace => self.back(model, now),
            _ if self.detail.is_some() => {}
            KeyCode::Char('/') => self.prompt = Some(self.filter.clone()),
            KeyCode::Char('s' | '>') => self.sort_beside(1),
            KeyCode::Char('<') => self.sort_beside(-1),
            KeyCode::Char('r') => self.sort_by(self.order.column),
            KeyCode::Char(digit @ '1'..='9') => {
                let nth = digit as usize - '1' as usize;
                if let Some((column, ..)) = self.places.columns.get(nth) {
                    self.sort_by(*column);
                }
            }
            _ => {}
        }
        Next::Stay
    }

    pub(super) fn mouse(&mut self, mouse: MouseEvent, model: &Model) {
        if self.has_help || self.prompt.is_some() {
            return;
        }
        match mouse.kind {
            MouseEventKind::ScrollDown => self.step(NOTCH),
            MouseEventKind::ScrollUp => self.step(-NOTCH),
            MouseEventKind::Down(MouseButton::Left) => {
                let mut columns = self.places.columns.iter();
                let hit = columns.find(|(_, from, to)| (*from..*to).contains(&mouse.column));
                if mouse.row == self.places.header
                    && self.detail.is_none()
                    && let Some((column, ..)) = hit
                {
                    return self.sort_by(*column);
                }
                let line = usize::from(mouse.row.wrapping_sub(self.places.first));
                if mouse.row >= self.places.first && line < self.places.height {
                    self.click(self.places.first_row + line, model);
                }
            }
            _ => {}
        }
    }

    /// A row is chosen by the first click and opened by the second.
    fn click(&mut self, row: usize, model: &Model) {
        let (at, count) = match &self.detail {
            Some(detail) => (detail.cursor.at(), detail.keys.len()),
            None => (self.pairs.at(), self.keys.len()),
        };
        if row >= count {
            return;
        }
        match row == at {
            true => self.enter(model),
            false => match &mut self.detail {
                Some(detail) => detail.cursor.go(row, &detail.keys),
                None => self.pairs.go(row, &self.keys),
            },
        }
    }

    /// What was drawn does not hold any more.
    pub(super) fn resized(&mut self) {
        self.widths = USUAL;
    }

    fn step(&mut self, by: isize) {
        match &mut self.detail {
            Some(detail) if detail.is_explained => {}
            Some(detail) => detail.cursor.step(by, &detail.keys),
            None => self.pairs.step(by, &self.keys),
        }
    }

    fn enter(&mut self, model: &Model) {
        match &mut self.detail {
            Some(detail) => detail.is_explained = !detail.keys.is_empty(),
            None => {
                let Some(row) = self.rows.get(self.pairs.at()) else {
                    return;
                };
                let mut detail = Detail {
                    pair: row.pair.clone(),
                    title: format!("{} → {}   {}", row.source, row.destination, row.security),
                    flows: Vec::new(),
                    keys: Vec::new(),
                    cursor: Cursor::default(),
                    is_explained: false,
                };
                detail.take(model.flows(&row.pair));
                self.detail = Some(detail);
            }
        }
    }

    /// One step back: out of a flow, out of a pair, out of the filter.
    fn back(&mut self, model: &Model, now: f64) {
        match &mut self.detail {
            Some(detail) if detail.is_explained => detail.is_explained = false,
            Some(_) => self.detail = None,
            None => self.set_filter(String::new(), model, now),
        }
    }

    fn type_filter(&mut self, key: KeyEvent, model: &Model, now: f64) {
        let mut typed = self.prompt.take().unwrap_or_default();
        match key.code {
            KeyCode::Enter => return self.set_filter(typed, model, now),
            KeyCode::Esc => return self.set_filter(String::new(), model, now),
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => typed.clear(),
            KeyCode::Char(letter) => typed.push(letter),
            _ => {}
        }
        // Rows follow as it is typed.
        self.set_filter(typed.clone(), model, now);
        self.prompt = Some(typed);
    }

    fn set_filter(&mut self, filter: String, model: &Model, now: f64) {
        if self.filter == filter {
            return;
        }
        self.filter = filter;
        // Also while it is paused: what is shown then is of this moment.
        let is_paused = std::mem::replace(&mut self.is_paused, false);
        self.refresh(model, now);
        self.is_paused = is_paused;
    }

    fn sort_beside(&mut self, by: isize) {
        let shown = &self.places.columns;
        let at = shown.iter().position(|(n, ..)| *n == self.order.column);
        let next = at.map_or(0, |at| {
            at.saturating_add_signed(by).min(shown.len().saturating_sub(1))
        });
        if let Some((column, ..)) = shown.get(next)
            && *column != self.order.column
        {
            self.sort_by(*column);
        }
    }

    /// By a column; the other way round where it is that one already.
    fn sort_by(&mut self, column: usize) {
        self.order = match self.order.column == column {
            true => Order {
                is_descending: !self.order.is_descending,
                ..self.order
            },
            false => Order::by(column),
        };
        self.arrange();
    }
}

impl Detail {
    fn take(&mut self, flows: Vec<&FlowReport>) {
        self.flows = flows.into_iter().cloned().collect();
        let key = |flow: &FlowReport| (flow.pod.clone(), flow.id, flow.opened.clone());
        self.keys = self.flows.iter().map(key).collect();
        self.cursor.settle(&self.keys);
    }
}
