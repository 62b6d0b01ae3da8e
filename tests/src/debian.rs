//! Programs that others wrote, from Debian's packages unpacked below `target/`: nothing is installed,
//! and no root is needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) type Result<T> = std::result::Result<T, String>;

/// Finds what `whole` looks for on the machine or below `target/NAME`, and unpacks the packages there if
/// it is in neither. Two processes may do so at the same time.
pub(crate) fn prepare<T>(
    name: &str,
    packages: &[&str],
    whole: impl Fn(&Path) -> Option<T>,
) -> Result<T> {
    match whole(Path::new("/")) {
        Some(found) => Ok(found),
        None => unpack(name, packages, &[], whole),
    }
}

/// The same, whatever the machine has of packages whose names begin like one of `family`: those are
/// downloaded.
pub(crate) fn unpack<T>(
    name: &str,
    packages: &[&str],
    family: &[&str],
    whole: impl Fn(&Path) -> Option<T>,
) -> Result<T> {
    let dir = target_dir().join(name);
    let doing = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    fs::create_dir_all(&dir).map_err(doing)?;
    let lock = File::create(dir.join("lock")).map_err(doing)?;
    lock.lock().map_err(doing)?;
    let root = dir.join("root");
    if let Some(found) = whole(&root) {
        return Ok(found);
    }
    download(&dir, packages, family).map_err(|error| {
        format!(
            "{error}\nthe programs of {} are missing and cannot be had from Debian's packages here; \
             as root: apt-get install -y --no-install-recommends {}",
            packages.join(", "),
            packages.join(" ")
        )
    })?;
    for package in fs::read_dir(dir.join("archives")).map_err(doing)? {
        let package = package.map_err(doing)?.path();
        if package.extension().is_some_and(|name| name == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&package, &root]))?;
        }
    }
    whole(&root).ok_or_else(|| {
        format!(
            "the packages in {} do not make a whole; remove it",
            dir.display()
        )
    })
}

/// Downloads the packages and whatever of their dependencies the machine does not have.
fn download(dir: &Path, packages: &[&str], family: &[&str]) -> Result<()> {
    let (archives, lists) = (dir.join("archives"), dir.join("lists"));
    let status = dir.join("status");
    if !family.is_empty() {
        let installed = fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default();
        fs::write(&status, without(&installed, family))
            .map_err(|error| format!("{}: {error}", status.display()))?;
    }
    for made in [archives.join("partial"), lists.join("partial")] {
        fs::create_dir_all(&made).map_err(|error| format!("{}: {error}", made.display()))?;
    }
    let apt = |with_lists: bool, args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-y", "-q", "-o", "Debug::NoLocking=true", "-o"])
            .arg(format!("Dir::Cache::archives={}", archives.display()));
        if !family.is_empty() {
            apt.arg("-o")
                .arg(format!("Dir::State::status={}", status.display()));
        }
        if with_lists {
            apt.arg("-o")
                .arg(format!("Dir::State::lists={}", lists.display()));
        }
        run(apt.args(args))
    };
    let mut install = vec!["install", "--no-install-recommends", "--download-only"];
    install.extend(packages);
    apt(false, &install).or_else(|_| {
        // The machine has no lists of packages, or old ones.
        apt(true, &["update"])?;
        apt(true, &install)
    })
}

/// What dpkg would have installed, if it had none of this family.
fn without(installed: &str, family: &[&str]) -> String {
    let is_other = |entry: &&str| {
        let name = entry
            .lines()
            .find_map(|line| line.strip_prefix("Package: "));
        !name.is_some_and(|name| family.iter().any(|begin| name.starts_with(begin)))
    };
    let entries: Vec<_> = installed.split("\n\n").filter(is_other).collect();
    entries.join("\n\n")
}

/// The directory of libraries of this machine's architecture below a root, in which `holds` is true.
pub(crate) fn multiarch(root: &Path, holds: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(root.join("usr/lib")).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| holds(path)).last()
}

/// A program, which finds its libraries below a root first.
pub(crate) fn command(program: &Path, libraries: Option<&std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    let doing = format!("{:?}", command.get_program());
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{doing}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{doing}: {}: {said}", output.status))
        }
    }
}

fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn a_family_of_packages_is_left_out_of_what_is_installed() {
        let installed = "Package: libpq5\nStatus: install ok installed\n\nPackage: libc6\n\n\
                         Version: 1\nPackage: postgresql-15\nDepends: libpq5\n";
        assert_eq!(
            without(installed, &["postgresql", "libpq"]),
            "Package: libc6"
        );
        assert_eq!(without(installed, &["libpq-"]), installed);
    }
}
