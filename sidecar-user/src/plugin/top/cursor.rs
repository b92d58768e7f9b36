//! Which row is chosen, and which part of a list is on the screen. A row is known by what it is about, so that it stays chosen when the order
//! changes.

#[derive(Debug)]
pub(super) struct Cursor<K> {
    /// `None`: the first one, whichever that is.
    chosen: Option<K>,
    at: usize,
    top: usize,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self {
            chosen: None,
            at: 0,
            top: 0,
        }
    }
}

impl<K: Clone + PartialEq> Cursor<K> {
    /// Finds the row again; where it is gone, the one in its place is chosen.
    pub(super) fn settle(&mut self, keys: &[K]) {
        let Some(chosen) = &self.chosen else {
            self.at = 0;
            return;
        };
        match keys.iter().position(|key| key == chosen) {
            Some(at) => self.at = at,
            None => self.go(self.at, keys),
        }
    }

    pub(super) fn go(&mut self, at: usize, keys: &[K]) {
        self.at = at.min(keys.len().saturating_sub(1));
        self.chosen = keys.get(self.at).filter(|_| self.at > 0).cloned();
    }

    pub(super) fn step(&mut self, by: isize, keys: &[K]) {
        self.go(self.at.saturating_add_signed(by), keys);
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The rows that are on a screen of so many.
    pub(super) fn shown(&mut self, height: usize, count: usize) -> std::ops::Range<usize> {
        if height == 0 {
            return 0..0;
        }
        let last = count.saturating_sub(height);
        let lowest = (self.at + 1).saturating_sub(height);
        self.top = self.top.clamp(lowest.min(last), self.at.min(last));
        self.top..(self.top + height).min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stays_chosen_when_the_order_changes_and_when_it_goes() {
        let mut cursor = Cursor::default();
        cursor.settle(&["a", "b", "c"]);
        cursor.step(1, &["a", "b", "c"]);
        assert_eq!(cursor.at(), 1);
        cursor.settle(&["c", "a", "b"]);
        assert_eq!(cursor.at(), 2);
        cursor.settle(&["c", "a"]);
        assert_eq!(cursor.at(), 1);
        cursor.step(-7, &["c", "a"]);
        cursor.settle(&["new", "c", "a"]);
        assert_eq!(cursor.at(), 0, "the first row stays the first one");
        cursor.settle(&[]);
        assert_eq!((cursor.at(), cursor.shown(5, 0)), (0, 0..0));
    }

    #[test]
    fn what_is_chosen_is_on_the_screen() {
        let keys: Vec<usize> = (0..100).collect();
        let mut cursor = Cursor::default();
        cursor.go(99, &keys);
        assert_eq!(cursor.shown(10, 100), 90..100);
        cursor.step(-3, &keys);
        assert_eq!(cursor.shown(10, 100), 90..100);
        cursor.go(50, &keys);
        assert_eq!(cursor.shown(10, 100), 50..60);
        cursor.go(4, &keys);
        assert_eq!(cursor.shown(10, 5), 0..5);
        assert_eq!(cursor.shown(0, 100), 0..0);
    }
}
