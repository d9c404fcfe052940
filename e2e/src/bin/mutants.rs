//! Ten bugs and more, put into the plan on purpose one at a time: a test must catch each. Works on a copy, in a folder of its own.

use e2e::Result;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// A bug: what stands in a file, once, and what it is made into.
struct Mutant {
    /// The rule that it breaks.
    breaks: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        breaks: "a guest is not started on a file that it has left for an overlay",
        file: "plan/src/virtual_machine/overlays.rs",
        from: "seen.ahead.get(&has.file).map(",
        to: "seen.ahead.get(&has.file).filter(|_| false).map(",
    },
    Mutant {
        breaks: "a teardown is for one uid: the domain of another is left",
        file: "plan/src/virtual_machine.rs",
        from: "if seen.mark.owner.uid != vanish.uid {",
        to: "if false {",
    },
    Mutant {
        breaks: "a foreign domain is not defined over",
        file: "plan/src/virtual_machine.rs",
        from: "(Goal::Exist(_), Observed::Foreign { whose }) => Next::Refuse { whose: whose.clone() },",
        to: "(Goal::Exist(want), Observed::Foreign { .. }) => define(want),",
    },
    Mutant {
        breaks: "a teardown is reported as done when nothing is left to do, not before",
        file: "plan/src/virtual_machine/status.rs",
        from: "(Ok(Goal::Vanish(vanish)), Outcome::Planned(Next::Done)) => {",
        to: "(Ok(Goal::Vanish(vanish)), Outcome::Planned(_)) => {",
    },
    Mutant {
        breaks: "a CRD that is deleted orders nothing",
        file: "plan/src/teardown.rs",
        from: "_ if crd_terminating => TeardownPolicy::Keep,",
        to: "_ if crd_terminating && false => TeardownPolicy::Keep,",
    },
    Mutant {
        breaks: "a volume whose file is lost is not made anew",
        file: "plan/src/storage_volume.rs",
        from: "(File::Lost { path }, _, _) => Next::Refuse {",
        to: "(File::Lost { .. }, None, _) => Next::Do(Step::Create(want.clone())),\n        (File::Lost { path }, _, _) => Next::Refuse {",
    },
    Mutant {
        breaks: "a password never travels in clear",
        file: "plan/src/storage_volume.rs",
        from: "http.secret.is_some() && !http.url.starts_with(\"https://\")",
        to: "http.secret.is_some() && http.url.is_empty()",
    },
    Mutant {
        breaks: "what was made for other ends is sent to no server",
        file: "plan/src/storage_volume/secret.rs",
        from: ".filter(|_| TYPES.contains(&kind))",
        to: ".filter(|_| !kind.is_empty())",
    },
    Mutant {
        breaks: "a file that a domain names is not removed",
        file: "plan/src/storage_volume.rs",
        from: "if seen.users.is_empty() =>",
        to: "if seen.users.len() < 99 =>",
    },
    Mutant {
        breaks: "a volume is never cut",
        file: "plan/src/storage_volume.rs",
        from: "Some(capacity) if capacity > image.capacity =>",
        to: "Some(capacity) if capacity != image.capacity =>",
    },
    Mutant {
        breaks: "the mark says started only after the start",
        file: "plan/src/virtual_machine/power.rs",
        from: "Run::Starting => start(want, seen, now),",
        to: "Run::Starting => mark(seen, Run::Started),",
    },
    Mutant {
        breaks: "a restart annotation restarts once",
        file: "plan/src/virtual_machine/power.rs",
        from: "want.restarted_at.clone().or_else(|| seen.mark.restarted_at.clone())",
        to: "seen.mark.restarted_at.clone()",
    },
    Mutant {
        breaks: "a guest that shut itself down is not started with its host",
        file: "plan/src/virtual_machine/power.rs",
        from: "&& seen.mark.run != Run::StoppedByGuest",
        to: "",
    },
    Mutant {
        breaks: "a running guest is not stopped for a change",
        file: "plan/src/virtual_machine/power.rs",
        from: "Run::Started => changes::live(want, seen, now),",
        to: "Run::Started if changes::pending(want, seen).is_some() => shut_down(&want.shutdown, seen, now),\n        Run::Started => changes::live(want, seen, now),",
    },
    Mutant {
        breaks: "a claim is held by one uid, not by a name",
        file: "plan/src/storage_volume/binding.rs",
        from: "writers().find(|vm| status.claimed_by == Some(claim(vm)))",
        to: "writers().find(|vm| status.claimed_by.as_ref().is_some_and(|claim| Some(&claim.name) == vm.metadata.name.as_ref()))",
    },
    Mutant {
        breaks: "a machine stays where a host reports its domain",
        file: "plan/src/placement.rs",
        from: "[host] => return Ok((*host).clone()),",
        to: "[_] => {}",
    },
    Mutant {
        breaks: "a domain is not put back from a snapshot's overlay onto the file below",
        file: "plan/src/virtual_machine/overlays.rs",
        from: "has.filter(|has| is_over(seen, &has.file, &disk.file))",
        to: "has.filter(|has| is_over(seen, &has.file, &disk.file) && false)",
    },
    Mutant {
        breaks: "an overlay that the guest has left is not merged over what was written since",
        file: "plan/src/snapshot/removal.rs",
        from: "return Next::Do(Step::Drop { overlay: overlay.clone() });",
        to: "let _ = overlay;",
    },
    Mutant {
        breaks: "a disk leaves the definition before it leaves the guest",
        file: "plan/src/virtual_machine/changes.rs",
        from: "if by_name(&disks) != by_name(&seen.config.disks) {",
        to: "if by_name(&disks) != by_name(&seen.config.disks) && disks.len() >= seen.config.disks.len() {",
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many were not caught.
fn run() -> Result<usize> {
    let copy = tempfile::tempdir()?;
    let archive = Command::new("git").args(["ls-files", "-z"]).output()?;
    for file in String::from_utf8(archive.stdout)?.split('\0').filter(|file| Path::new(file).exists()) {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().ok_or("no folder")?)?;
        fs::copy(file, to)?;
    }
    apart(&copy.path().join("Cargo.toml"))?;
    if tests(copy.path())? != Verdict::Pass {
        return Err("the tests fail without any bug".into());
    }
    let mut survived = 0;
    for mutant in MUTANTS {
        let path = copy.path().join(mutant.file);
        let sound = fs::read_to_string(&path)?;
        fs::write(&path, sound.replace(mutant.from, mutant.to))?;
        let verdict = tests(copy.path())?;
        fs::write(&path, sound)?;
        match verdict {
            Verdict::Fail => println!("caught: {}", mutant.breaks),
            Verdict::Pass => println!("NOT CAUGHT: {}", mutant.breaks),
            Verdict::Broken => println!("DOES NOT BUILD: {}", mutant.breaks),
        }
        survived += usize::from(verdict != Verdict::Fail);
    }
    println!("{} passed, {survived} failed", MUTANTS.len() - survived);
    Ok(survived)
}

/// Gives the copy a number of its own: crates of one name and number are one to cargo, and what was built with a bug would be run as ours.
fn apart(manifest: &Path) -> Result<()> {
    let (text, own) = (fs::read_to_string(manifest)?, format!("version = \"{}\"", env!("CARGO_PKG_VERSION")));
    if !text.contains(&own) {
        return Err("the workspace's version is not found".into());
    }
    Ok(fs::write(manifest, text.replacen(&own, "version = \"0.0.0-mutant\"", 1))?)
}

#[derive(PartialEq)]
enum Verdict {
    Pass,
    Fail,
    Broken,
}

/// The plan's own tests; a bug that does not build shows nothing.
fn tests(dir: &Path) -> Result<Verdict> {
    let cargo = |words: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(words).args(["--quiet", "--package", "plan", "--lib"]).current_dir(dir);
        cargo.stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    if !cargo(&["test", "--no-run"])?.success() {
        return Ok(Verdict::Broken);
    }
    Ok(if cargo(&["test"])?.success() { Verdict::Pass } else { Verdict::Fail })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_bug_has_its_one_place() {
        for mutant in MUTANTS {
            let sound = fs::read_to_string(Path::new("..").join(mutant.file)).unwrap();
            assert_eq!(sound.matches(mutant.from).count(), 1, "{}: {:?}", mutant.file, mutant.from);
        }
    }
}
