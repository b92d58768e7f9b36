//! Rows under aligned columns, in the width that there is: what matters least is left out first, then long cells are cut. A row
//! is always one line.

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

/// Never cut.
pub(super) const WHOLE: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    /// `None`: as wide as it gets.
    room: Option<usize>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    /// Rows have been shown: columns stay where they are.
    is_laid_out: bool,
}

impl Columns {
    pub(super) fn new(columns: Vec<Column>, room: Option<usize>, headers: bool) -> Self {
        let names: Vec<String> = columns.iter().map(|column| column.name.to_owned()).collect();
        let mut new = Self {
            widths: vec![0; columns.len()],
            columns,
            room,
            rows: Vec::new(),
            is_laid_out: false,
        };
        new.widen(&names);
        if headers {
            new.rows.push(names);
        }
        new
    }

    pub(super) fn push(&mut self, row: Vec<String>) {
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
        self.rows.iter().map(|row| self.aligned(&layout, row)).collect()
    }

    /// One more row, under the columns as wide as they have become.
    pub(super) fn line(&mut self, row: Vec<String>) -> String {
        let row = clean(row);
        if !self.is_laid_out {
            self.widen(&row);
        }
        self.aligned(&self.layout(), &row)
    }

    fn widen(&mut self, row: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// The columns that are shown, each with its width, and the gap between two of them.
    fn layout(&self) -> (Vec<(usize, usize)>, usize) {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let total = |shown: &[usize], gap: usize, of: &dyn Fn(usize) -> usize| {
            shown.iter().map(|n| of(*n)).sum::<usize>() + gap * shown.len().saturating_sub(1)
        };
        let full = |n: usize| self.widths[n];
        let Some(room) = self.room.filter(|room| total(&all, 3, &full) > *room) else {
            return (all.iter().map(|n| (*n, full(*n))).collect(), 3);
        };
        let least = |n: usize| {
            let Column { name, least, .. } = self.columns[n];
            least.max(name.len()).min(self.widths[n])
        };
        let mut shown = all;
        while total(&shown, 2, &least) > room {
            let last = shown
                .iter()
                .enumerate()
                .max_by_key(|(at, n)| (self.columns[**n].rank, *at));
            match last {
                Some((at, n)) if self.columns[*n].rank > 0 => shown.remove(at),
                _ => break,
            };
        }
        let mut spare = room.saturating_sub(total(&shown, 2, &least));
        let mut widths: Vec<(usize, usize)> = shown.iter().map(|n| (*n, least(*n))).collect();
        let mut by_rank: Vec<usize> = (0..widths.len()).collect();
        by_rank.sort_by_key(|at| self.columns[widths[*at].0].rank);
        for at in by_rank {
            let (n, width) = &mut widths[at];
            let more = (full(*n) - *width).min(spare);
            *width += more;
            spare -= more;
        }
        (widths, 2)
    }

    fn aligned(&self, (shown, gap): &(Vec<(usize, usize)>, usize), row: &[String]) -> String {
        let mut line = String::new();
        for (place, (n, width)) in shown.iter().enumerate() {
            // Without a bound nothing is cut, and what a watch did not expect moves the rest.
            let cell = match self.room {
                Some(_) => shortened(&row[*n], *width),
                None => row[*n].clone(),
            };
            line.push_str(&format!("{cell:<width$}"));
            if place + 1 < shown.len() {
                line.push_str(&" ".repeat(*gap));
            }
        }
        let line = line.trim_end();
        match self.room {
            Some(room) => shortened(line, room) + "\n",
            None => format!("{line}\n"),
        }
    }
}

/// A name from the other side may not drive this terminal.
pub(super) fn printable(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn clean(row: Vec<String>) -> Vec<String> {
    row.iter().map(|cell| printable(cell)).collect()
}

fn shortened(cell: &str, width: usize) -> String {
    match cell.char_indices().nth(width) {
        None => cell.to_owned(),
        Some(_) => {
            let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
            kept + "…"
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
