//! Our own image, of the same files as `deploy/images/Containerfile` makes it of. No shell, no root.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::layout::Image;
use crate::cluster::programs::quietly;
use crate::image;

const NAME: &str = "outrigger.example/outrigger:local";

pub(super) fn build(dir: &Path) -> Result<PathBuf> {
    let staged = image::stage()?;
    let image = Image {
        name: NAME,
        user: "65532:65532",
        entrypoint: &["/usr/bin/outrigger"],
        labels: &image::labels()?,
    };
    image.build(dir, &staged.digest, |root| {
        quietly(
            Command::new("cp")
                .arg("--archive")
                .arg(staged.root.join("."))
                .arg(root),
        )
    })
}
