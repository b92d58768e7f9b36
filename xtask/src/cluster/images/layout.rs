//! An OCI image layout as one archive, from a directory: one layer, not compressed, for it never leaves the machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::say;
use crate::cluster::programs::quietly;
use crate::image::architecture;

pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) user: &'a str,
    pub(super) entrypoint: &'a [&'a str],
    /// Names and values.
    pub(super) labels: &'a [(String, String)],
}

impl Image<'_> {
    /// Builds the archive with the root directory that `fill` makes, unless the one that is there was made from the same.
    pub(super) fn build(
        &self,
        dir: &Path,
        made_from: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let stem = self.stem();
        let archive = dir.join(format!("{stem}.tar"));
        let mark = dir.join(format!("{stem}.made-from"));
        let mut key = format!("{} {:?} {made_from}", self.user, self.entrypoint);
        for (name, value) in self.labels {
            key.push_str(&format!(" {name}={value}"));
        }
        if archive.exists() && fs::read_to_string(&mark).is_ok_and(|found| found == key) {
            return Ok(archive);
        }
        let work = dir.join(format!("{stem}.work"));
        let _ = fs::remove_dir_all(&work);
        let root = work.join("root");
        fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
        fill(&root).with_context(|| format!("fill the image {}", self.name))?;
        self.pack(&work, &archive)?;
        fs::remove_dir_all(&work)?;
        fs::write(&mark, key)?;
        say(self.name, &archive)?;
        Ok(archive)
    }

    /// `outrigger.example/pause:local` is `pause`.
    fn stem(&self) -> String {
        let path = self.name.split_once('/').map_or(self.name, |(_, path)| path);
        let path = path.split_once(':').map_or(path, |(path, _)| path);
        path.replace('/', "-")
    }

    fn pack(&self, work: &Path, archive: &Path) -> Result<()> {
        let layout = work.join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let layer = work.join("layer.tar");
        quietly(tar(&layer).arg("-C").arg(work.join("root")).arg("."))?;
        let layer_digest = digest_of(&layer)?;
        let layer_size = layer.metadata()?.len();
        fs::rename(&layer, blobs.join(&layer_digest))?;

        let architecture = architecture();
        let labels: Map<String, Value> = self
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let config = blob(
            &blobs,
            &json!({
                "architecture": architecture,
                "os": "linux",
                "config": {
                    "User": self.user,
                    "Entrypoint": self.entrypoint,
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                    "WorkingDir": "/",
                    "Labels": labels,
                },
                "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
            }),
        )?;
        let manifest = blob(
            &blobs,
            &json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": described("application/vnd.oci.image.config.v1+json", &config),
                "layers": [described("application/vnd.oci.image.layer.v1.tar", &(layer_digest, layer_size))],
            }),
        )?;
        let mut entry = described("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": self.name });
        entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
        fs::write(
            layout.join("index.json"),
            json!({ "schemaVersion": 2, "manifests": [entry] }).to_string(),
        )?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let new = archive.with_extension("new");
        quietly(tar(&new).arg("-C").arg(&layout).arg("."))?;
        fs::rename(&new, archive).with_context(|| format!("write {}", archive.display()))
    }
}

/// The same bytes from the same files, whoever packs them and when.
fn tar(archive: &Path) -> Command {
    let mut command = Command::new("tar");
    command
        .args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "-cf",
        ])
        .arg(archive);
    command
}

/// Writes a blob of JSON: its digest and size.
fn blob(blobs: &Path, value: &Value) -> Result<(String, u64)> {
    let text = value.to_string();
    let digest = format!("{:x}", Sha256::digest(&text));
    fs::write(blobs.join(&digest), &text)?;
    Ok((digest, text.len() as u64))
}

fn described(media_type: &str, (digest, size): &(String, u64)) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

pub(crate) fn digest_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(format!("{:x}", digest.finalize())),
            Ok(read) => digest.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_its_blobs_by_their_digests_and_is_made_once() {
        let dir = std::env::temp_dir().join(format!("outrigger-layout-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let image = Image {
            name: "outrigger.example/test/one:local",
            user: "1:1",
            entrypoint: &["/one"],
            labels: &[],
        };
        let fill = |root: &Path| Ok(fs::write(root.join("one"), "1")?);
        let archive = image.build(&dir, "first", fill).unwrap();
        assert_eq!(archive, dir.join("test-one.tar"));
        let first = digest_of(&archive).unwrap();
        quietly(Command::new("tar").arg("-C").arg(&dir).arg("-xf").arg(&archive)).unwrap();
        let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], image.name);
        let blobs: Vec<PathBuf> = fs::read_dir(dir.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(blobs.len(), 3, "layer, configuration and manifest");
        for blob in &blobs {
            assert_eq!(
                blob.file_name().unwrap().to_str().unwrap(),
                digest_of(blob).unwrap()
            );
        }

        image
            .build(&dir, "first", |_| panic!("it was made from the same"))
            .unwrap();
        image.build(&dir, "second", fill).unwrap();
        assert_eq!(
            digest_of(&archive).unwrap(),
            first,
            "the same files are the same bytes"
        );
        let labels = [("a.label".to_owned(), "its value".to_owned())];
        let labelled = Image {
            labels: &labels,
            ..image
        };
        labelled.build(&dir, "second", fill).unwrap();
        assert_ne!(
            digest_of(&archive).unwrap(),
            first,
            "a label is a part of the image"
        );
        fs::remove_dir_all(&dir).unwrap();
    }
}
