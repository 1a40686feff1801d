//! The one image that the node needs by itself: what holds a pod's namespaces open.

use std::path::Path;

use anyhow::{Context as _, Result};
use ring::digest::{SHA256, digest};
use serde_json::json;

/// Its name. containerd is told never to pull it.
pub const PAUSE: &str = "docker.io/sfunnel/pause:1";

/// A static program that can sleep: Debian's package busybox-static.
const BUSYBOX: &str = "/bin/busybox";

/// Writes the image as a docker-archive: a layer, its configuration and a manifest in one tar file
/// (docker save, github.com/moby/docker-image-spec, version 1.2).
///
/// # Errors
///
/// When busybox isn't installed.
pub fn write_pause(path: &Path) -> Result<()> {
    let busybox = std::fs::read(BUSYBOX).with_context(|| {
        format!("reading {BUSYBOX}; apt-get install busybox-static, or `tests/setup.sh cluster`")
    })?;
    let mut layer = tar::Builder::new(Vec::new());
    entry(&mut layer, "busybox", 0o755, &busybox)?;
    let layer = layer.into_inner()?;

    let hex: String = digest(&SHA256, &layer).as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": ["/busybox", "sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hex}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]);

    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, "layer.tar", 0o644, &layer)?;
    entry(&mut archive, "config.json", 0o644, config.to_string().as_bytes())?;
    entry(&mut archive, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    std::fs::write(path, archive.into_inner()?)?;
    Ok(())
}

fn entry(archive: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, data: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    archive.append_data(&mut header, name, data)?;
    Ok(())
}

/// This machine's, as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
