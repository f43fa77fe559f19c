//! `check-config`: everything that is wrong at once, or what is in force, without secrets.

use super::args::CheckArgs;
use super::{Global, exit, print, sources};
use crate::adapters::system::SystemClock;
use crate::model::code::{Code, Fault};
use crate::roles::config::REFERENCE;
use crate::roles::config_load::{self, Problem};

/// Runs the command.
pub fn check(global: &Global, args: &CheckArgs) -> Result<u8, Fault> {
    if args.reference {
        return print::out(REFERENCE.as_bytes()).map(|()| exit::SETTLED);
    }
    let mut sources = sources(global);
    if let Some(file) = &args.file {
        sources.file = Some(file.clone());
    }
    let (loaded, problems) = match config_load::load(&sources) {
        Ok(loaded) => {
            let place = loaded.file.as_ref().map_or("configuration".to_owned(), |file| file.display().to_string());
            let wrong = loaded.config.check(&SystemClock).into_iter();
            let problems = wrong.map(|(key, text)| Problem { place: place.clone(), key, text }).collect();
            (Some(loaded), problems)
        }
        Err(problems) => (None, problems),
    };
    let list: Vec<_> = problems
        .iter()
        .map(|problem| serde_json::json!({ "place": problem.place, "key": problem.key, "text": problem.text }))
        .collect();
    let file = loaded.as_ref().and_then(|loaded| loaded.file.as_ref()).map(|file| file.display().to_string());
    let value = serde_json::json!({
        "ok": problems.is_empty(), "problems": list, "file": file, "config": loaded.as_ref().map(|loaded| &loaded.config),
    });
    if !problems.is_empty() {
        print::result(global, &value, || {
            let lines: String = problems.iter().map(|problem| format!("  {problem}\n")).collect();
            format!("{} problems, {}:\n{lines}", problems.len(), Code::ConfigInvalid)
        })?;
        return Ok(exit::REFUSED);
    }
    let config = loaded.map(|loaded| loaded.config).unwrap_or_default();
    let in_force = toml::to_string_pretty(&config).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    print::result(global, &value, || {
        let from = file.map_or("no file: defaults, environment and flags".to_owned(), |file| format!("from {file}"));
        format!("# OK, {from}\n\n{in_force}")
    })?;
    Ok(exit::SETTLED)
}
