//! `cargo xtask image`: the image of a program that is built already, by buildah, and what must hold of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::step::{command, output, run};
use crate::{root, sbom, target, tools};

/// Where clusters find it: its tag is the version of the workspace, which is the chart's `appVersion`.
pub(crate) const NAME: &str = concat!("localhost/ringback:", env!("CARGO_PKG_VERSION"));

/// No image is fetched, so there is no signature to look at.
const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// Builds the image of this `ringback`, prints how large it is and how quickly it starts, and tests it.
pub(crate) fn test(ringback: &Path, in_ci: bool) -> Result<(), String> {
    let user = output(&mut command("id", &["-u"]))?;
    if user.trim() != "0" && !in_ci {
        println!("skipped: the image is unpacked and entered by root alone");
        return Ok(());
    }
    let archive = build(ringback)?;
    let found =
        fs::metadata(&archive).map_err(|error| format!("{}: {error}", archive.display()))?;
    println!("figure image.bytes {} bytes", found.len());
    let tests = [
        "-m",
        "unittest",
        "discover",
        "--start-directory",
        "tests/image",
    ];
    run(command("python3", &tests)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("IMAGE", &archive)
        .env("VERSION", env!("CARGO_PKG_VERSION")))
}

/// The path of the image as a docker-archive.
pub(crate) fn build(ringback: &Path) -> Result<PathBuf, String> {
    let buildah = tools::provide("buildah", &["buildah"], "the image")?;
    let dir = target().join("image");
    let doing = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    fs::create_dir_all(&dir).map_err(doing)?;
    let policy = dir.join("policy.json");
    fs::write(&policy, POLICY).map_err(doing)?;
    // What the first stage of the Containerfile would have made.
    let stage = dir.join("stage");
    let script = |name: &str| command(&root().join("deploy").join(name).to_string_lossy(), &[]);
    let bill = dir.join("ringback.cdx.json");
    fs::write(&bill, sbom::made()?).map_err(doing)?;
    run(script("rootfs.sh")
        .arg(ringback)
        .arg(&bill)
        .arg(stage.join("made")))?;

    let commit = |what: &str| {
        output(&mut command(
            "git",
            &["log", "-1", &format!("--format={what}")],
        ))
    };
    // A store of its own, new each time, of a kind that works where overlays do not.
    let store = dir.join("store");
    let _ = fs::remove_dir_all(&store);
    let buildah = |verb: &str| {
        let mut buildah = command(&buildah.to_string_lossy(), &["--storage-driver", "vfs"]);
        let run = dir.join("run");
        buildah.arg("--root").arg(&store).arg("--runroot").arg(run);
        buildah.args([verb, "--quiet"]);
        buildah.arg("--signature-policy").arg(&policy);
        buildah
    };
    let pair = |name: &str, value: &str| format!("{name}={value}");
    let mut bud = buildah("bud");
    bud.args(["--isolation", "chroot", "--tag", NAME])
        .args(["--build-arg", &pair("VERSION", env!("CARGO_PKG_VERSION"))])
        .args(["--build-arg", &pair("REVISION", commit("%H")?.trim())])
        // The same program and commit give the same bytes.
        .args(["--timestamp", commit("%ct")?.trim()])
        .args(["--build-context", &pair("build", &stage.to_string_lossy())])
        .arg("--file")
        .arg(root().join("deploy/Containerfile"));
    run(bud.arg(&stage))?;
    let archive = dir.join("ringback.tar");
    // It is not written over.
    match fs::remove_file(&archive) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(doing(error)),
        _ => {}
    }
    let to = format!("docker-archive:{}:{NAME}", archive.display());
    run(buildah("push").args([NAME, &to]))?;
    let _ = fs::remove_dir_all(&store);
    Ok(archive)
}
