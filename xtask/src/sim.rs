//! Simulations of the whole pipeline, optimised: many stories side by side, one process for each
//! processor. What they are is in `docs/reliability.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use crate::step::{cargo, command, run};
use crate::{USAGE, target};

/// Stories of the long form.
const SEEDS_LONG: u64 = 20_000;
/// Stories of `cargo xtask test`.
const SEEDS_TEST: u64 = 200;

/// Which stories.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stories {
    first: u64,
    seeds: u64,
    /// One part of so many.
    shard: (u64, u64),
}

/// `cargo xtask sim`.
pub(crate) fn run_named(args: &[&str]) -> Result<(), String> {
    if let ["--trace", _] | ["--trace", _, "--bug", _] | ["--planted"] | ["--day"] = args {
        return run(command(&build()?, &[]).args(args));
    }
    tell(&build()?, parse(args)?)
}

/// What `cargo xtask test` runs of it.
pub(crate) fn test() -> Result<(), String> {
    let program = build()?;
    let stories = Stories {
        first: 1,
        seeds: SEEDS_TEST,
        shard: (0, 1),
    };
    tell(&program, stories)?;
    for more in ["--planted", "--day"] {
        run(command(&program, &[]).arg(more))?;
    }
    Ok(())
}

fn parse(args: &[&str]) -> Result<Stories, String> {
    let mut stories = Stories {
        first: 1,
        seeds: SEEDS_LONG,
        shard: (0, 1),
    };
    for pair in args.chunks(2) {
        let wrong = || format!("unknown argument {}\n{USAGE}", pair.join(" "));
        let [name, value] = pair else {
            return Err(wrong());
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        match *name {
            "--first" => stories.first = number(value)?,
            "--seeds" => stories.seeds = number(value)?,
            "--shard" => {
                let (shard, of) = value.split_once('/').ok_or_else(wrong)?;
                let (shard, of) = (number(shard)?, number(of)?);
                // People count from 1.
                if shard == 0 || shard > of {
                    return Err(wrong());
                }
                stories.shard = (shard - 1, of);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(stories)
}

fn build() -> Result<String, String> {
    let package = ["--package", "ringback-tests", "--bin", "sim"];
    run(cargo(&["build", "--locked", "--release"]).args(package))?;
    Ok(target().join("release/sim").to_string_lossy().into_owned())
}

/// Tells stories side by side, and adds up what they were. Interrupted, it goes on where it was.
fn tell(program: &str, stories: Stories) -> Result<(), String> {
    let together = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let (shard, shards) = stories.shard;
    let mut running = Vec::new();
    for part in 0..together {
        let (part, parts) = (shard * together + part, shards * together);
        let state = state_file(stories, part, parts)?;
        let mut one = command(program, &[]);
        one.args(["--first", &stories.first.to_string()])
            .args(["--seeds", &stories.seeds.to_string()])
            .args(["--shard", &format!("{part}/{parts}")])
            .arg("--state")
            .arg(&state);
        running.push((thread::spawn(move || follow(one)), state));
    }
    let mut figures: BTreeMap<String, (f64, String)> = BTreeMap::new();
    let mut good = true;
    let mut states = Vec::new();
    for (follower, state) in running {
        let told = follower
            .join()
            .map_err(|_| "a reader of a simulation broke")??;
        good &= told.good;
        for (name, value, unit) in told.figures {
            let sum = figures.entry(name.clone()).or_insert((0.0, unit));
            // They ran side by side: the longest time is the time.
            sum.0 = match name == "sim.seconds" {
                true => sum.0.max(value),
                false => sum.0 + value,
            };
        }
        states.push(state);
    }
    for (name, (value, unit)) in figures {
        println!("figure {name} {value} {unit}");
    }
    // All are told: the next time begins anew.
    for state in states {
        let _ = fs::remove_file(state);
    }
    match good {
        true => Ok(()),
        false => Err("something was violated; the seeds are above".to_owned()),
    }
}

fn state_file(stories: Stories, part: u64, parts: u64) -> Result<PathBuf, String> {
    let dir = target().join("sim");
    fs::create_dir_all(&dir).map_err(|error| format!("making {}: {error}", dir.display()))?;
    let Stories { first, seeds, .. } = stories;
    let file = dir.join(format!("{first}-{seeds}-{part}-of-{parts}"));
    if file.exists() {
        println!("part {part} of {parts} goes on where it was stopped");
    }
    Ok(file)
}

struct Told {
    good: bool,
    figures: Vec<(String, f64, String)>,
}

/// Runs one process; passes on what it says but for its figures.
fn follow(mut one: Command) -> Result<Told, String> {
    let failed = |error| format!("running a simulation: {error}");
    let mut child = one.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut figures = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(failed)?;
            match figure(&line) {
                Some(figure) => figures.push(figure),
                None => println!("{line}"),
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    Ok(Told {
        good: status.success(),
        figures,
    })
}

fn figure(line: &str) -> Option<(String, f64, String)> {
    let mut words = line.strip_prefix("figure ")?.split(' ');
    let (name, value, unit) = (words.next()?, words.next()?, words.next()?);
    Some((name.to_owned(), value.parse().ok()?, unit.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_form_is_cut_into_shards() {
        let stories = parse(&["--seeds", "100", "--shard", "2/4"]).unwrap();
        let expected = Stories {
            first: 1,
            seeds: 100,
            shard: (1, 4),
        };
        assert_eq!(stories, expected);
        assert_eq!(parse(&[]).unwrap().seeds, SEEDS_LONG);
        for wrong in [
            ["--shard", "0/4"],
            ["--shard", "5/4"],
            ["--seeds", "x"],
            ["--x", "1"],
        ] {
            parse(&wrong).unwrap_err();
        }
        parse(&["--seeds"]).unwrap_err();
    }

    #[test]
    fn figures_are_read_back() {
        let read = figure("figure sim.seconds 1.5 s");
        assert_eq!(read, Some(("sim.seconds".to_owned(), 1.5, "s".to_owned())));
        assert_eq!(figure("seed 3: DL1"), None);
    }
}
