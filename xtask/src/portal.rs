//! The portal's stories in a real browser: what they need is installed below `target/portal`, where
//! their screenshots are afterwards.

use std::fs;
use std::path::Path;

use crate::step::{cargo, command, run};
use crate::tools::provide;
use crate::{root, target};

/// Debian's browser, and letters for its pictures.
const BROWSER: [&str; 2] = ["chromium", "fonts-dejavu-core"];
/// Runs the guide's code, as Python, Node.js and Go do, which are here for other tests or not at all.
const PHP: [&str; 1] = ["php-cli"];
/// The files that say what is installed.
const PINS: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];
/// What needs them.
const STORIES: &str = "the portal's stories";
/// The stories take two minutes; what hangs is ended after these seconds.
const SECONDS_MAX: &str = "1800";

/// `cargo xtask portal`: the stories, or those that `args` choose.
pub(crate) fn run_stories(args: &[&str]) -> Result<(), String> {
    let browser = provide("chromium", &BROWSER, STORIES)?;
    provide("php", &PHP, STORIES)?;
    let dir = target().join("portal");
    let failed = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    copy(&root().join("tests/portal"), &dir).map_err(failed)?;
    install(&dir)?;
    run(&mut cargo(&["build", "--locked", "--package", "ringback"]))?;
    let playwright = dir.join("node_modules/.bin/playwright");
    let mut stories = command("timeout", &[SECONDS_MAX, &playwright.to_string_lossy()]);
    stories
        .arg("test")
        .args(args)
        .current_dir(&dir)
        .env("PORTAL_RINGBACK", target().join("debug/ringback"))
        .env("PORTAL_CHROMIUM", browser)
        .env("PORTAL_ARTEFACTS", &dir);
    run(&mut stories)
}

/// Beside their packages, because that is where modules are looked for.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    // Stories that are gone do not run.
    let stories = to.join("stories");
    if stories.exists() {
        fs::remove_dir_all(&stories)?;
    }
    for dir in ["", "stories"] {
        fs::create_dir_all(to.join(dir))?;
        for entry in fs::read_dir(from.join(dir))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), to.join(dir).join(entry.file_name()))?;
            }
        }
    }
    Ok(())
}

/// Installs the packages unless they are there as pinned.
fn install(dir: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("reading what {} needs: {error}", dir.display());
    let mut wanted = Vec::new();
    for pins in PINS {
        wanted.extend(fs::read(dir.join(pins)).map_err(failed)?);
    }
    let complete = dir.join(".complete");
    if fs::read(&complete).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    let advice = "install Node.js 20 or later with npm (Debian: apt-get install nodejs npm)";
    run(command("npm", &args)
        .current_dir(dir)
        .env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1"))
    .map_err(|error| format!("{error}\n{advice}"))?;
    fs::write(&complete, wanted).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_that_is_gone_is_not_copied_again() {
        let dir = std::env::temp_dir().join(format!("ringback-xtask-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(from.join("stories")).unwrap();
        for file in ["rig.mjs", "stories/old.mjs"] {
            fs::write(from.join(file), file).unwrap();
        }
        copy(&from, &to).unwrap();
        fs::rename(from.join("stories/old.mjs"), from.join("stories/new.mjs")).unwrap();
        copy(&from, &to).unwrap();
        assert!(to.join("rig.mjs").exists() && to.join("stories/new.mjs").exists());
        assert!(!to.join("stories/old.mjs").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
