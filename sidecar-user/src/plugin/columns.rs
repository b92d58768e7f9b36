//! Rows under aligned columns, in the width that there is: what matters least is left out first, then long cells are cut. A row
//! is always one line.

use std::borrow::Cow;

use super::paint::Cell;

/// A column: its name, how soon it is left out, and how narrow it may be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// The highest goes first; 0 stays.
    pub(super) rank: u8,
    /// Cells of so many characters still say something; none is cut shorter.
    pub(super) least: usize,
}

pub(super) const fn column(name: &'static str, rank: u8, least: usize) -> Column {
    Column { name, rank, least }
}

/// Of this rank and above: only where the columns of the first two ranks are as wide as they like to be.
const EXTRA: u8 = 6;
/// As wide as anybody likes to be, of names that have no end.
const ENOUGH: usize = 40;
/// Never cut.
pub(super) const WHOLE: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    /// `None`: as wide as it gets.
    room: Option<usize>,
    widths: Vec<usize>,
    rows: Vec<Vec<Cell>>,
    /// Rows have been shown: columns stay where they are.
    is_laid_out: bool,
    is_coloured: bool,
}

/// Which columns are shown, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Each with its width.
    pub(super) shown: Vec<(usize, usize)>,
    /// Between two of them.
    pub(super) gap: usize,
}

impl Columns {
    pub(super) fn new(columns: Vec<Column>, room: Option<usize>, headers: bool) -> Self {
        let names: Vec<Cell> = columns.iter().map(|column| column.name.into()).collect();
        let mut new = Self {
            widths: vec![0; columns.len()],
            columns,
            room,
            rows: Vec::new(),
            is_laid_out: false,
            is_coloured: false,
        };
        new.widen(&names);
        if headers {
            new.rows.push(names);
        }
        new
    }

    pub(super) fn coloured(mut self, is_coloured: bool) -> Self {
        self.is_coloured = is_coloured;
        self
    }

    pub(super) fn push<C: Into<Cell>>(&mut self, row: Vec<C>) {
        let row = clean(row);
        self.widen(&row);
        self.rows.push(row);
    }

    /// Makes room for what is to come, so that later lines stay under the header.
    pub(super) fn await_more(&mut self, usual: &[usize]) {
        for (width, usual) in self.widths.iter_mut().zip(usual) {
            *width = (*usual).max(*width);
        }
        self.is_laid_out = self.room.is_some();
    }

    pub(super) fn text(&self) -> String {
        let layout = self.layout();
        let mut text = String::new();
        for row in &self.rows {
            self.align(&mut text, &layout, row);
        }
        text
    }

    /// One more row, under the columns as wide as they have become.
    pub(super) fn line<C: Into<Cell>>(&mut self, row: Vec<C>) -> String {
        let row = clean(row);
        if !self.is_laid_out {
            self.widen(&row);
        }
        let mut line = String::new();
        self.align(&mut line, &self.layout(), &row);
        line
    }

    fn widen(&mut self, row: &[Cell]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }

    fn layout(&self) -> Layout {
        Layout::of(&self.columns, &self.widths, self.room)
    }

    /// Adds a line. Spaces are written once something comes behind them, and the codes of a colour take no room.
    fn align(&self, text: &mut String, layout: &Layout, row: &[Cell]) {
        let (mut used, mut start) = (0, 0);
        for (n, width) in &layout.shown {
            let Cell { text: cell, tint } = &row[*n];
            // Without a bound nothing is cut, and what a watch did not expect moves the rest.
            let most = match self.room {
                Some(room) => (*width).min(room.saturating_sub(start)),
                None => usize::MAX,
            };
            let cell = shortened(cell.trim_end(), most);
            let length = cell.chars().count();
            if length > 0 {
                text.extend(std::iter::repeat_n(' ', start - used));
                match tint {
                    Some(tint) if self.is_coloured => text.push_str(&tint.painted(&cell)),
                    _ => text.push_str(&cell),
                }
                used = start + length;
            }
            start += length.max(*width) + layout.gap;
        }
        text.push('\n');
    }
}

impl Layout {
    /// `widths` are those that the cells would like to have.
    pub(super) fn of(columns: &[Column], widths: &[usize], room: Option<usize>) -> Self {
        let all: Vec<usize> = (0..columns.len()).collect();
        let total = |shown: &[usize], gap: usize, of: &dyn Fn(usize) -> usize| {
            shown.iter().map(|n| of(*n)).sum::<usize>() + gap * shown.len().saturating_sub(1)
        };
        let full = |n: usize| widths[n];
        let Some(room) = room.filter(|room| total(&all, 3, &full) > *room) else {
            let shown = all.iter().map(|n| (*n, full(*n))).collect();
            return Self { shown, gap: 3 };
        };
        let least = |n: usize| {
            let Column { name, least, .. } = columns[n];
            least.max(name.len()).min(widths[n])
        };
        // What matters is not cut for the sake of extras.
        let beside_extras = |n: usize| match columns[n].rank {
            0 | 1 => widths[n].clamp(least(n), ENOUGH.max(least(n))),
            _ => least(n),
        };
        let mut shown = all;
        loop {
            let has_extras = shown.iter().any(|n| columns[*n].rank >= EXTRA);
            let needed = match has_extras {
                true => total(&shown, 2, &beside_extras),
                false => total(&shown, 2, &least),
            };
            if needed <= room {
                break;
            }
            let last = shown
                .iter()
                .enumerate()
                .max_by_key(|(at, n)| (columns[**n].rank, *at));
            match last {
                Some((at, n)) if columns[*n].rank > 0 => shown.remove(at),
                _ => break,
            };
        }
        let mut spare = room.saturating_sub(total(&shown, 2, &least));
        let mut widths: Vec<(usize, usize)> = shown.iter().map(|n| (*n, least(*n))).collect();
        let mut by_rank: Vec<usize> = (0..widths.len()).collect();
        by_rank.sort_by_key(|at| columns[widths[*at].0].rank);
        for at in by_rank {
            let (n, width) = &mut widths[at];
            let more = (full(*n) - *width).min(spare);
            *width += more;
            spare -= more;
        }
        Self {
            shown: widths,
            gap: 2,
        }
    }
}

/// A name from the other side may not drive this terminal.
pub(super) fn printable(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn clean<C: Into<Cell>>(row: Vec<C>) -> Vec<Cell> {
    let clean = |cell: C| {
        let mut cell = cell.into();
        if cell.text.chars().any(char::is_control) {
            cell.text = printable(&cell.text);
        }
        cell
    };
    row.into_iter().map(clean).collect()
}

/// In so many characters.
pub(super) fn shortened(cell: &str, width: usize) -> Cow<'_, str> {
    match cell.char_indices().nth(width) {
        None => cell.into(),
        Some(_) if width == 0 => "".into(),
        Some(_) => {
            let kept: String = cell.chars().take(width - 1).collect();
            (kept + "…").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(room: Option<usize>) -> Columns {
        let of = vec![
            column("NAME", 0, 8),
            column("NOTE", 2, 6),
            column("STATE", 1, WHOLE),
        ];
        let mut columns = Columns::new(of, room, true);
        columns.push(
            ["a-long-name/of-a-thing", "words and words", "open"]
                .map(String::from)
                .into(),
        );
        columns
    }

    #[test]
    fn what_matters_least_is_cut_and_then_left_out() {
        let line = |room| columns(room).text().lines().nth(1).unwrap().to_owned();
        assert_eq!(line(None), "a-long-name/of-a-thing   words and words   open");
        assert_eq!(line(Some(48)), line(None));
        assert_eq!(line(Some(40)), "a-long-name/of-a-thing  words an…  open");
        assert_eq!(line(Some(30)), "a-long-name/of…  words…  open");
        assert_eq!(line(Some(20)), "a-long-name/…  open");
        assert_eq!(line(Some(6)), "a-lon…");
    }

    #[test]
    fn nothing_that_matters_is_cut_for_an_extra() {
        let of = vec![column("NAME", 0, 4), column("B", 5, 4), column("EXTRA", 6, 4)];
        let shown = |name: usize, room| {
            let layout = Layout::of(&of, &[name, 9, 9], Some(room));
            layout.shown.iter().map(|(n, _)| *n).collect::<Vec<_>>()
        };
        assert_eq!(shown(20, 33), [0, 1, 2]);
        assert_eq!(shown(20, 32), [0, 1], "the name would be cut");
        assert_eq!(shown(20, 10), [0, 1], "for another column it is");
        assert_eq!(shown(100, 53), [0, 1, 2], "a name without end");
    }

    #[test]
    fn colours_take_no_room_and_are_only_there_where_they_are_wanted() {
        use super::super::paint::Tint;
        let text = |is_coloured, room| {
            let mut columns =
                Columns::new(vec![column("A", 0, 2), column("B", 0, 2)], room, false).coloured(is_coloured);
            columns.push(vec![Cell::tinted("long words", Tint::Failed), Cell::from("end")]);
            columns.text()
        };
        assert_eq!(text(false, None), "long words   end\n");
        assert_eq!(text(true, None), "\x1b[31mlong words\x1b[0m   end\n");
        assert_eq!(text(true, Some(10)), "\x1b[31mlong …\x1b[0m  e…\n");
    }

    #[test]
    fn no_line_is_wider_than_its_room_or_more_than_one_line() {
        for room in 1..120 {
            let mut columns = columns(Some(room));
            let text = columns.text()
                + &columns.line(
                    ["x\ny\u{1b}", "é".repeat(90).as_str(), "z"]
                        .map(String::from)
                        .into(),
                );
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(
                text.lines().all(|line| line.chars().count() <= room),
                "{room}: {text}"
            );
            assert!(!text.contains('\u{1b}'));
        }
    }
}
