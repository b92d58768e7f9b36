//! An archive in cpio's `newc` format, as the kernel unpacks it. Knows no compression: unpacking it under emulation
//! takes longer than reading more.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_600;

pub(super) struct Archive<W> {
    out: W,
    entries: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            entries: 0,
            directories: BTreeSet::new(),
        }
    }

    /// A directory, with those above it. Paths are absolute ones of the guest.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut end = 0;
        while let Some(next) = path[end + 1..].find('/') {
            end += 1 + next;
            self.one_directory(&path[..end])?;
        }
        self.one_directory(path)
    }

    fn one_directory(&mut self, path: &str) -> io::Result<()> {
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, (0, 0), &[])?;
        }
        Ok(())
    }

    /// A file that everybody may read and run.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, FILE | 0o755, (0, 0), contents)
    }

    pub(super) fn character_device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        self.parent(path)?;
        self.entry(path, CHARACTER_DEVICE, number, &[])
    }

    /// Ends the archive and gives back what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("/TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) if !parent.is_empty() => self.directory(parent),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        let too_long = |_| io::Error::other(format!("{path} is too large for a cpio archive"));
        let size = u32::try_from(contents.len()).map_err(too_long)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_long)?;
        self.entries += 1;
        // Inode, mode, uid, gid, links, mtime, size, device of the file, number of the device, name's size, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        let mut header = String::from("070701");
        header.extend(fields.iter().map(|field| format!("{field:08X}")));
        header.push_str(name);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(contents)
    }

    /// Everything begins at a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..bytes.len().wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_its_contents_each_padded() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/init", b"hello").unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        let (first, trailer) = text.split_at(110 + 6 + 8);
        assert_eq!(
            first,
            "07070100000001000081ED00000000000000000000000100000000000000050000000000000000\
             00000000000000000000000500000000init\0\0hello\0\0\0"
        );
        assert!(
            trailer.starts_with("070701") && trailer.contains("TRAILER!!!\0"),
            "{trailer}"
        );
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_only_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", b"").unwrap();
        archive.file("/a/b/two", b"").unwrap();
        archive.directory("/a/c").unwrap();
        let text = String::from_utf8(archive.finish().unwrap()).unwrap();
        let names: Vec<_> = text
            .split(['\0', '0'])
            .filter(|part| part.starts_with('a'))
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "a/c"]);
    }
}
